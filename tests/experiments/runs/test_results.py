"""Results: the fixed shape on disk, what was not measured, and the table."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from rich.console import Console

from experiments.runs.details import (
    Details,
    FeatureMeasure,
    Point,
    TextMeasure,
    read_details,
    write_details,
)
from experiments.runs.record import ResultsError
from experiments.runs.results import (
    COSTS,
    FailedRow,
    Row,
    read_results,
    read_table,
    spread,
    strategies,
    write_results,
)
from experiments.runs.table import DASH, plain_table, significant, table, with_sd
from unlearning.evaluation.scorecard import METRICS, Spread, summarise


def row(strategy="fed-eraser", seed=0, *, metrics=None, cost=None):
    return Row(
        strategy=strategy,
        seed=seed,
        scope="client",
        guarantee="approximate",
        metrics={"test_accuracy": 0.9} if metrics is None else metrics,
        cost={"wall_s": 1.5, "examples": 255_000} if cost is None else cost,
        model_digest="ab" * 32,
    )


def test_the_file_has_exactly_the_published_shape(tmp_path):
    write_results(tmp_path, {"seed": 0}, [row()])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {
        "config": {"seed": 0},
        "rows": [
            {
                "strategy": "fed-eraser",
                "seed": 0,
                "scope": "client",
                "guarantee": "approximate",
                "metrics": {
                    "retain_accuracy": None,
                    "forget_accuracy": None,
                    "test_accuracy": 0.9,
                    "mia_auc": None,
                    "backdoor_success": None,
                    "prediction_distance": None,
                },
                "cost": {
                    "wall_s": 1.5,
                    "client_rounds": None,
                    "client_s": None,
                    "examples": 255_000,
                    "bytes_up": None,
                    "bytes_down": None,
                    "history_bytes": None,
                    "speedup_wall": None,
                    "speedup_examples": None,
                },
                "model_digest": "ab" * 32,
            }
        ],
    }


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = (row("retrain"), row(seed=3, metrics=dict.fromkeys(METRICS, 0.25)))
    write_results(tmp_path, {"data": {"name": "digits"}}, rows)
    assert read_results(tmp_path) == ({"data": {"name": "digits"}}, rows)


def test_the_table_for_spreadsheets_has_one_line_per_row_and_empty_cells(tmp_path):
    write_results(tmp_path, {}, [row(), row(seed=1)])
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == ["0", "1"]
    assert set(lines[0]) == {
        *("strategy", "seed", "scope", "guarantee", "model_digest", "failed"),
        *METRICS,
        *COSTS,
    }
    assert (lines[0]["test_accuracy"], lines[0]["mia_auc"]) == ("0.9", "")


def test_measures_that_some_runs_have_stand_behind_all_other_columns(tmp_path):
    rows, lost = [row(), row(seed=1)], FailedRow("no-t", 1, "client", "approximate", "why")
    write_results(tmp_path, {}, rows, [lost])
    plain = (tmp_path / "results.csv").read_text().splitlines()
    measures = [
        TextMeasure(strategy=row().strategy, seed=1, measure="canary_exposure", value=1.5),
        FeatureMeasure(strategy=row().strategy, seed=0, measure="sensitivity", value=0.0),
    ]
    write_results(tmp_path, {}, rows, [lost], measures=measures)
    found = (tmp_path / "results.csv").read_text().splitlines()
    ends = [",canary_exposure,sensitivity", ",,0.0", ",1.5,", ",,"]
    assert found == [line + end for line, end in zip(plain, ends, strict=True)]
    assert read_table(tmp_path / "results.csv") == tuple(rows)
    assert read_results(tmp_path)[1] == tuple(rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": {"test_accuracy": math.nan}}, "test_accuracy"),
        ({"cost": {"wall_s": math.inf}}, "wall_s"),
        ({"metrics": {"accuracy": 0.5}}, "'accuracy'"),
        ({"cost": {"gpu_s": 0.5}}, "'gpu_s'"),
    ],
)
def test_what_is_no_measurement_does_not_become_a_row(changes, words):
    with pytest.raises(ValueError, match=words):
        row(**changes)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"config": {}, "rows": [{}]}', '{"config": {}, "rows": [3]}', '{"config": 1'],
)
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=r"results\.json.*run the experiment again"):
        read_results(tmp_path)


def test_a_missing_file_says_where_to_look(tmp_path):
    with pytest.raises(ResultsError, match=r"does not exist.*fedunlearn status"):
        read_results(tmp_path)


def test_details_come_back_and_may_grow(tmp_path):
    details = Details(
        command="fedunlearn run c.toml",
        timeline=(Point(strategy="original", seed=0, phase="learn", round=1, test_accuracy=0.5),),
    )
    write_details(tmp_path, details)
    assert read_details(tmp_path) == details
    write_details(tmp_path, {"weather": "fair"})
    assert json.loads((tmp_path / "details.json").read_text())["weather"] == "fair"


def test_details_of_another_shape_are_refused_when_written_and_when_read(tmp_path):
    wrong = {"timeline": [{"strategy": "x", "seed": 0, "phase": "sleep", "round": 1}]}
    with pytest.raises(ValueError, match="phase"):
        write_details(tmp_path, wrong)
    (tmp_path / "details.json").write_text(json.dumps(wrong))
    with pytest.raises(ResultsError, match=r"timeline\.0\.phase"):
        read_details(tmp_path)


def test_no_details_are_empty_details(tmp_path):
    assert read_details(tmp_path) == Details()


def test_controls_come_first_and_the_others_as_they_ran():
    rows = [row(name) for name in ("no-t", "fine-tune", "fed-eraser", "retrain", "original")]
    assert strategies(rows) == ("original", "retrain", "fine-tune", "no-t", "fed-eraser")


def test_spread_leaves_unmeasured_seeds_out():
    rows = [row(seed=s, metrics={"mia_auc": value}) for s, value in enumerate((0.4, None, 0.6))]
    found = spread(rows, "fed-eraser", "mia_auc")
    assert found is not None
    assert (found.mean, found.n) == (0.5, 2)
    assert spread(rows, "fed-eraser", "test_accuracy") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4.0, "4.00"),
        (4.4444, "4.44"),
        (0.01234, "0.0123"),
        (255_123.4, "255,123"),
        (-3.14159, "-3.14"),
    ],
)
def test_numbers_are_rounded_to_what_they_can_bear(value, text):
    assert significant(value) == text


def test_the_spread_is_shown_with_the_digits_of_the_mean():
    assert with_sd(None) == DASH
    assert with_sd(Spread(0.95, 0.0044, 5, 0.94, 0.96), 3) == "0.950 ± 0.004"
    assert with_sd(Spread(2.63, 0.126, 5, 2.5, 2.7)) == "2.63 ± 0.13"
    assert with_sd(Spread(0.95, None, 1, None, None), 3) == "0.950"
    assert with_sd(summarise([2.63, 2.63, 2.63])) == "2.63"  # equal values have no spread to show


@pytest.fixture
def rows():
    metrics = [{"test_accuracy": value, "mia_auc": 0.5} for value in (0.951, 0.957)]
    answers = [row(seed=seed, metrics=found) for seed, found in enumerate(metrics)]
    return [*answers, row("gradient-ascent"), row("original")]


def printed(rows):
    console = Console(width=80, file=io.StringIO())
    console.print(table(rows))
    return console.file.getvalue()


def test_plain_table_has_one_line_per_strategy_and_dashes(rows):
    head, *lines, caption = plain_table(rows).splitlines()
    assert head.split()[:2] == ["Strategy", "Guarantee"]
    assert [line.split()[0] for line in lines] == ["original", "fed-eraser", "gradient-ascent"]
    assert "0.954 ± 0.004" in lines[1]
    assert DASH in lines[1]
    assert "2 seeds" in caption
    assert "not measured" in caption
    assert len({len(line) for line in lines}) == 1


def test_the_terminal_table_fits_80_columns_without_cutting(rows):
    full = dict.fromkeys(METRICS, 0.123456) | {"test_accuracy": 0.5}
    wide = [*rows, *(row("gradient-ascent", s, metrics=full) for s in (1, 2))]
    text = printed(wide)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for piece in ("gradient-ascent", "approximate", "0.954", "±0.004", "3 seeds", "0.123"):
        assert piece in text


def test_names_are_shown_as_text_not_as_markup():
    assert "[red]:Own[/red]" in printed([row("[red]:Own[/red]")])


def test_a_long_name_is_folded_and_no_number_lost():
    text = printed([row("my_package.my_module:MyVeryOwnStrategy", metrics={"mia_auc": 0.4321})])
    assert "0.432" in text
    assert "…" not in text

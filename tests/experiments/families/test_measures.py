"""From run folders to numbers by strategy and seed."""

from __future__ import annotations

import pytest

from experiments.families.measures import MEASURES, joined, scopes_of, seeds_of
from experiments.families.reading import read_run
from experiments.runs.record import ResultsError
from tests.support.finished import a_run, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "one"), "one", margin=0.02)


def of(run, strategy, measure):
    return run.cell(strategy, measure).by_seed[1]


def test_the_run_says_what_it_was(run):
    assert (run.scope, run.partition, run.data, run.model, run.clients) == (
        "client",
        "iid",
        "digits",
        "mlp",
        10,
    )
    assert run.seeds == (0, 1, 2)
    assert run.is_iid
    assert not run.is_traditional
    assert run.refused == {"ridge": "does not work on a network"}
    assert run.asked == "client 3"
    assert run.marker_before == (0.95, 0.95, 0.95)


def test_the_course_begins_at_the_request(run):
    """Before 0.901, lowest 0.501; the level is the original's 0.901, reached in round 2."""
    assert of(run, "fed-eraser", "before") == pytest.approx(0.901)
    assert of(run, "fed-eraser", "drop") == pytest.approx(0.4)
    assert of(run, "fed-eraser", "rounds_back") == 2
    assert of(run, "fed-eraser", "budget") == 2
    assert run.courses["fed-eraser"].rounds == (1, 2)
    assert run.courses["fed-eraser"].unlearned == 1
    assert run.courses["fed-eraser"].accuracy[0] == pytest.approx(0.501)


def test_a_strategy_without_rounds_is_in_service_at_once(run):
    """The ledger says 0.75 right after unlearning; 0.891 after a round is within 0.02 of 0.901."""
    assert run.courses["fed-recovery"].rounds == (0, 1)
    assert of(run, "fed-recovery", "lowest") == 0.75
    assert of(run, "fed-recovery", "rounds_back") == 1
    assert of(run, "fed-recovery", "after") == 0.75
    assert of(run, "fed-recovery", "loss") == pytest.approx(0.151)


def test_numbers_are_held_against_the_retrained_model_of_the_seed(run):
    """Retain and test accuracy differ by 0.01, backdoor success too; two are equal: 0.03 / 5."""
    assert of(run, "fed-eraser", "gap") == pytest.approx(0.006)
    assert of(run, "fed-eraser", "end_gap") == pytest.approx(-0.01)
    assert of(run, "fed-eraser", "marker_gap") == pytest.approx(0.01)
    assert of(run, "retrain", "gap") is None


def test_costs_are_shares_of_retraining(run):
    assert of(run, "fed-eraser", "share_examples") == 0.5
    assert of(run, "fed-eraser", "share_unlearn_examples") == 0.5
    assert of(run, "fed-eraser", "bytes") == 30
    assert of(run, "original", "share_examples") is None
    assert of(run, "original", "examples") is None


def test_every_line_has_every_number(run):
    assert all(set(line.numbers) == set(MEASURES) for line in run.lines)


def test_a_partitioner_is_named_with_its_parameters(tmp_path):
    folder = write_run(tmp_path / "two", partitioner="dirichlet")
    found = read_run(folder, "two", margin=0.02)
    assert found.partition == "dirichlet(alpha=0.3)"
    assert not found.is_iid


def test_without_ledger_details_and_retraining_numbers_are_none(tmp_path):
    folder = write_run(tmp_path / "bare", strategies=("original", "fed-eraser"))
    for name in ("details.json", "ledger.sqlite"):
        (folder / name).unlink()
    found = read_run(folder, "bare", margin=0.02)
    for measure in ("gap", "rounds_back", "budget", "after", "share_examples"):
        assert found.cell("fed-eraser", measure).values == []
    assert found.level is None


def test_no_results_is_said(tmp_path):
    with pytest.raises(ResultsError, match=r"results\.json does not exist"):
        read_run(tmp_path, "none", margin=0.02)


def test_a_traditional_model_is_told_from_a_network():
    assert a_run(model="ridge").is_traditional
    assert not a_run(model="cnn").is_traditional


def test_seeds_and_scopes_of_several():
    runs = [a_run(scope="task", seeds=(0, 2)), a_run(scope="client", seeds=(1,))]
    assert seeds_of(runs) == (0, 1, 2)
    assert scopes_of(runs) == ("client", "task")


def test_a_comparison_run_seed_by_seed_is_one(tmp_path):
    whole = read_run(write_run(tmp_path / "all"), "all", margin=0.02)
    parts = [
        read_run(write_run(tmp_path / str(seeds), seeds=seeds), "all", margin=0.02)
        for seeds in ((2,), (0, 1))
    ]
    (found,) = joined(parts)
    assert found.seeds == whole.seeds
    assert found.lines == whole.lines
    assert found.level == pytest.approx(whole.level)
    assert found.marker_before == whole.marker_before
    for name, course in whole.courses.items():
        assert found.courses[name].rounds == course.rounds
        assert found.courses[name].accuracy == pytest.approx(course.accuracy)


def test_other_settings_or_equal_seeds_stay_apart(tmp_path):
    one, other = (
        read_run(write_run(tmp_path / p, partitioner=p, seeds=seeds), p, margin=0.02)
        for p, seeds in (("iid", (0, 1)), ("dirichlet", (2, 3)))
    )
    assert joined([one, other]) == [one, other]
    assert joined([one, one]) == [one, one]

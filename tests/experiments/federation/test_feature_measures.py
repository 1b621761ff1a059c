"""Requests for features: what the judge says of a model, and a whole run from words to report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config.loading import from_mapping
from experiments.federation import feature_measures as module
from experiments.federation.answers import asks_for_marker
from experiments.federation.feature_measures import feature_measures
from experiments.federation.party import Party
from experiments.federation.task import Examples, Scenario, Task, task
from experiments.runs.details import read_details
from unlearning.arrays import Arrays
from unlearning.columns import Columns
from unlearning.evaluation.scorecard import Outputs, Predictions
from unlearning.request import Request, Scope

TABLE = {
    "data": {"name": "breast-cancer", "clients": 3},
    "model": {"name": "linear"},
    "requests": [{"scope": "feature", "features": ["worst area"]}],
    "engine": {"grid": "local"},
    "rounds": 4,
    "recovery_rounds": 1,
}


def settled(**changes: object) -> Task:
    return task(Scenario.of(from_mapping({**TABLE, **changes})))


def party(arrays: Arrays) -> Party:
    none = Predictions(np.empty((0, 2)), np.empty(0, np.int64))
    return Party("x", 0, "none", arrays, Outputs(none, none, none, none), {}, None, "feature")


def measured(found: Task, arrays: Arrays, *features: int, clients=()) -> dict[str, float]:
    asked = Request(Scope.FEATURE, features=features, clients=clients)
    return {m.measure: m.value for m in feature_measures(found, [asked], [party(arrays)])}


def test_of_a_linear_model_the_sensitivity_is_the_length_of_the_column() -> None:
    found = settled()
    arrays = found.initial()
    (weight,) = (a for a in arrays.values() if a.ndim == 2)
    got = measured(found, arrays, 4)
    assert got["sensitivity"] == pytest.approx(float(np.linalg.norm(weight[:, 4])), rel=1e-4)


def test_what_is_not_read_has_no_sensitivity_and_gives_nothing_away() -> None:
    found = settled()
    arrays = {n: a.copy() for n, a in found.initial().items()}
    for array in arrays.values():
        if array.ndim == 2:
            array[:, 23] = 0
    got = measured(found, arrays, 23, clients=(1,))
    assert got["sensitivity"] == 0
    assert got["attribute_auc"] == got["attribute_null"] == 0.5
    x, y = found.test_set()
    assert got["accuracy_without"] == np.mean(found.predict(arrays, x).argmax(1) == y)


def test_a_model_that_reads_the_column_alone_gives_it_away() -> None:
    """Label 1 is the likelier the smaller the column is: the loss tells the value."""
    found = settled()
    arrays = {n: np.zeros_like(a) for n, a in found.initial().items()}
    for array in arrays.values():
        if array.ndim == 2:
            array[:, 23] = [50, -50]
        else:
            array[:] = [-10, 10]
    got = measured(found, arrays, 23)
    assert min(got["attribute_auc"], got["attribute_null"]) > 0.7
    assert 0 < got["attribute_se"] < 0.05


def test_a_category_takes_that_of_another_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns of a category move together, to values that some row has; others by noise."""
    found = settled()
    names = ("job=a", "job=b", "job=c", *(f"n{i}" for i in range(27)))
    monkeypatch.setattr(found, "columns", Columns((30,), names))
    rows = np.zeros((40, 30), np.float32)
    rows[np.arange(40), np.arange(40) % 3] = 1
    whole = Examples(rows, np.zeros(40, np.int64))
    owner = module._Owner(0, np.array([0, 1, 2, 7]), whole, whole)
    moved, length = module._moved(found, owner, np.random.default_rng(0))
    assert sorted(map(tuple, moved[:, :3])) == sorted(map(tuple, rows[:, :3]))
    other = (moved[:, :3] != rows[:, :3]).any(axis=1)
    assert 10 < other.sum() < 40
    assert (moved[:, 7] != 0).all()
    np.testing.assert_allclose(length, np.hypot(moved[:, 7], np.sqrt(2) * other), rtol=1e-5)
    alone = module._Owner(0, np.array([0, 1]), whole, whole)  # a part of a category is numbers
    moved, _ = module._moved(found, alone, np.random.default_rng(0))
    assert not np.isin(moved[:, :2], (0, 1)).any()


def test_without_a_feature_nothing_is_measured() -> None:
    found = settled()
    asked = Request(Scope.CLIENT, clients=(1,))
    assert not list(feature_measures(found, [asked], [party(found.initial())]))


MARKER = {"kind": "spurious", "label": 0, "size": 2, "fraction": 1.0}


def test_a_spurious_feature_is_planted_on_its_own_label_at_all_clients() -> None:
    found = settled(marker=MARKER)
    assert set(found.marked_samples) == {0, 1, 2}
    for client, positions in found.marked_samples.items():
        x, y, _, _ = found.client(client)
        bright = (x[:, -2:] == 2).all(axis=1)
        assert (y[bright] == 0).all()
        assert bright.sum() == len(positions) == (y == 0).sum()
    assert found.columns.marked == (28, 29)
    assert found.triggered_test() is not None
    one = settled(marker={**MARKER, "client": 1})
    assert set(one.marked_samples) == {1}


def test_the_marker_is_asked_for_where_all_owners_withdraw_its_values() -> None:
    found = settled(marker=MARKER)
    for features, clients, said in (
        ((28, 29), (), True),
        ((28,), (), False),
        ((28, 29), (1,), False),
    ):
        request = Request(Scope.FEATURE, features=features, clients=clients)
        assert asks_for_marker(found, [request]) is said


def test_another_kind_of_marker_needs_a_client() -> None:
    from unlearning.errors import ConfigError

    with pytest.raises(ConfigError, match="client is missing"):
        from_mapping({**TABLE, "marker": {"kind": "backdoor"}})


def test_from_a_name_to_receipt_and_report(tmp_path: Path) -> None:
    import tomli_w

    config = tmp_path / "feature.toml"
    config.write_text(tomli_w.dumps({**TABLE, "strategy": "retrain"}))
    out = tmp_path / "out"
    runner = CliRunner()
    ran = runner.invoke(app, ["run", str(config), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    found = read_details(out)
    assert {m.measure for m in found.feature_measures} >= {"sensitivity", "accuracy_without"}
    assert found.requests[0]["text"] == "feature worst area"
    page = (out / "report.html").read_text()
    assert "Sensitivity to the features" in page
    assert "feature worst area" in page
    assert json.loads((out / "federation.json").read_text())["columns"][23] == "worst area"
    asked = runner.invoke(
        app, ["request", str(out), "--feature", "mean texture", "--client", "1", "--json"]
    )
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.output)["request"]["features"] == [1]
    wrong = runner.invoke(app, ["request", str(out), "--feature", "mean textur"])
    assert wrong.exit_code == 2
    served = runner.invoke(app, ["resume", str(out)])
    assert served.exit_code == 0, served.output
    for client in (0, 1, 2):
        buried = json.loads(next(out.rglob(f"client-0000{client}/tombstones.json")).read_text())
        assert buried["features"] == ([1, 23] if client == 1 else [23])
    made = runner.invoke(app, ["receipt", "make", str(out), "config-1"])
    assert made.exit_code == 0, made.output
    receipt = json.loads((out / "receipts" / "config-1" / "receipt.json").read_text())
    assert "feature worst area" in json.dumps(receipt)

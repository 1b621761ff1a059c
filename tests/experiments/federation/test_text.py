"""Text from end to end: every strategy that claims any network serves it, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.federation.checkpoint import Outcomes
from experiments.federation.party import Party
from experiments.federation.preflight import check
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_judge import judge_of
from experiments.federation.text_judge import TextJudge
from experiments.federation.text_measures import said_greedily
from experiments.runs.details import Details, TextMeasure, read_details
from experiments.runs.results import read_failed, read_results
from experiments.runs.text import plain_text_table
from strategies import discovery
from strategies.base import UnlearningStrategy
from tests.support.undrawn import undrawn
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, RequestError
from unlearning.evaluation.scorecard import Outputs, Predictions
from unlearning.evaluation.text import exposure_null
from unlearning.request import Request, Scope

SMALL: dict[str, dict[str, Any]] = {
    "char-lstm": {"hidden": 8},
    "char-transformer": {"width": 8, "heads": 2, "layers": 1},
}
REQUESTS = {
    Scope.CLIENT: {"scope": "client", "clients": [1]},
    Scope.SAMPLE: {"scope": "sample", "samples": "marked"},
}
CONTROLS = ("retrain", "fine-tune")


def raw(model: str = "char-transformer", **changes: Any) -> dict[str, Any]:
    return {
        "rounds": 2,
        "recovery_rounds": 1,
        "strategies": ["forget-loss"],
        "data": {
            "name": "shakespeare",
            "partitioner": "natural-id",
            "window": 12,
            "speakers": 3,
            "limit": 150,
            "test_limit": 30,
        },
        "model": {"name": model, **SMALL[model]},
        "train": {"learning_rate": 0.5, "batch_size": 16},
        "marker": {"kind": "canary", "client": 1, "fraction": 0.3, "canaries": 2, "length": 4},
        "requests": [REQUESTS[Scope.CLIENT]],
        "options": {"forget-loss": {"kind": "npo"}},
        "engine": {"grid": "local"},
        **changes,
    }


def made(**changes: Any) -> Task:
    return task(Scenario.of(from_mapping(raw(**changes))))


def compared(home: Path, **changes: Any) -> Path:
    return launch.compare(from_mapping(raw(**changes)), home / "run", observer=lambda tick: None)


def serving(scope: Scope) -> list[str]:
    """Return all strategies that claim any network and this scope."""
    found = discovery.concrete(UnlearningStrategy).items()
    return [name for name, cls in found if cls.works_on(None) and scope in cls.scopes]


NIGHTLY = [pytest.mark.nightly]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("model", "scope"),
    [
        ("char-transformer", Scope.CLIENT),
        pytest.param("char-transformer", Scope.SAMPLE, marks=NIGHTLY),
        pytest.param("char-lstm", Scope.CLIENT, marks=NIGHTLY),
        pytest.param("char-lstm", Scope.SAMPLE, marks=NIGHTLY),
    ],
)
def test_every_strategy_for_networks_serves_text(
    tmp_path: Path, model: str, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but what moves the inputs, which is told before it starts; none fails on its way."""
    undrawn(monkeypatch.setattr)
    names = [name for name in serving(scope) if name not in CONTROLS]
    data = {**raw()["data"], "window": 8, "limit": 60, "test_limit": 10, "public": 0.1}
    out = compared(tmp_path, model=model, data=data, strategies=names, requests=[REQUESTS[scope]])
    _, rows = read_results(out)
    failed = {found.strategy: found.failed for found in read_failed(out)}
    assert {row.strategy for row in rows} | failed.keys() == {*names, *CONTROLS, "original"}
    assert set(failed) <= {"quick-drop"}
    assert all("along a slope" in reason for reason in failed.values())


def test_forget_loss_with_npo_serves_text_and_everything_is_measured(tmp_path: Path) -> None:
    out = compared(tmp_path)
    _, rows = read_results(out)
    assert [row.strategy for row in rows] == ["original", "retrain", "fine-tune", "forget-loss"]
    assert not read_failed(out)
    assert all(row.metrics["mia_auc"] is not None for row in rows)
    details = read_details(out)
    assert details.data["owners"] == ["HAMLET", "MACBETH", "ANTONY"]
    names = {
        *(f"{name}_perplexity" for name in ("retain", "forget", "held_out", "test")),
        *(f"{name}_completion" for name in ("forget", "held_out", "canary")),
        "canary_exposure",
    }
    for row in rows:
        found = measured(details, row.strategy)
        assert found.keys() == names
        assert all(found[name] >= 1 for name in names if name.endswith("perplexity"))
    page = (out / "report.html").read_text()
    assert '<h2 id="text">Text</h2>' in page
    assert "an exposure of 1.43 bits on average (standard error 1.00 for the mean of 2)" in page
    assert "Client 1 is MACBETH." in page
    assert "Canaries are no backdoor" in page
    assert "The canaries have" in page
    assert "exposure of canaries" in page
    words = plain_text_table(details.text_measures).splitlines()
    assert words[0].split() == ["Text", "original", "retrain", "fine-tune", "forget-loss"]
    assert len(words) == 9
    lines = (out / "text.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 8


def measured(details: Details, strategy: str) -> dict[str, float]:
    return {m.measure: m.value for m in details.text_measures if m.strategy == strategy}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_canaries_are_exposed_where_they_were_learned_and_not_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that learned them ranks them first; the retrained one as any others."""
    undrawn(monkeypatch.setattr)
    out = compared(
        tmp_path,
        model="char-lstm",
        rounds=4,
        strategies=["fine-tune"],
        data={**raw()["data"], "window": 8, "speakers": 2, "limit": 40},
        train={"learning_rate": 2.0, "batch_size": 4, "local_epochs": 8},
        marker={"kind": "canary", "client": 1, "fraction": 0.9, "canaries": 2, "length": 4},
    )
    details = read_details(out)
    null, error = exposure_null(512, 2)
    assert measured(details, "original")["canary_exposure"] > null + 3 * error
    assert measured(details, "retrain")["canary_exposure"] < null + 3 * error


def test_labels_are_what_follows_every_token() -> None:
    found = made()
    data = found.client(0)
    labels = found.labels(data.train_x, data.train_y)
    assert labels.shape == data.train_x.shape
    assert (labels[:, :-1] == data.train_x[:, 1:]).all()
    assert (labels[:, -1] == data.train_y).all()
    plain = task(Scenario.of(from_mapping({"data": {"name": "digits", "limit": 100}})))
    assert plain.labels(*plain.test_set()) is plain.test_set().y


def test_one_prediction_is_that_of_the_last_place() -> None:
    found = made()
    arrays, x = found.initial(), found.test_set().x
    assert np.allclose(found.predict(arrays, x), found.predict_all(arrays, x)[:, -1], atol=1e-6)
    assert found.predict(arrays, x[:0]).shape == (0, 96)
    assert np.allclose(found.predict_all(arrays, x).sum(-1), 1, atol=1e-5)


def test_the_judge_looks_at_every_character() -> None:
    found = made()
    judge = judge_of(found, [Request(Scope.CLIENT, clients=(1,))])
    assert isinstance(judge, TextJudge)
    outputs = judge.outputs(found.initial())
    assert len(outputs.test) == 12 * len(found.test_set().y)
    assert outputs.forget.num_examples == len(found.client(1).train_y)
    tally = judge.tally(outputs)
    assert tally.clients == (0, 2)
    assert sum(map(sum, tally.total)) == len(outputs.retain)


class Cycle:
    """A task whose model says: after token t comes t + 1."""

    def predict_all(self, arrays: Arrays, x: Any, device: str) -> Any:
        return np.eye(10)[(x.astype(int) + 1) % 10]


def test_going_on_takes_the_likeliest_every_time() -> None:
    said = said_greedily(Cycle(), {}, np.array([[3, 4], [8, 9]]), 3)  # type: ignore[arg-type]
    assert said.tolist() == [[5, 6, 7], [0, 1, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"marker": {"kind": "backdoor", "client": 1}}, "plant a 'canary' in text"),
        ({"marker": {"kind": "canary", "client": 1, "length": 9}}, "does not fit a window of 12"),
        ({"data": {"name": "digits", "clients": 3}}, "reads windows of text"),
        ({"data": {"name": "breast-cancer", "clients": 3}, "marker": None}, "reads tokens"),
    ],
)
def test_what_does_not_fit_text_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_a_canary_is_for_text_alone() -> None:
    config = {"data": {"limit": 200}, "marker": {"kind": "canary", "client": 1}}
    with pytest.raises(ConfigError, match="does not read text"):
        task(Scenario.of(from_mapping(config)))


@pytest.mark.parametrize(
    "request_", [Request(Scope.CLASS, classes=(5,)), Request(Scope.FEATURE, features=(1,))]
)
def test_a_character_is_no_class_and_a_position_no_feature(request_: Request) -> None:
    with pytest.raises(RequestError):
        made().check(request_)


def test_a_network_of_ones_own_may_answer_at_every_position() -> None:
    changes = {"model": {"name": "tests.experiments.federation.test_text:flat"}}
    config = from_mapping({**raw(), **changes})
    with pytest.raises(ConfigError, match=r"returns logits of shape \(n, 96, 12\)"):
        check(config, task(Scenario.of(config)))


def flat(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """Return a network that says it answers at every position, and does not."""
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(*input_shape, num_classes))
    net.every_position = True  # type: ignore[assignment]
    return net


def test_what_was_measured_of_text_comes_back_after_a_crash(tmp_path: Path) -> None:
    rows = np.full((4, 2), 0.5, np.float32)
    seen = Predictions(rows, np.zeros(4, np.int64), each=2)
    party = Party("retrain", 0, "exact", {}, Outputs(seen, seen, seen, seen), {}, None, "client")
    told = TextMeasure(strategy="retrain", seed=0, measure="canary_exposure", value=1.5)
    kept = Outcomes(tmp_path / "outcomes")
    for place, outcome in enumerate((party, told)):
        kept.add(place, outcome)
    first, second = Outcomes(tmp_path / "outcomes").load()
    assert isinstance(first, Party)
    assert first.outputs.forget.num_examples == 2
    assert second == told

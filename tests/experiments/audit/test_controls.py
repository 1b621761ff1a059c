"""Controls: splits with nothing in common, cards from them, and retraining as the zero."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.audit.controls import NULL_RUNS, Controls, Gallery, splits
from experiments.audit.plan import Plan, settled
from experiments.audit.traces import Probes, Trace
from experiments.federation.task import Examples
from tests.support.audits import config
from unlearning.evaluation.catalogue import metrics_by_id

SIZE, N, CLASSES = 8, 24, 3
LABELS = np.arange(N) % CLASSES
KNOWN = {"original": 4.0, "retrain": 0.0, "dose-10": 0.6, "dose-25": 1.5, "dose-50": 2.5}


@pytest.fixture(autouse=True)
def _cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path))


def trace(rng: np.random.Generator, memory: float) -> Trace:
    """Return a model that is surer of the forget set's labels by ``memory`` nats."""

    def said(more: float) -> np.ndarray:
        logits = rng.normal(0, 0.5, (N, CLASSES))
        logits[np.arange(N), LABELS] += more
        return logits.astype(np.float32)

    forget = said(memory)
    right = float((forget.argmax(1) == LABELS).mean())
    relearn = np.maximum(2.0 - memory / 2.5 - np.arange(65) / 20 + rng.normal(0, 0.01), 0.1)
    return Trace(
        forget=forget,
        held_out=said(0),
        retain=said(2),
        test=said(1),
        accuracies=np.array([right, 0.9, 0.9]) + rng.normal(0, 0.005, 3) * [0, 1, 1],
        clients=np.array([0.9, np.nan, 0.8]) + rng.normal(0, 0.01, 3),
        class_correct=np.ones((3, CLASSES), np.int64),
        marker=np.array([memory / 5 + rng.normal(0, 0.01)]),
        noise=np.empty(0),
        relearn=relearn,
        features=np.empty((0, 0), np.float32),
        work=np.zeros((3, 4), np.int64),
    )


def gallery(known: dict[str, float]) -> Gallery:
    plan = Plan(settled(config()), (), SIZE, "key")
    rng = np.random.default_rng(0)
    some = Examples(np.zeros((N, 1), np.float32), LABELS)
    probes = Probes(
        some, some, some, some, LABELS % 2 * 2, np.ones(N, bool), np.ones((3, CLASSES), np.int64)
    )
    models = {model: trace(rng, known.get(model.role, 4.0)) for model in plan.models()}
    return Gallery(plan, models, probes)


def test_the_sides_of_a_split_share_no_seed() -> None:
    plan = Plan(settled(config()), (), SIZE, "key")
    found = splits(plan)
    assert len(found) == NULL_RUNS
    everyone = {*plan.judged, *plan.reference, *plan.again}
    for sides in found:
        assert [len(side) for side in sides] == [SIZE] * 3
        assert set().union(*sides) == everyone
    assert len({tuple(judged) for judged, _, _ in found}) == NULL_RUNS


def test_retraining_is_zero_and_doing_nothing_is_one() -> None:
    shown = gallery(KNOWN)
    controls = Controls(shown)
    entries = metrics_by_id()
    for metric in ("M1", "M3", "M4", "M5", "M6", "M8", "M10", "M11"):
        line = controls.scale(metric)
        assert line is not None
        assert abs(line(float(np.mean(controls.values(controls.null, metric))))) < 1e-9
        assert line(float(np.mean(controls.values(controls.positive, metric)))) == pytest.approx(1)
        card = controls.card(entries[metric])
        assert card.separation_auc == 1.0
        assert card.dose_spearman == pytest.approx(1)
        assert card.false_alarm_low is not None
        assert card.passes, (metric, card.reason)
    low, high = controls.spread("M3") or (0, 0)
    assert low < 0.5 < high


def test_without_anything_to_forget_no_card_passes() -> None:
    controls = Controls(gallery(dict.fromkeys(KNOWN, 0.0)))
    for entry in metrics_by_id().values():
        card = controls.card(entry)
        assert not card.passes
        assert card.reason
    assert controls.scale("M3") is None

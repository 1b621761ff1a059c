"""Triggers in a federation: live inputs, shifted labels, another share to unlearn with."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.config.loading import from_mapping
from experiments.federation.judge import Judge
from experiments.federation.participants import participant
from experiments.federation.task import Scenario, Task, task


def made(**marker: Any) -> Task:
    raw = {
        "data": {"clients": 3, "limit": 240},
        "model": {"hidden": 4},
        "marker": {"client": 1, **marker},
        "requests": [{"scope": "client", "clients": [1]}],
    }
    return task(Scenario.of(from_mapping(raw)))


def test_the_corner_of_digits_is_dead_and_a_live_patch_is_not() -> None:
    def spread(found: Task) -> float:
        marker = found.marker
        assert marker is not None
        assert not isinstance(marker.at, str)
        row, column = marker.at
        x = found.client(0).train_x
        return float(x[:, 0, row : row + 3, column : column + 3].var(axis=0).mean())

    assert spread(made(at="live")) > 1.5 * spread(made())


def test_a_shifted_backdoor_is_judged_by_the_label_of_each_example() -> None:
    found = made(shift=5)
    triggered = found.triggered_test()
    assert triggered is not None
    assert np.array_equal(triggered.target, (triggered.y + 5) % 10)
    assert len(triggered.y) == len(found.test_set().y)
    judge = Judge(found, ())
    outputs = judge.outputs(found.initial())
    assert outputs.triggered is not None
    share = (outputs.triggered.probabilities.argmax(1) == triggered.target).mean()
    assert judge.glance(found.initial())["backdoor_success"] == share


def test_a_client_helps_to_unlearn_with_another_share_of_poison() -> None:
    found = made(fraction=0.5, unlearn_fraction=1.0)
    trained = found.client(1)
    asked = found.asked(1)
    assert asked is not None
    assert found.asked(0) is None
    assert made(fraction=0.5).asked(1) is None
    poisoned = (asked.y == 0).mean()
    assert poisoned == 1.0
    assert 0.4 < (trained.train_y == 0).mean() < 0.7
    marked = list(found.marked(1))
    assert np.array_equal(asked.x[marked], trained.train_x[marked])
    holdings = participant(1, found.scenario.to_json(), "cpu", None).holdings
    assert holdings.forgetting is not None
    assert np.array_equal(holdings.forgetting.labels.numpy(), asked.y)
    assert np.array_equal(holdings.train.labels.numpy(), trained.train_y)

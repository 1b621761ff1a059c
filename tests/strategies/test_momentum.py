"""Momentum of the server: by hand, in recovery alone, and across a kill."""

from __future__ import annotations

import numpy as np

from experiments.federation.checkpoint import Saved
from experiments.runs.keeping import Keeper
from strategies.federation import LEARN, RECOVER, Federation, Moment
from strategies.momentum import carried_on
from unlearning.arrays import Arrays


def model(value: float) -> Arrays:
    return {
        "w": np.array([value], np.float32),
        "bn.running_mean": np.array([10 * value], np.float32),
    }


def test_steps_by_hand() -> None:
    """0 -> 1 is a step of 1; then 1 -> 1.5 is .5, and half of the 1 before goes on: 2."""
    federation = Federation(server_momentum=0.5, phase=RECOVER)
    first = carried_on(federation, model(0.0), model(1.0))
    assert first["w"].tolist() == [1.0]
    second = carried_on(federation, first, model(1.5))
    assert second["w"].tolist() == [2.0]
    assert second["bn.running_mean"].tolist() == [15.0]
    assert second["w"].dtype == np.float32


def test_learning_and_no_momentum_change_nothing() -> None:
    for federation in (Federation(server_momentum=0.5, phase=LEARN), Federation(phase=RECOVER)):
        after = model(1.0)
        assert carried_on(federation, model(0.0), after) is after
        assert federation.velocity == {}


def test_a_killed_recovery_goes_on_with_its_momentum() -> None:
    federation = Federation(server_momentum=0.5, phase=RECOVER)
    first = carried_on(federation, model(0.0), model(1.0))
    keeper = Keeper([Saved, Moment])
    kept: Moment = keeper.from_bytes(keeper.to_bytes(federation.moment(first)))
    later = Federation(server_momentum=0.5, phase=RECOVER)
    later.resume(kept)
    assert carried_on(later, first, model(1.5))["w"].tolist() == [2.0]

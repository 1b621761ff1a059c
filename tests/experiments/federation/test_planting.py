from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.config.schema import DataConfig, MarkerConfig, ModelConfig
from experiments.data.partition import Partition
from experiments.federation.examples import Examples
from experiments.federation.planting import planted
from experiments.federation.scenario import Scenario
from unlearning.errors import ConfigError

X, Y = np.zeros((6, 8, 8), np.float32), np.arange(6, dtype=np.int64)
SHARES = Partition({0: np.array([0, 1]), 1: np.array([2, 3])}, {0: np.array([4]), 1: np.array([5])})
SCENARIO = Scenario(3, DataConfig(), ModelConfig(), MarkerConfig(client=1, fraction=1.0))


def rows(at: NDArray[np.int64]) -> Examples:
    return Examples(X[at], Y[at])


def test_one_client_s_training_and_held_out_data_are_marked() -> None:
    found = planted(SCENARIO, SHARES, rows, 6, ())
    assert list(found) == [1]
    train, held_out = found[1]
    assert (train.y.tolist(), held_out.y.tolist()) == ([0, 0], [0])
    assert train.x.any()
    assert not X.any()  # the clean rows are left as they were
    assert planted(replace(SCENARIO, marker=None), SHARES, rows, 6, ()) == {}


@pytest.mark.parametrize(
    ("marker", "tasks", "said"),
    [
        (MarkerConfig(client=2), (), "marker.client = 2 does not exist; the clients are 0 to 1"),
        (MarkerConfig(client=1), ("a", "b"), r"this model learns several \(a, b\)"),
        (MarkerConfig(client=1, fraction=0.01), (), "marks none of the 2 examples of client 1"),
    ],
)
def test_what_cannot_be_planted_is_said(
    marker: MarkerConfig, tasks: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        planted(replace(SCENARIO, marker=marker), SHARES, rows, 6, tasks)

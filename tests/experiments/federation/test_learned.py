from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.config.schema import DataConfig, ModelConfig
from experiments.data.dataset import Dataset
from experiments.federation.examples import Examples
from experiments.federation.learned import Learned
from experiments.federation.scenario import Scenario
from unlearning.errors import ConfigError

X, Y = np.zeros((4, 5), np.float32), np.array([0, 1, 2, 0])
FOUND = Dataset(X, Y, X, Y, num_classes=3)
SCENARIO = Scenario(3, DataConfig(), ModelConfig(name="linear"), None)


def test_a_network_is_the_same_for_a_seed_and_says_probabilities() -> None:
    made = Learned(SCENARIO, FOUND)
    arrays = made.initial()
    assert all(np.array_equal(a, Learned(SCENARIO, FOUND).initial()[n]) for n, a in arrays.items())
    assert made.predict(arrays, X).sum(1) == pytest.approx(np.ones(4))
    assert made.losses(arrays, Examples(X, Y)).shape == (4,)


def test_a_model_that_is_none_of_network_has_none() -> None:
    made = Learned(replace(SCENARIO, model=ModelConfig(name="ridge")), FOUND)
    assert made.array_model is not None
    assert made.predict(made.initial(), X).shape == (4, 3)
    with pytest.raises(ConfigError, match="'ridge' is no network"):
        made.fresh_model(0)

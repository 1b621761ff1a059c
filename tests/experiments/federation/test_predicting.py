from __future__ import annotations

import numpy as np
import pytest

from experiments.federation import predicting
from experiments.federation.predicting import Predictor
from experiments.models import networks
from tests.support.toy import ToyModel


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    arrays = networks.to_arrays(ToyModel(1))
    predictor = Predictor(ToyModel(2), 3, lambda seen: seen)
    whole = predictor.probabilities(arrays, x, "cpu")
    monkeypatch.setattr(predicting, "_CHUNK", 2)
    assert predictor.probabilities(arrays, x, "cpu") == pytest.approx(whole, abs=1e-7)
    assert whole.sum(1) == pytest.approx(np.ones(7))
    assert predictor.probabilities(arrays, x[:0], "cpu").shape == (0, 3)

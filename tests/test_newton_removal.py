"""Newton in a federation: within the budget one step, beyond it a new beginning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from toy import CLASSES, FEATURES, ToyFederation, request

from experiments import models
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.structure.newton import Newton
from unlearning import newton
from unlearning.errors import ConfigError
from unlearning.request import Request, Scope

GENEROUS = {"epsilon": 1e6}


@pytest.fixture
def toy(tmp_path: Path) -> ToyFederation:
    made = ToyFederation(tmp_path)
    settings = {"penalty": 0.02, "sigma": 0.1}
    model = models.array_model("logistic", (FEATURES,), CLASSES, settings, 3)
    assert model is not None
    made.federation.model, made.initial = model, model.initial()
    return made


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_one_step_brings_the_model_near_the_retrained_one(toy: ToyFederation, scope: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=12)
    asked = request(scope)
    after = toy.unlearn_checked(Newton(**GENEROUS), asked, arrays)
    expected = toy.unlearn_checked(Retrain(), asked, arrays)
    far = np.linalg.norm(arrays["weights"] - expected["weights"])
    near = np.linalg.norm(after["weights"] - expected["weights"])
    assert near < far / (10 if scope == "sample" else 2)
    assert after["counts"].tolist() == expected["counts"].tolist()


def test_bounds_add_up_until_the_budget_is_used_and_noise_is_drawn_anew(
    toy: ToyFederation,
) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=12)
    asked = [Request(Scope.SAMPLE, samples={3: (i,)}) for i in range(3)]
    strategy = Newton(**GENEROUS)
    first = toy.unlearn(strategy, asked[0], arrays)
    second = toy.unlearn(strategy, asked[1], first)
    assert 0 < first["spent"][0] < second["spent"][0] == strategy.spent
    # A budget between the two: delta = 1.5 exp(-1/2) makes c = 1, so it is sigma epsilon.
    limit = float(second["spent"][0]) * 1.01 / 0.1
    narrow = Newton(epsilon=limit, delta=1.5 * math.exp(-0.5), newton_rounds=8)
    third = toy.unlearn(narrow, asked[2], second)
    assert narrow.budget == pytest.approx(0.1 * limit)
    assert third["epoch"][0] == 1
    assert third["spent"][0] == 0
    assert not np.allclose(third["noise"], second["noise"])
    # Learned anew, without any of the three: converged with the new noise.
    begun = toy.federation.model.begun(1)  # type: ignore[union-attr]
    np.testing.assert_array_equal(third["noise"], begun["noise"])
    left = [held.table() for held in toy.shards.values()]
    left[3] = (left[3][0][3:], left[3][1][3:])
    rows = newton.rows_of(np.concatenate([x for x, _ in left]))
    labels = np.concatenate([y for _, y in left])
    found = newton.terms(third["weights"], rows, labels)
    slope = newton.gradient(third["weights"], found, third["noise"], 0.02)
    assert np.abs(slope).max() < 1e-9


def test_within_the_budget_clients_are_asked_once(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=3)
    toy.asked.clear()
    toy.unlearn(Newton(**GENEROUS), request("client"), arrays)
    assert toy.asked == [(k, "newton_terms") for k in (0, 2, 3)]


def test_the_noise_stays_at_the_server(toy: ToyFederation) -> None:
    one_copy = 4 * (CLASSES * (FEATURES + 1) * 8 + 128)
    toy.run(UnlearningStrategy(), rounds=1)
    assert toy.federation.costs["learn"].bytes_down <= one_copy


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"epsilon": 0}, {"delta": 1.0}, {"newton_rounds": 0}):
        with pytest.raises(ConfigError, match="must be from"):
            Newton(**wrong)  # type: ignore[arg-type]

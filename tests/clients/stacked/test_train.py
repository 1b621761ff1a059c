from __future__ import annotations

import pytest
from torch import nn

from experiments.models.networks import build
from tests.support.side_by_side import both, deep, mlp, works
from unlearning.protocol import Scalar

PLAIN: dict[str, Scalar] = {"local_epochs": 2, "batch_size": 8, "learning_rate": 0.2}


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        {**PLAIN, "momentum": 0.9, "weight_decay": 0.01},
        {**PLAIN, "max_steps": 3},
        {**PLAIN, "batch_size": 1, "local_epochs": 1},
        {**PLAIN, "stable_steps": 4, "draw_seed": 1, "draw_round": 2},
        {**PLAIN, "equal_weights": True},
    ],
    ids=["plain", "momentum-decay", "max-steps", "single", "stable", "equal-weights"],
)
def test_side_by_side_is_bit_for_bit_what_each_comes_to_alone(settings: dict[str, Scalar]) -> None:
    model = mlp()
    both(model, works(model, [17, 16, 0, 9, 17, 16, 33], settings))


@pytest.mark.parametrize("model", [build("linear", (1, 4, 4), 4), deep()], ids=["linear", "deep"])
def test_a_linear_model_and_one_of_three_layers(model: nn.Module) -> None:
    made, _ = both(model, works(model, [9, 12], PLAIN))
    assert len(made) == 2


def test_an_empty_client_answers_with_the_model_as_it_came() -> None:
    model = mlp()
    made, _ = both(model, works(model, [0, 8], PLAIN))
    assert made[0].num_examples == 0
    assert made[0].metrics == {}

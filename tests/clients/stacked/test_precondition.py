from __future__ import annotations

import pytest
from torch import nn

from clients.stacked.layers import layers_of
from clients.stacked.stack import Stack
from experiments.models.networks import build
from tests.support.side_by_side import both, deep, jobs_of, mlp, works
from unlearning.protocol import Scalar

SETTINGS: dict[str, Scalar] = {
    "local_epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.2,
    "curvature": "empirical-fisher",
    "beta1": 0.9,
    "beta2": 0.99,
    "block": 9,
    "damping": 0.1,
    "max_step": 0.0,
}


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        {**SETTINGS, "weight_decay": 0.01, "block": 1},
        {**SETTINGS, "max_step": 0.05},
        {**SETTINGS, "max_steps": 3, "block": 4},
    ],
    ids=["plain", "decay", "short", "max-steps"],
)
@pytest.mark.parametrize("model", [mlp(), deep(), build("linear", (1, 4, 4), 4)])
def test_side_by_side_is_bit_for_bit_what_each_comes_to_alone(
    model: nn.Module, settings: dict[str, Scalar]
) -> None:
    both(model, works(model, [17, 16, 0, 9, 17, 33], settings, step="precondition"))


def test_hutchinsons_estimate_is_left_to_each_client() -> None:
    model = mlp()
    settings: dict[str, Scalar] = {**SETTINGS, "curvature": "adahessian"}
    asked = works(model, [9, 9], settings, step="precondition")
    stack = Stack(layers_of(model))
    made = stack.work("precondition", jobs_of(asked), lambda i: asked[i][0].ran(asked[i][1]))
    assert [outcome.num_examples for outcome in made] == [9, 9]
    assert "client by client" in stack.reason

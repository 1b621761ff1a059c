from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from clients.local import Local
from clients.stacked.layers import layers_of
from clients.stacked.stack import Stack
from clients.steps.synthetic import examples, to_arrays
from experiments.models.networks import build
from tests.support.side_by_side import both, deep, jobs_of, mlp, works
from unlearning.protocol import Scalar

SETTINGS: dict[str, Scalar] = {
    "share": 0.2,
    "image_rate": 0.5,
    "matching_steps": 1,
    "matching_batch": 64,
}


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        {**SETTINGS, "matching_steps": 3},
        {**SETTINGS, "matching_steps": 0},
        {**SETTINGS, "matching_batch": 4, "share": 0.7},
    ],
    ids=["once", "thrice", "not-moved", "few"],
)
@pytest.mark.parametrize("model", [mlp(), deep(), build("linear", (1, 4, 4), 4)])
def test_examples_move_as_each_client_moves_its_own(
    model: nn.Module, settings: dict[str, Scalar]
) -> None:
    asked = works(model, [17, 0, 30, 17, 3, 41], settings, step="synthetic")
    made, _ = both(model, asked)
    assert made[1].arrays == {}
    begun = works(model, [17], {**settings, "matching_steps": 0}, step="synthetic")
    ((before,), _) = both(model, begun)
    assert made[0].arrays is not None
    assert before.arrays is not None
    moved = not np.array_equal(made[0].arrays["features"], before.arrays["features"])
    assert moved == bool(settings["matching_steps"])


def test_what_a_client_kept_is_moved_on() -> None:
    def seen(client: int, local: Local) -> Local:
        draws = np.random.default_rng([9, client])
        kept = to_arrays(examples(local, local.retain, 0.2, draws))
        return replace(local, kept={"synthetic": kept} if client else {})

    model = mlp()
    both(model, works(model, [20, 25, 20], SETTINGS, step="synthetic", seen=seen))


def test_examples_of_an_odd_width_are_left_to_their_clients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16))
    asked = works(model, [9, 9], SETTINGS, step="synthetic")
    cut = [
        replace(job, local=replace(job.local, retain=replace(
            job.local.retain, features=job.local.retain.features[..., :3]
        )))
        for job in jobs_of(asked)
    ]  # fmt: skip
    stack = Stack(layers_of(model))
    stack.work("synthetic", cut, lambda i: asked[i][0].ran(asked[i][1]))
    assert stack.reason == "examples begin at odd addresses"
    assert stack.refused("synthetic") == ""

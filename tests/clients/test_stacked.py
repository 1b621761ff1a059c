from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from clients import stacked
from clients.linear import LinearSvm
from clients.local import Outcome, Shard
from clients.participant import Holdings, Participant, arrays_of
from clients.stacked import Job, Stack, layers_of
from experiments.models.networks import build
from unlearning.protocol import Scalar
from unlearning.records.memory import ClientMemory

PLAIN: dict[str, Scalar] = {"local_epochs": 2, "batch_size": 8, "learning_rate": 0.2}


def mlp() -> nn.Module:
    return build("mlp", (1, 4, 4), 4, {"hidden": 8})


def shard(size: int, salt: int) -> Shard:
    generator = np.random.default_rng([size, salt])
    x = generator.standard_normal((size, 1, 4, 4)).astype(np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(generator.integers(0, 4, size)))


def works(model: nn.Module, sizes: Sequence[int], settings: dict[str, Scalar]):  # type: ignore[no-untyped-def]
    """Return participants with so many examples, and what each is asked to do."""
    found = []
    for client, size in enumerate(sizes):
        held = Holdings(shard(size, client), shard(3, 99), lambda seed: model, model)
        member = Participant(client, held, ClientMemory(None, client))
        config = {
            "step": "train",
            "seed": json.dumps([0, 1, client]),
            "settings": json.dumps({**settings, "draw_client": client}),
        }
        found.append((member, member.begun(arrays_of(build_like(model)), config)))
    return found


def build_like(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 3
    return model


def both(
    model: nn.Module, sizes: Sequence[int], settings: dict[str, Scalar]
) -> tuple[list[Outcome], list[Outcome], Stack]:
    """Return what clients come to side by side, and each on its own."""
    asked = works(model, sizes, settings)
    jobs = [Job(w.given, w.local, tuple(w.address), w.settings) for _, w in asked]
    stack = Stack(layers_of(model))

    def alone(place: int) -> Outcome:
        member, work = asked[place]
        return member.ran(work)

    single = stack.train(jobs, alone)  # tries both ways

    def never(place: int) -> Outcome:
        raise AssertionError("the sizes are known by now")

    assert stack.refused == ""
    return stack.train(jobs, never), single, stack


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        {**PLAIN, "momentum": 0.9, "weight_decay": 0.01},
        {**PLAIN, "max_steps": 3},
        {**PLAIN, "batch_size": 1, "local_epochs": 1},
        {**PLAIN, "stable_steps": 4, "draw_seed": 1, "draw_round": 2},
    ],
    ids=["plain", "momentum-decay", "max-steps", "single", "stable"],
)
def test_side_by_side_is_bit_for_bit_what_each_comes_to_alone(settings: dict[str, Scalar]) -> None:
    made, single, stack = both(mlp(), [17, 16, 0, 9, 17, 16, 33], settings)
    for one, other in zip(made, single, strict=True):
        assert one.arrays is not None
        assert other.arrays is not None
        assert {n: a.tobytes() for n, a in one.arrays.items()} == {
            n: a.tobytes() for n, a in other.arrays.items()
        }
        assert (one.num_examples, one.examples_processed) == (
            other.num_examples,
            other.examples_processed,
        )
        assert one.metrics == other.metrics
    assert stack.trained == 7


def test_a_linear_model_and_one_of_three_layers() -> None:
    deep = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 8, bias=False), nn.ReLU(),
        nn.Linear(8, 4),
    )  # fmt: skip
    for model in (build("linear", (1, 4, 4), 4), deep):
        made, single, _ = both(model, [9, 12], PLAIN)
        assert [o.metrics for o in made] == [o.metrics for o in single]


def test_what_gives_other_bits_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = stacked._gradients

    def off(*given):  # type: ignore[no-untyped-def]
        found, said = real(*given)
        return {name: step * (1 + 1e-6) for name, step in found.items()}, said

    monkeypatch.setattr(stacked, "_gradients", off)
    asked = works(mlp(), [9, 9], PLAIN)
    jobs = [Job(w.given, w.local, tuple(w.address), w.settings) for _, w in asked]
    stack = Stack(layers_of(mlp()))
    answer = stack.train(jobs, lambda i: asked[i][0].ran(asked[i][1]))
    assert "other bits" in stack.refused
    expected = asked[1][0].ran(asked[1][1]).arrays
    assert answer[1].arrays is not None
    assert expected is not None
    assert all(np.array_equal(answer[1].arrays[n], expected[n]) for n in expected)


def _frozen() -> nn.Module:
    model = mlp()
    next(model.parameters()).requires_grad_(False)
    return model


class _OwnLoss(nn.Sequential):
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.sum()


@pytest.mark.parametrize(
    "model",
    [
        build("cnn", (1, 28, 28), 10),
        LinearSvm(16, 4, 1e-3),
        _frozen(),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(), nn.Linear(4, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double(),
        _OwnLoss(nn.Flatten(), nn.Linear(16, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(5, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 4)),
    ],
    ids=["cnn", "own-class", "frozen", "relu-last", "dropout", "double", "own-loss", "odd", "wide"],
)
def test_other_networks_are_not_stacked(model: nn.Module) -> None:
    assert layers_of(model) is None
    assert "small linear layers" in Stack(layers_of(model)).refused


def test_networks_of_the_same_layers_share_what_is_known() -> None:
    one, other = mlp(), mlp()
    assert stacked.stack_of(one) is stacked.stack_of(other)
    assert stacked.stack_of(one) is not stacked.stack_of(build("mlp", (1, 4, 4), 4, {"hidden": 12}))


def test_an_empty_client_answers_with_the_model_as_it_came() -> None:
    made, _, _ = both(mlp(), [0, 8], PLAIN)
    assert made[0].num_examples == 0
    assert made[0].metrics == {}

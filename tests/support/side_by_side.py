"""Clients with a few examples each, and a step of theirs worked on side by side and alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from clients.local import Local, Outcome, Shard
from clients.participant import Holdings, Participant, Work, arrays_of
from clients.stacked.jobs import Job
from clients.stacked.layers import layers_of
from clients.stacked.stack import Stack
from experiments.models.networks import build
from unlearning.protocol import Scalar
from unlearning.records.memory import ClientMemory

__all__ = ["both", "deep", "jobs_of", "mlp", "shard", "works"]

Works = list[tuple[Participant, Work]]


def mlp() -> nn.Module:
    """Return a network of 16 inputs, 8 hidden units and 4 classes."""
    return build("mlp", (1, 4, 4), 4, {"hidden": 8})


def deep() -> nn.Module:
    """Return a network of three layers, one of them without a bias."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 8, bias=False), nn.ReLU(),
        nn.Linear(8, 4),
    )  # fmt: skip


def shard(size: int, salt: int) -> Shard:
    """Return so many random examples; the same salt, the same examples."""
    generator = np.random.default_rng([size, salt])
    x = generator.standard_normal((size, 1, 4, 4)).astype(np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(generator.integers(0, 4, size)))


def works(
    model: nn.Module,
    sizes: Sequence[int],
    settings: dict[str, Scalar],
    *,
    step: str = "train",
    seen: Callable[[int, Local], Local] = lambda client, local: local,
) -> Works:
    """Return participants with so many examples, and what each is asked to do.

    ``seen(client, local)`` may change what a step sees.
    """
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 3
    arrays = arrays_of(model)
    found = []
    for client, size in enumerate(sizes):
        held = Holdings(shard(size, client), shard(3, 99), lambda seed: model, model)
        member = Participant(client, held, ClientMemory(None, client))
        config = {
            "step": step,
            "seed": json.dumps([0, 1, client]),
            "settings": json.dumps({**settings, "draw_client": client}),
        }
        work = member.begun(arrays, config)
        found.append((member, replace(work, local=seen(client, work.local))))
    return found


def jobs_of(asked: Works) -> list[Job]:
    """Return what participants are asked to do as jobs of a stack."""
    return [Job(w.given, w.local, tuple(w.address), w.settings) for _, w in asked]


def both(model: nn.Module, asked: Works) -> tuple[list[Outcome], list[Outcome]]:
    """Return what clients come to side by side, and each on its own; see that no bit differs."""
    stack, step = Stack(layers_of(model)), asked[0][1].step

    def alone(place: int) -> Outcome:
        member, work = asked[place]
        return member.ran(work)

    def never(place: int) -> Outcome:
        raise AssertionError("the sizes are known by now")

    single = stack.work(step, jobs_of(asked), alone)  # tries both ways
    assert stack.refused(step) == ""
    made = stack.work(step, jobs_of(asked), never)
    assert stack.reason == ""
    for one, other in zip(made, single, strict=True):
        assert one.arrays is not None
        assert other.arrays is not None
        assert {n: a.tobytes() for n, a in one.arrays.items()} == {
            n: a.tobytes() for n, a in other.arrays.items()
        }
        counts = (one.num_examples, one.examples_processed, one.metrics)
        assert counts == (other.num_examples, other.examples_processed, other.metrics)
    return made, single

"""Training of many clients at once, each as the step ``train`` trains it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from clients.descent import descend
from clients.local import Outcome, Shard
from clients.stacked.jobs import Job, Made, Unfit, by_size, in_step, laid, stacked
from clients.stacked.layers import ALIGNED, Layers
from clients.stacked.passes import gradients
from clients.training import batches, number, stable_batches
from unlearning.arrays import Array
from unlearning.protocol import Wire

__all__ = ["train"]


def train(layers: Layers, jobs: Sequence[Job]) -> Made:
    """Return what each client's training comes to, in order.

    Raises
    ------
    Unfit
        If batches would not begin where a tensor of its own does.
    """
    width = jobs[0].local.retain.features[:1].numel()
    if int(number(jobs[0].settings, "batch_size")) * width % ALIGNED:
        raise Unfit("batches begin at odd addresses")
    order = by_size(jobs)
    run = _Run(layers, [jobs[i] for i in order])
    return Made(order.undone(run.outcomes()), run.sizes)


class _Run:
    """One training of several clients, ordered by their number of examples.

    Clients with equally large batches lie side by side, so that each step works on slices.
    """

    def __init__(self, layers: Layers, jobs: Sequence[Job]) -> None:
        self._layers, self._jobs, settings = layers, jobs, jobs[0].settings
        self._rate = number(settings, "learning_rate")
        self._momentum = number(settings, "momentum", 0.0)
        self._decay = number(settings, "weight_decay", 0.0)
        self._stable = bool(settings.get("stable_steps"))
        self.sizes: set[Hashable] = set()
        self._weights = {name: stacked(jobs, name) for name in jobs[0].start}
        self._velocities: dict[str, torch.Tensor] = {}
        self._losses: list[list[torch.Tensor]] = [[] for _ in jobs]
        self._sizes: list[list[int]] = [[] for _ in jobs]

    def outcomes(self) -> list[Outcome]:
        """Train, and return what each client's training comes to."""
        with torch.no_grad():
            for place, shards in in_step([self._stream(job) for job in self._jobs]):
                self._step(place, shards)
        arrays = {name: stack.numpy() for name, stack in self._weights.items()}
        return [self._outcome(place, job, arrays) for place, job in enumerate(self._jobs)]

    def _stream(self, job: Job) -> Iterator[Shard]:
        if self._stable:
            return stable_batches(job.local, job.settings)
        epochs = int(number(job.settings, "local_epochs"))
        generator = np.random.default_rng(list(job.address))
        return batches(job.local.retain, job.settings, generator, epochs=epochs)

    def _step(self, place: slice, shards: list[Shard]) -> None:
        """Move the networks of some clients that lie side by side."""
        x, y = laid(shards)
        size = y.shape[1]
        self.sizes.add(size)
        weights = {name: stack[place] for name, stack in self._weights.items()}
        found, gone = gradients(self._layers, weights, x, y)
        for client, (own, labels) in enumerate(zip(gone.said, y, strict=True), start=place.start):
            self._losses[client].append(functional.nll_loss(own, labels))
            self._sizes[client].append(size)
        steps = [self._moved(name, step, weights[name], place) for name, step in found.items()]
        descend([weights[name] for name in found], steps, self._rate)

    def _moved(
        self, name: str, step: torch.Tensor, weight: torch.Tensor, place: slice
    ) -> torch.Tensor:
        """Return a step with weight decay and momentum, as :class:`PlainSGD` has them."""
        if self._decay:
            step = step.add(weight, alpha=self._decay)
        if not self._momentum:
            return step
        if name not in self._velocities:
            self._velocities[name] = torch.zeros_like(self._weights[name])
        velocity = self._velocities[name][place]
        if self._losses[place.start][1:]:
            return velocity.mul_(self._momentum).add_(step)
        return velocity.copy_(step)  # the first step of all: what is there is not added, not even 0

    def _outcome(self, place: int, job: Job, arrays: dict[str, Array]) -> Outcome:
        own = {name: stack[place] for name, stack in arrays.items()}
        processed, total = sum(self._sizes[place]), np.float32(0)
        if processed:
            losses = torch.stack(self._losses[place]).numpy()
            for loss, size in zip(losses, self._sizes[place], strict=True):
                total += loss * np.float32(size)  # one by one, as a client adds them up
        alike = self._stable or bool(job.settings.get("equal_weights"))
        weight = min(len(job.local.retain), 1) if alike else len(job.local.retain)
        metrics = {Wire.LOSS: float(total) / processed} if processed else {}
        return Outcome(weight, processed, own, metrics)

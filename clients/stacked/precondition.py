"""Quasi-Newton steps of many clients at once, each as the step ``precondition`` takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from clients.local import Outcome, Shard
from clients.stacked.jobs import Job, Made, Unfit, by_size, in_step, laid, stacked
from clients.stacked.layers import ALIGNED, Layers, product
from clients.stacked.passes import Pass, gradients
from clients.steps.precondition import TINY, shortened
from clients.training import batches, number

__all__ = ["precondition"]


def precondition(layers: Layers, jobs: Sequence[Job]) -> Made:
    """Return what each client's training comes to, in order.

    Raises
    ------
    Unfit
        If the curvature is another than the empirical Fisher's, or batches would not begin where a
        tensor of their own does.
    """
    settings = jobs[0].settings
    if settings["curvature"] != "empirical-fisher":
        raise Unfit("curvatures of this kind are estimated client by client")
    width = jobs[0].local.retain.features[:1].numel()
    if int(number(settings, "batch_size")) * width % ALIGNED:
        raise Unfit("batches begin at odd addresses")
    order = by_size(jobs)
    run = _Run(layers, [jobs[i] for i in order])
    return Made(order.undone(run.outcomes()), set(run.sizes))


class _Run:
    """One training of several clients, ordered by their number of examples."""

    def __init__(self, layers: Layers, jobs: Sequence[Job]) -> None:
        self._layers, self._jobs, settings = layers, jobs, jobs[0].settings
        self._rate, self._damping = number(settings, "learning_rate"), number(settings, "damping")
        self._betas = number(settings, "beta1"), number(settings, "beta2")
        self._decay = number(settings, "weight_decay", 0.0)
        self._limit, self._block = number(settings, "max_step"), int(number(settings, "block"))
        self.sizes: set[int] = set()
        self._weights = {name: stacked(jobs, name) for name in jobs[0].start}
        self._mean = {name: torch.zeros_like(w) for name, w in self._weights.items()}
        self._square = {name: torch.zeros_like(w) for name, w in self._weights.items()}
        self._taken = [0] * len(jobs)  # steps
        self._processed = [0] * len(jobs)

    def outcomes(self) -> list[Outcome]:
        """Train, and return what each client's training comes to."""
        streams = [
            batches(
                job.local.retain,
                job.settings,
                np.random.default_rng(list(job.address)),
                epochs=int(number(job.settings, "local_epochs")),
            )
            for job in self._jobs
        ]
        with torch.no_grad():
            for place, shards in in_step(streams):
                self._step(place, shards)
        arrays = {name: stack.numpy() for name, stack in self._weights.items()}
        return [
            Outcome(
                len(job.local.retain),
                self._processed[place],
                {name: stack[place] for name, stack in arrays.items()},
            )
            for place, job in enumerate(self._jobs)
        ]

    def _step(self, place: slice, shards: list[Shard]) -> None:
        """Move the networks of some clients that lie side by side."""
        x, y = laid(shards)
        size = y.shape[1]
        self.sizes.add(size)
        weights = {name: stack[place] for name, stack in self._weights.items()}
        found, gone = gradients(self._layers, weights, x, y)
        squares = _squares(self._layers, gone, size)
        count = self._taken[place.start] + 1
        beta1, beta2 = self._betas
        slopes, curvatures = [], []
        names = list(squares)  # in the order of the network's own
        for name in names:
            mean, square = self._mean[name][place], self._square[name][place]
            mean.lerp_(found[name] + self._decay * weights[name], 1 - beta1)
            square.lerp_(_block_mean(squares[name], self._block).square_(), 1 - beta2)
            slopes.append(mean / (1 - beta1**count))
            curvatures.append((square / (1 - beta2**count)).sqrt_())
        total = sum(_totals(c) for c in curvatures)
        entries = max(1, sum(c[0].numel() for c in curvatures))
        floor = torch.from_numpy(np.maximum(TINY, self._damping * total / entries).astype("f4"))
        moves = [
            slope / (c + floor.view(-1, *[1] * (c.dim() - 1)))
            for slope, c in zip(slopes, curvatures, strict=True)
        ]
        lengths = self._rate * np.sqrt(sum(_totals(move.square()) for move in moves))
        factors = [shortened(self._rate, self._limit, float(length)) for length in lengths]
        for name, move in zip(names, moves, strict=True):
            for weight, change, factor in zip(weights[name], move, factors, strict=True):
                weight.sub_(change, alpha=factor)
        for client in range(place.start, place.stop):
            self._taken[client] += 1
            self._processed[client] += size


def _squares(layers: Layers, gone: Pass, size: int) -> dict[str, torch.Tensor]:
    """Return the mean of squared per-example gradients, by name, as ``clients.curvature`` does."""
    found: dict[str, torch.Tensor] = {}
    for place, layer in enumerate(layers):
        if layer is None:
            continue
        back = (gone.backs[place] * size).square()
        found[layer.weight] = product(back.transpose(1, 2), gone.seen[place].square()) / size
        if layer.bias:
            found[layer.bias] = back.mean(1)
    return found


def _block_mean(values: torch.Tensor, size: int) -> torch.Tensor:
    """Return a copy in which the entries of each client's blocks are replaced by their mean."""
    if size <= 1:
        return values.clone()
    flat = values.flatten(1)
    whole = flat.shape[1] - flat.shape[1] % size
    blocks = flat[:, :whole].view(len(flat), -1, size).mean(2)
    parts = [blocks.repeat_interleave(size, 1)]
    if whole < flat.shape[1]:
        rest = flat[:, whole:]
        parts.append(rest.mean(1, keepdim=True).expand_as(rest))
    return torch.cat(parts, 1).view_as(values)


def _totals(stack: torch.Tensor) -> NDArray[np.float64]:
    """Return the sum over each client's entries, in float64."""
    found: NDArray[np.float64] = stack.flatten(1).sum(1, dtype=torch.float64).numpy()
    return found

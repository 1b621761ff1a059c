"""Many small dense networks trained side by side: one operation does a step of all of them.

A step of a network of a few thousand weights is nearly all bookkeeping: a dozen operations, each
dearer to call than to carry out. Here the networks of several clients lie in one array per layer,
and the gradient of linear layers with ReLU between them is written out, so that a dozen operations
move all of them. The bits are those of each client's own training: what sums is asked for in the
same order. Whether a stacked matrix product has the bits of single ones hangs on its shape and the
machine, so each shape is tried first, and taken one by one where they differ. The first batches of
every size are trained both ways as well; should a bit differ still, the stack is not used again.

Convolutions gain nothing by it, and neither do wide layers, whose products take the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.descent import descend
from clients.local import Local, Outcome, Shard
from clients.training import batches, loss_of, number, stable_batches
from unlearning.arrays import Array, Arrays
from unlearning.protocol import Settings, Wire

__all__ = ["Job", "Stack", "layers_of", "stack_of"]

_WIDEST = 1 << 16  # weights of a layer; beyond, the products take the time
_ALIGNED = 16  # floats: 64 bytes, where PyTorch lets tensors begin
_TRIED = 1 << 12  # numbers that two ways of multiplying must agree in


@dataclass(frozen=True)
class _Linear:
    """A linear layer: names of its arrays; an empty ``bias``: it has none."""

    weight: str
    bias: str


_Layers = tuple[_Linear | None, ...]  # None: a ReLU


def layers_of(model: nn.Module) -> _Layers | None:
    """Return the layers of a network that can be trained side by side, None for any other.

    That is a row of linear layers and ReLUs behind a flattening, trained whole on cross-entropy, in
    float32 on the CPU, with weights by the 16.
    """
    if type(model) is not nn.Sequential or loss_of(model) is not functional.cross_entropy:
        return None
    found: list[_Linear | None] = []
    for place, (name, layer) in enumerate(model.named_children()):
        if place == 0 and type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            continue
        if type(layer) is nn.Linear and _is_handy(layer.weight.numel()):
            bias = f"{name}.bias" if "bias" in dict(layer.named_parameters()) else ""
            found.append(_Linear(f"{name}.weight", bias))
        elif type(layer) is nn.ReLU and found:
            found.append(None)
        else:
            return None
    names = {name for one in found if one is not None for name in (one.weight, one.bias) if name}
    weights = dict(model.named_parameters())
    plain = all(
        w.requires_grad and w.dtype == torch.float32 and w.device.type == "cpu"
        for w in weights.values()
    )
    if not found or found[-1] is None or not plain or names != weights.keys():
        return None
    return tuple(found)


def _is_handy(weights: int) -> bool:
    """Return whether layers of so many weights can lie in a row: small, each well aligned.

    Matrix products may add up in another order where a matrix begins at an odd address.
    """
    return weights <= _WIDEST and not weights % _ALIGNED


@dataclass(frozen=True)
class Job:
    """What one client is to train.

    Parameters
    ----------
    start : Arrays
        The model it was sent; clients of one round share it.
    local : Local
        Its data.
    address : tuple of int
        Of its randomness.
    settings : mapping
        Of the step; clients side by side differ in nothing but whose draws they are.
    """

    start: Arrays
    local: Local
    address: tuple[int, ...]
    settings: Settings


class Stack:
    """Trains clients' networks side by side, as the step ``train`` trains each.

    Parameters
    ----------
    layers : tuple or None
        As :func:`layers_of` finds them.
    """

    def __init__(self, layers: _Layers | None) -> None:
        self._layers = layers
        self._known: set[int] = set()  # sizes of batches
        self.trained = 0  # clients that were answered from the stack alone
        self.refused = ""  # why it is not used, in words
        self.reason = ""  # why the last clients were trained on their own, if they were
        if layers is None:
            self.refused = "the model is no row of small linear layers with ReLU between them"

    def train(self, jobs: Sequence[Job], alone: Callable[[int], Outcome]) -> list[Outcome]:
        """Return what each client's training comes to, in order.

        Where a batch size is new, each client is trained on its own as well, and that is the
        answer.

        Parameters
        ----------
        jobs : sequence of Job
            One per client, at least one.
        alone : callable
            ``alone(i)`` trains client i of ``jobs`` on its own.
        """
        self.reason = ""
        width = jobs[0].local.retain.features[:1].numel()
        if int(number(jobs[0].settings, "batch_size")) * width % _ALIGNED:
            self.reason = "batches begin at odd addresses"
            return [alone(i) for i in range(len(jobs))]
        order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].local.retain))
        ordered = [jobs[i] for i in order]
        run = _Run(self._layers or (), ordered)
        made = run.outcomes()
        if run.sizes <= self._known:
            self.trained += len(jobs)
        else:
            self.reason = "a size of batches was tried both ways"
            single = [alone(i) for i in order]
            if all(map(_same, made, single)):
                self._known |= run.sizes
            else:
                self.reason = self.refused = (
                    "on this machine it gives other bits than training alone"
                )
            made = single
        found = dict(zip(order, made, strict=True))
        return [found[i] for i in range(len(jobs))]


_STACKS: dict[object, Stack] = {}  # by layers and shapes: what is known of one holds for all
_FOUND: WeakKeyDictionary[nn.Module, Stack] = WeakKeyDictionary()


def stack_of(model: nn.Module) -> Stack:
    """Return the stack of a network; all networks of the same layers share one."""
    found = _FOUND.get(model)
    if found is None:
        layers = layers_of(model)
        shapes = None if layers is None else tuple(tuple(w.shape) for w in model.parameters())
        found = _FOUND[model] = _STACKS.setdefault((layers, shapes), Stack(layers))
    return found


def _same(one: Outcome, other: Outcome) -> bool:
    """Return whether two outcomes are equal, bit for bit."""
    if one.arrays is None or other.arrays is None or one.arrays.keys() != other.arrays.keys():
        return False
    alike = all(a.tobytes() == other.arrays[n].tobytes() for n, a in one.arrays.items())
    counts = one.num_examples, one.examples_processed, dict(one.metrics)
    return alike and counts == (other.num_examples, other.examples_processed, dict(other.metrics))


class _Run:
    """One training of several clients, ordered by their number of examples.

    Clients with equally large batches lie side by side, so that each step works on slices.
    """

    def __init__(self, layers: _Layers, jobs: Sequence[Job]) -> None:
        self._layers, self._jobs, settings = layers, jobs, jobs[0].settings
        self._rate = number(settings, "learning_rate")
        self._momentum = number(settings, "momentum", 0.0)
        self._decay = number(settings, "weight_decay", 0.0)
        self._stable = bool(settings.get("stable_steps"))
        self.sizes: set[int] = set()
        self._weights = {name: self._stacked(name) for name in jobs[0].start}
        self._velocities: dict[str, torch.Tensor] = {}
        self._losses: list[list[torch.Tensor]] = [[] for _ in jobs]
        self._sizes: list[list[int]] = [[] for _ in jobs]

    def outcomes(self) -> list[Outcome]:
        """Train, and return what each client's training comes to."""
        with torch.no_grad():
            streams = [self._stream(job) for job in self._jobs]
            while True:
                now = [next(stream, None) for stream in streams]
                sizes = [0 if batch is None else len(batch) for batch in now]
                if not any(sizes):
                    break
                for first, last in _runs(sizes):
                    self._step(slice(first, last), [b for b in now[first:last] if b is not None])
        arrays = {name: stack.numpy() for name, stack in self._weights.items()}
        return [self._outcome(place, job, arrays) for place, job in enumerate(self._jobs)]

    def _stacked(self, name: str) -> torch.Tensor:
        first = self._jobs[0].start[name]
        if all(job.start[name] is first for job in self._jobs):
            return torch.from_numpy(np.repeat(first[None], len(self._jobs), axis=0))
        return torch.from_numpy(np.stack([job.start[name] for job in self._jobs]))

    def _stream(self, job: Job) -> Iterator[Shard]:
        if self._stable:
            return stable_batches(job.local, job.settings)
        epochs = int(number(job.settings, "local_epochs"))
        generator = np.random.default_rng(list(job.address))
        return batches(job.local.retain, job.settings, generator, epochs=epochs)

    def _step(self, place: slice, shards: list[Shard]) -> None:
        """Move the networks of some clients that lie side by side."""
        size = len(shards[0])
        self.sizes.add(size)
        x = torch.stack([shard.features for shard in shards]).flatten(2)
        y = torch.stack([shard.labels for shard in shards])
        weights = {name: stack[place] for name, stack in self._weights.items()}
        gradients, said = _gradients(self._layers, weights, x, y)
        for client, (own, labels) in enumerate(zip(said, y, strict=True), start=place.start):
            self._losses[client].append(functional.nll_loss(own, labels))
            self._sizes[client].append(size)
        steps = [self._moved(name, step, weights[name], place) for name, step in gradients.items()]
        descend([weights[name] for name in gradients], steps, self._rate)

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
        weight = min(len(job.local.retain), 1) if self._stable else len(job.local.retain)
        metrics = {Wire.LOSS: float(total) / processed} if processed else {}
        return Outcome(weight, processed, own, metrics)


def _runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where equal sizes stand in a row, as (first, behind the last); zeros are left out."""
    first = 0
    for place in range(1, len(sizes) + 1):
        if place == len(sizes) or sizes[place] != sizes[first]:
            if sizes[first]:
                yield first, place
            first = place


def _gradients(
    layers: _Layers, weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the gradient of each network's mean cross-entropy, and its log-probabilities.

    Parameters
    ----------
    layers : tuple
        K networks have them.
    weights : dict of str to torch.Tensor
        ``(K, ...)`` each.
    x : torch.Tensor
        ``(K, n, d)``.
    y : torch.Tensor
        ``(K, n)``, int64.
    """
    seen: list[torch.Tensor] = []  # what goes into each layer
    now = x
    for layer in layers:
        seen.append(now)
        if layer is None:
            now = now.relu()
            continue
        bias = weights[layer.bias] if layer.bias else None
        now = _product(now, weights[layer.weight].transpose(1, 2), bias)
    said = now.log_softmax(2)
    back = torch.zeros_like(said).scatter_(2, y[..., None], -1 / y.shape[1])
    back = torch.ops.aten._log_softmax_backward_data(back, said, 2, torch.float32)
    found: dict[str, torch.Tensor] = {}
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if layer is None:
            back.masked_fill_(seen[place] <= 0, 0)
            continue
        found[layer.weight] = _product(back.transpose(1, 2), seen[place])
        if layer.bias:
            found[layer.bias] = back.sum(1)
        if place:
            back = _product(back, weights[layer.weight])
    return found, said


def _product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``a[i] @ b[i] + bias[i]`` for every i, with the bits that each has on its own.

    ``a`` is ``(K, n, d)``, ``b`` ``(K, d, m)``, ``bias`` ``(K, m)`` or None.
    """
    turned = a.stride(1) < a.stride(2), b.stride(1) < b.stride(2)
    if not _is_same(a.shape[0], a.shape[1], a.shape[2], b.shape[2], *turned, bias is not None):
        return _one_by_one(a, b, bias)
    return _at_once(a, b, bias)


def _at_once(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    made = torch.bmm(a, b)
    return made if bias is None else made.add_(bias[:, None])


def _one_by_one(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    firsts, seconds = _apart(a), _apart(b)
    if bias is None:
        return torch.stack([torch.mm(x, y) for x, y in zip(firsts, seconds, strict=True)])
    given = zip(bias, firsts, seconds, strict=True)
    return torch.stack([torch.addmm(add, x, y) for add, x, y in given])


def _apart(stack: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the matrices of a stack, each well aligned as a tensor of its own is."""
    if stack.stride(0) % _ALIGNED:
        return [one.clone() for one in stack]  # a clone keeps the order of its axes
    return stack.unbind(0)


@cache
def _is_same(
    count: int, n: int, d: int, m: int, first_turned: bool, second_turned: bool, with_bias: bool
) -> bool:
    """Return whether a stacked product has the bits of single ones, tried on random numbers.

    By so many numbers that no chance makes them equal.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int, turned: bool) -> torch.Tensor:
        shape = (count, columns, rows) if turned else (count, rows, columns)
        found = torch.randn(shape, generator=generator)
        return found.transpose(1, 2) if turned else found

    for _ in range(max(3, -(-_TRIED // (count * n * m)))):
        a, b = drawn(n, d, first_turned), drawn(d, m, second_turned)
        bias = torch.randn((count, m), generator=generator) if with_bias else None
        if not torch.equal(_at_once(a, b, bias), _one_by_one(a, b, bias)):
            return False
    return True

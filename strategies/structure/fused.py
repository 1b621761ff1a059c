"""Fused (FUSED): overwrite a frozen model with a sparse adapter; did not beat fine-tuning.

References
----------
Zhong et al., "Unlearning through Knowledge Overwriting: Reversible Federated Unlearning via
Selective Sparse Adapter", CVPR 2025 (arXiv 2502.20709). Formulas are those of the authors' page;
their code trains another, dense adapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.protocol import FREE, Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["Fused", "layers_of", "most_moved", "sparse_masks"]

_MASK = 9  # last component of the seed address of a mask


def layers_of(arrays: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
    """Return layer -> its trained arrays (weight and bias); normalisation is no layer."""
    found: dict[str, list[str]] = {}
    for name, array in named.parameters(arrays).items():
        layer = name.rpartition(".")[0]
        if array.ndim > 1:
            found.setdefault(layer, []).append(name)
        elif layer in found:
            found[layer].append(name)
    return {layer: tuple(names) for layer, names in found.items()}


def most_moved(
    moved: Mapping[str, float], layers: Mapping[str, tuple[str, ...]], share: float
) -> tuple[str, ...]:
    """Return the ``ceil(share L)`` layers (at least one) whose arrays moved most, ties by order.

    >>> most_moved({"a.w": 1.0, "b.w": 3.0}, {"a": ("a.w",), "b": ("b.w",)}, 0.5)
    ('b',)
    """
    count = max(1, math.ceil(share * len(layers) - 1e-9))
    total = {layer: sum(moved[name] for name in names) for layer, names in layers.items()}
    return tuple(sorted(total, key=lambda layer: -total[layer])[:count])


def sparse_masks(
    arrays: Mapping[str, Array], names: Iterable[str], density: float, address: list[int]
) -> Arrays:
    """Return a random mask per array with ``ceil(density * size)`` entries free."""
    found = {}
    for place, name in enumerate(names):
        size = arrays[name].size
        count = math.ceil(density * size - 1e-9)
        free = np.zeros(size, dtype=bool)
        free[np.random.default_rng([*address, place, _MASK]).permutation(size)[:count]] = True
        found[name] = free.reshape(arrays[name].shape)
    return found


class Fused(UnlearningStrategy):
    """A few entries of the layers that react most are trained on; no better than fine-tuning here.

    Parameters
    ----------
    density : float, default 0.05
        Share of a chosen layer's entries that the adapter has (rho). Our choice.
    layers : float, default 0.25
        Share of the layers that are chosen. Our choice.
    per_entry : bool, default False
        Compare layers by their mean movement instead of the sum, which favours large ones.
    adapter_rounds : int, default 5
        Rounds of training the adapter before recovery, which goes on with it.

    Notes
    -----
    The frozen weights still hold what is forgotten: it is suppressed, never deleted.

    Where it fails: nearly everywhere. The adapter is so small a part of the model that it cannot
    answer for the frozen rest, in which the trigger stays what it was; plain fine-tuning, which
    trains more weights, forgot more in a trial on digits. An adapter added to frozen weights is
    training of these entries alone, with weight decay on the whole entry. One round of those who
    stay tells which layers react. The masks are kept in the history and hold for all later rounds
    and requests, which train the same adapter further; buffers stay as they were. There is no
    command that takes an adapter out again.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    guarantee = Guarantee.SUPPRESSED

    def __init__(
        self,
        *,
        density: float = 0.05,
        layers: float = 0.25,
        per_entry: bool = False,
        adapter_rounds: int = 5,
    ) -> None:
        super().__init__()
        in_range("density", density, 1e-9, 1)
        in_range("layers", layers, 0, 1)
        in_range("adapter_rounds", adapter_rounds, 0)
        self.density = density
        self.layers = layers
        self.per_entry = per_entry
        self.adapter_rounds = adapter_rounds
        self._masks: Arrays = {}
        self._history = History()

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model; a round of looking and those of the adapter follow."""
        self._history, self._masks = history, masks_of(history)
        return arrays, 1 + self.adapter_rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Have those who stay train once, for a look; then the adapter alone."""
        if server_round == 1:
            return {} if self._masks else {client: Instruction() for client in self.remaining}
        return self._masked(self.federation.completed + server_round - 1, self._masks)

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Choose layers and entries; then average, all else held."""
        if server_round > 1:
            number = self.federation.completed + server_round - 1
            return held(arrays, super().learn(number, arrays, replies), self._masks)
        if not self._masks:
            self._choose(arrays, replies)
        self._hand_over()
        return arrays

    def teach(self, server_round: int) -> Mapping[int, Instruction]:
        """Train as usual, the adapter alone once there is one."""
        masks = masks_of(self.federation.history)
        return self._masked(server_round, masks) if masks else super().teach(server_round)

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as usual; once there is an adapter, all else is held."""
        masks = masks_of(self.federation.history)
        learned = super().learn(server_round, arrays, replies)
        return held(arrays, learned, masks) if masks else learned

    def _masked(self, server_round: int, masks: Arrays) -> Mapping[int, Instruction]:
        extras = {f"{FREE}{name}": mask for name, mask in masks.items()}
        how = Instruction("train_masked", {"hold_state": True}, extras=extras)
        return {
            client: replace(how, settings={**instruction.settings, **how.settings})
            for client, instruction in super().teach(server_round).items()
        }

    def _choose(self, arrays: Arrays, replies: Iterable[Reply]) -> None:
        moved = dict.fromkeys(named.parameters(arrays), 0.0)
        for reply in _models(replies):
            for name in moved:
                step = np.abs((reply.update or {})[name].astype(np.float64))
                moved[name] += reply.num_examples * float(step.sum())
        layers = layers_of(arrays)
        if self.per_entry:
            for layer in layers.values():
                size = sum(arrays[name].size for name in layer)
                moved |= {name: moved[name] / size for name in layer}
        chosen = most_moved(moved, layers, self.layers) if layers else ()
        names = [name for layer in chosen for name in layers[layer]]
        address = [self.federation.seed, self.federation.completed]
        self._masks = sparse_masks(arrays, names, self.density, address)

    def _hand_over(self) -> None:
        """Let the history that follows, if the request is fulfilled, hold the masks."""
        last = self._history.last_round
        after = self.rewrite(self._history, before=last + 1)
        if self.request is not None:
            after.purge(self.request)
        others = {n: a for n, a in after.state.items() if not n.startswith(FREE)}
        after.keep_state(others | {f"{FREE}{name}": mask for name, mask in self._masks.items()})


def masks_of(history: History) -> Arrays:
    """Return the entries that an adapter has, by array; empty before the first request."""
    return {n.removeprefix(FREE): a for n, a in history.state.items() if n.startswith(FREE)}


def held(arrays: Arrays, learned: Arrays, masks: Mapping[str, Array]) -> Arrays:
    """Return ``arrays`` with the free entries as they were learned."""
    return {
        name: np.where(masks[name], learned[name], array) if name in masks else array
        for name, array in arrays.items()
    }


def _models(replies: Iterable[Reply]) -> Iterator[Reply]:
    for reply in replies:
        if reply.update is None:
            raise FederationError(f"client {reply.client} sent no model; this round needs one")
        yield reply

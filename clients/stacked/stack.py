"""Decides what is worked on side by side, and sees that it comes to what each comes to alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from weakref import WeakKeyDictionary

from torch import nn

from clients.local import Outcome
from clients.stacked.jobs import Job, Unfit, Working
from clients.stacked.layers import Layers, layers_of
from clients.stacked.precondition import precondition
from clients.stacked.synthetic import synthetic
from clients.stacked.train import train

__all__ = ["STEPS", "Stack", "stack_of"]

STEPS: Mapping[str, Working] = {  # by the step's name
    "precondition": precondition,
    "synthetic": synthetic,
    "train": train,
}


class Stack:
    """Works on clients' networks side by side, as a step works on each.

    Parameters
    ----------
    layers : tuple or None
        As :func:`layers_of` finds them.
    """

    def __init__(self, layers: Layers | None) -> None:
        self._layers = layers
        self._known: dict[str, set[Hashable]] = defaultdict(set)  # sizes, by step
        self._refused: dict[str, str] = {}
        self.reason = ""  # why the last clients worked on their own, if they did

    def refused(self, step: str) -> str:
        """Return why a step is not done side by side, in words; empty: it may be."""
        if self._layers is None:
            return "the model is no row of small linear layers with ReLU between them"
        return self._refused.get(step, "")

    def work(
        self, step: str, jobs: Sequence[Job], alone: Callable[[int], Outcome]
    ) -> list[Outcome]:
        """Return what each client's step comes to, in order.

        Where a size is new, each client works on its own as well, and that is the answer.

        Parameters
        ----------
        step : str
            One of ``STEPS``.
        jobs : sequence of Job
            One per client, at least one.
        alone : callable
            ``alone(i)`` lets client i of ``jobs`` work on its own.
        """
        self.reason = ""
        try:
            made = STEPS[step](self._layers or (), jobs)
        except Unfit as reason:
            self.reason = str(reason)
            return [alone(i) for i in range(len(jobs))]
        if made.sizes <= self._known[step]:
            return made.outcomes
        self.reason = "a size of batches was tried both ways"
        single = [alone(i) for i in range(len(jobs))]
        if all(map(_same, made.outcomes, single)):
            self._known[step] |= made.sizes
        else:
            self.reason = "on this machine it gives other bits than working alone"
            self._refused[step] = self.reason
        return single


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

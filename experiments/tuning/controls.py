"""What stands beside a tuned strategy: the same training without its idea."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.shares import faster
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Instruction
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["PlainTraining", "RandomReset", "Watched"]


class PlainTraining(UnlearningStrategy):
    """Train on without the forgotten: as many rounds, at the rate, of the strategy beside it.

    Parameters
    ----------
    rounds : int
        Before those of recovery.
    factor : float
        Learning rate of these rounds, in learning rates of training.
    """

    scopes = frozenset(Scope)

    def __init__(self, *, rounds: int = 0, factor: float = 1.0) -> None:
        super().__init__()
        in_range("rounds", rounds, 0)
        in_range("factor", factor, 1e-12)
        self.rounds = rounds
        self.factor = factor

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model as it is."""
        return arrays, self.rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Train as in learning, at another rate."""
        return faster(super().instruct(server_round), self.factor, self.federation)


class RandomReset(PlainTraining):
    """Put a random share of the weights back to the untrained model; then train on.

    Parameters
    ----------
    share : float
        Of the weights, [0, 1].
    rounds, factor
        As of :class:`PlainTraining`.
    """

    needs = frozenset({"initial"})

    def __init__(self, *, share: float = 0.0, rounds: int = 0, factor: float = 1.0) -> None:
        super().__init__(rounds=rounds, factor=factor)
        in_range("share", share, 0, 1)
        self.share = share

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Reset what a draw chooses."""
        draw = np.random.default_rng([self.federation.seed, self.federation.completed])
        fresh = named.parameters(history.initial)
        after = {
            name: np.where(draw.random(array.shape) < self.share, fresh[name], array)
            if name in fresh
            else array
            for name, array in arrays.items()
        }
        return {
            name: array.astype(arrays[name].dtype) for name, array in after.items()
        }, self.rounds


class Watched:
    """Notes what share of the weights a strategy edits before its first round, and its rounds."""

    def __init__(self, strategy: UnlearningStrategy) -> None:
        self.strategy = strategy
        self.edited, self.rounds = 0.0, 0
        prepare = strategy.prepare

        def noted(request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
            after, rounds = prepare(request, history, arrays)
            self.edited, self.rounds = _share(arrays, after), rounds
            return after, rounds

        strategy.prepare = noted  # type: ignore[method-assign]


def _share(before: Arrays, after: Arrays) -> float:
    """Return the share of the parameters that differ."""
    pairs = [(a, after[n]) for n, a in named.parameters(before).items() if n in after]
    size = sum(a.size for a, _ in pairs)
    return sum(int(np.count_nonzero(a != b)) for a, b in pairs) / size if size else 0.0

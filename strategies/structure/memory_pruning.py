"""MemoryPruning (FedMemPrune): reset the weights that the remaining data do not move.

References
----------
Wei, Zhang, Zhang, Zhang, Chen, Ong, Zhang, Xiang, "Rethinking Federated Unlearning via the Lens of
Memorization", KDD 2026 (arXiv 2605.24545).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import INITIAL
from strategies.shares import Span, check_rounds, rounds_of
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.models.selection import redrawn, smallest, weights
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["MemoryPruning", "reset_idle"]

_FRESH = 5  # last component of the seed address of a fresh value


def reset_idle(
    before: Mapping[str, Array], after: Arrays, fresh: Mapping[str, Array], share: float
) -> tuple[Arrays, int]:
    """Return ``after`` with the entries that moved least since ``before`` started anew.

    Parameters
    ----------
    before, after, fresh : mapping
        The model before and after a round of the remaining clients, and an untrained one.
    share : float
        Part of the eligible entries over the whole model (rho); [0, 1].

    Returns
    -------
    tuple
        The model, and how many entries were reset: ``floor(rho P)``.
    """
    ranks = {n: np.abs(after[n].astype(np.float64) - a) for n, a in weights(before).items()}
    chosen = smallest(ranks, share)
    found = {n: np.where(chosen[n], fresh[n], a) if n in chosen else a for n, a in after.items()}
    return found, sum(int(mask.sum()) for mask in chosen.values())


class MemoryPruning(UnlearningStrategy):
    """One ordinary round of those who stay, then new values where it moved least.

    Parameters
    ----------
    share : float, default 0.8
        Part of the parameters that starts anew (rho). The paper has 0.3, and 0.4 where data differ
        between clients, for large networks; our choice is for small ones.
    fine_tune_rounds : float, default 0.2
        Rounds of those who stay after the reset, before the recovery rounds that every strategy
        has; below 1, the share of the rounds learned so far. Our choice: so many weights are not
        learned again within a few rounds.

    Attributes
    ----------
    reset : int
        Entries that the last request reset.

    Notes
    -----
    On digits and a small network, with the paper's share of 0.3, a random reset of as many weights
    removed more of a backdoor; with 0.5 this one did, and kept the accuracy that the random one
    lost, but on other data and ways of sharing out up to .5 of a backdoor stayed. The round asks
    everyone who stays, and the mean is weighted by examples. A fresh value is one of the untrained
    array's, in an order drawn per request: another draw of the layer's own law. Norm scales,
    buffers and frozen weights are never reset. Owners of a class or of samples take part without
    them.

    Where it fails: on Adult, where a few of the weights that are kept are enough to tell part of a
    trigger, and on CIFAR-10 with one local epoch. A random reset of as many weights with as many
    rounds after it fails far more often (``experiments/results/tuning.md``).
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({INITIAL})
    tunable: ClassVar[Mapping[str, Span]] = {
        "share": Span(0.3, 0.9),
        "fine_tune_rounds": Span(0.0, 0.3),
    }

    def __init__(self, *, share: float = 0.8, fine_tune_rounds: float = 0.2) -> None:
        super().__init__()
        in_range("share", share, 0, 1)
        check_rounds("fine_tune_rounds", fine_tune_rounds)
        self.share = share
        self.fine_tune_rounds = fine_tune_rounds
        self.reset = 0
        self._fresh: Arrays = {}

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Draw fresh values; a round of everybody who stays follows, then those of fine-tuning."""
        self.reset = 0
        address = [self.federation.seed, self.federation.completed, len(history.served)]
        self._fresh = {
            name: redrawn(array, [*address, place, _FRESH])
            for place, (name, array) in enumerate(history.initial.items())
        }
        return arrays, 1 + rounds_of(self.fine_tune_rounds, self.federation.completed)

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Let everyone who stays train, so that whatever their data move is seen; then as usual."""
        if server_round > 1:
            return super().instruct(server_round)
        return {client: Instruction() for client in self.remaining}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as in learning, and after the first round reset what did not move."""
        if server_round > 1:
            return super().combine(server_round, arrays, replies)
        learned = named.copy(self.learn(self.federation.completed + 1, arrays, replies))
        fresh, self._fresh = self._fresh, {}
        after, self.reset = reset_idle(arrays, learned, fresh, self.share)
        if not self.reset:
            self.idle = f"share = {self.share:g} of the weights is less than one of them"
        return after

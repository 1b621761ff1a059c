"""RandomReset: start random weights anew, then let the others learn. A control.

References
----------
A trial of selective resets (Wei et al., KDD 2026, arXiv 2605.24545) must beat a reset of as many
weights that were not selected at all; this is that reset.
"""

from __future__ import annotations

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import INITIAL
from unlearning.arrays import Arrays
from unlearning.models.selection import redrawn, smallest, weights
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["RandomReset"]

_FRESH, _CHOICE = 5, 6  # last components of the seed addresses of fresh values and of the choice


class RandomReset(UnlearningStrategy):
    """A control like fine-tuning: weights chosen by chance start anew, and recovery follows.

    Parameters
    ----------
    share : float, default 0.3
        Part of the parameters that starts anew, over the whole model. Our choice.

    Attributes
    ----------
    reset : int
        Entries that the last request reset.

    Notes
    -----
    Nothing here knows what is to be forgotten. A method that resets, masks or dampens weights has
    to forget more than this at equal accuracy, or its selection is worth nothing. A fresh value is
    one of the untrained array's, in an order drawn per request. Norm scales, buffers and frozen
    weights stay.

    Where it fails: with this share nearly everywhere. What is left of the weights still tells a
    trigger, and the few rounds of recovery, at training's rate, neither wash it out nor bring all
    of the accuracy back. A reset of more weights with more rounds at a higher rate, the control
    "random reset" of ``experiments/results/tuning.md``, does both.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS, Scope.FEATURE})
    needs = frozenset({INITIAL})

    def __init__(self, *, share: float = 0.3) -> None:
        super().__init__()
        in_range("share", share, 0, 1)
        self.share = share
        self.reset = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Reset by chance; no client takes part."""
        address = [self.federation.seed, self.federation.completed, len(history.served)]
        generator = np.random.default_rng([*address, _CHOICE])
        ranks = {name: generator.random(array.shape) for name, array in weights(arrays).items()}
        chosen = smallest(ranks, self.share)
        self.reset = sum(int(mask.sum()) for mask in chosen.values())
        after = dict(arrays)
        for place, (name, array) in enumerate(history.initial.items()):
            if name in chosen:
                fresh = redrawn(array, [*address, place, _FRESH])
                after[name] = np.where(chosen[name], fresh, arrays[name])
        return after, 0

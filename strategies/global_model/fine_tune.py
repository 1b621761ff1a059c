"""FineTune: do nothing but learn on without the forgotten. The control every method must beat.

References
----------
Used as a baseline throughout the field, for example Golatkar, Achille, Soatto, "Eternal Sunshine
of the Spotless Net", CVPR 2020 (arXiv 1911.04933).
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["FineTune"]


class FineTune(UnlearningStrategy):
    """No unlearning step at all: the recovery rounds that follow every request are all it does.

    Where it fails: nearly everywhere. What the rest of the data do not contradict stays learned.
    """

    scopes = frozenset(Scope)
    edits = False

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model as it is."""
        return arrays, 0

"""Models that are no network: a forest, sums, support vectors, centroids.

Their global state is named arrays whose shapes may change from round to round. Such a model says
itself how it is learned, so that every strategy, retraining included, learns it in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from unlearning.arrays import Array, Arrays
from unlearning.protocol import Instruction, Reply

__all__ = ["ArrayModel"]


@runtime_checkable
class ArrayModel(Protocol):
    """What a federation and a judge need of a model that is no network.

    Attributes
    ----------
    name : str
        As in ``[model]``; strategies declare the names that they work on.
    """

    name: str

    def initial(self) -> Arrays:
        """Return the state before the first round; nobody's data influenced it."""

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return class probabilities, ``(n, num_classes)``, of examples ``x``, ``(n, d)``.

        The initial state must answer too (uniformly, say); n may be 0.
        """

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Return what each client is asked in one learning round.

        Parameters
        ----------
        arrays : Arrays
            The state at the start of the round; it alone says how far learning has come.
        clients : sequence of int
            Who takes part.
        """

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Return the next state; ``replies`` is consumed once, ordered by client.

        Must not change ``arrays``. After the last useful round the state stays as it is.
        """

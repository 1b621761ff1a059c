"""What clients tell of a model on data that only they see: how many, and how many were right."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEAST", "SPLITS", "Told"]

SPLITS = ("retain", "forget", "held_out")
LEAST = 10  # examples; of fewer a client tells nothing, for a sum over them tells of each


@dataclass(frozen=True)
class Told:
    """What clients told of one split of their data.

    Parameters
    ----------
    by_client : tuple of (int, int, int)
        Client, examples and right answers, of every client that told them, in order.
    silent : tuple of int
        Clients with some examples, but fewer than :data:`LEAST`: they told nothing.

    Examples
    --------
    >>> Told(((0, 10, 9), (2, 30, 15)), silent=(1,)).accuracy
    0.6
    >>> Told().accuracy is None
    True
    """

    by_client: tuple[tuple[int, int, int], ...] = ()
    silent: tuple[int, ...] = ()

    @property
    def examples(self) -> int:
        """How many examples it is told of."""
        return sum(count for _, count, _ in self.by_client)

    @property
    def accuracy(self) -> float | None:
        """Right answers over examples; None where nobody told anything."""
        right = sum(right for _, _, right in self.by_client)
        return right / self.examples if self.examples else None

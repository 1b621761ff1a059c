"""Rounds in which some of the remaining clients may be hostile.

Every reply of a round of unlearning or of recovery passes through here before a strategy sees it,
so that whatever the strategy does with the replies, it does with updates that were made harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.protocol import Reply
from unlearning.robust import bound_norm, trimmed_mean

__all__ = ["HOW", "Robust"]

HOW = ("median", "trimmed-mean", "norm-bound")


@dataclass
class Robust:
    """Makes the updates of a round harmless, and remembers how long those of learning were.

    Parameters
    ----------
    how : {"median", "trimmed-mean", "norm-bound"}
        ``median`` and ``trimmed-mean`` put the coordinate-wise centre of all updates in the place
        of each, so that their mean is that centre under any weights; a round's updates are in
        memory together then. ``norm-bound`` shortens, one at a time, what is longer than
        ``factor`` times the longest median length of a round of learning.
    trim : float
        Share left out on each side by ``trimmed-mean``, [0, 0.5).
    factor : float
        Of ``norm-bound``.
    lengths : dict of int to list of float
        Of the updates seen in each round of learning.
    """

    how: str
    trim: float = 0.2
    factor: float = 2.0
    lengths: dict[int, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a rule that does not exist."""
        if self.how not in HOW:
            raise ConfigError(
                f"guard.aggregate is {self.how!r}; it must be one of mean, {', '.join(HOW)}"
            )

    @property
    def limit(self) -> float:
        """The longest update that ``norm-bound`` lets pass; infinite before the first round."""
        medians = [float(np.median(found)) for found in self.lengths.values()]
        return self.factor * max(medians) if medians else float("inf")

    def watch(self, server_round: int, replies: Iterable[Reply]) -> Iterator[Reply]:
        """Pass on the replies of a round of learning and note how long their updates are."""
        for reply in replies:
            if reply.update is not None and self.how == "norm-bound":
                self.lengths.setdefault(server_round, []).append(named.norm(reply.update))
            yield reply

    def cleaned(self, arrays: Arrays, replies: Iterable[Reply]) -> Iterator[Reply]:
        """Yield the replies of a round with harmless updates, in their order.

        Parameters
        ----------
        arrays : Arrays
            The model that all of them were sent.
        replies : iterable of Reply
            Model-like answers.

        Raises
        ------
        FederationError
            If one brings no update.
        """
        if self.how == "norm-bound":
            for reply in replies:
                yield _with(reply, arrays, bound_norm(_update(reply), self.limit))
            return
        found = list(replies)
        if not found:
            return
        trim = 0.5 if self.how == "median" else self.trim
        centre = trimmed_mean([_update(reply) for reply in found], trim)
        for reply in found:
            yield _with(reply, arrays, centre)


def _update(reply: Reply) -> Arrays:
    if reply.update is None:
        raise FederationError(
            f"client {reply.client} sent no model, which guard.aggregate needs; leave it at mean"
        )
    return reply.update


def _with(reply: Reply, arrays: Arrays, update: Arrays) -> Reply:
    return replace(reply, update=update, arrays=named.apply_update(arrays, update))

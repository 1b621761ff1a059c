"""FedAccum: add up the stored updates of the remaining clients, nothing else.

References
----------
The baseline without calibration in Liu, Ma, Yang, Wang, Liu, "FedEraser: Enabling Efficient
Client-Level Data Removal from Federated Learning Models", IWQoS 2021 (arXiv 2012.13891).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["FedAccum", "rebase"]


def rebase(update: Arrays, old: Arrays, new: Arrays) -> Arrays:
    """Return an update that was made from ``old`` as one that can be added to ``new``.

    Parameters
    ----------
    update : Arrays
        As :func:`unlearning.arrays.delta` gives it.
    old, new : Arrays
        Models with the same names and shapes.

    Returns
    -------
    Arrays
        Parameters and integer buffers as in ``update``. Float buffers lead from ``new`` to the
        very state that ``update`` led to from ``old``: differences of variances, added to another
        state, could make a variance negative.
    """
    return {
        name: np.asarray(step + named.difference(old[name], new[name]), dtype=step.dtype)
        if named.is_buffer(name, step) and np.issubdtype(step.dtype, np.floating)
        else step
        for name, step in update.items()
    }


class FedAccum(UnlearningStrategy):
    """Replay the recorded rounds on the server, without the forgotten and without any client.

    From the last recorded model that no forgotten data had touched, the stored updates of the
    others are averaged and added, round by round. They were made from models that the forgotten
    had shaped, and still point where those models needed to go.

    Parameters
    ----------
    interval : int, default 1
        Distance between replayed rounds (Delta t of FedEraser).
    interval_scale : float, default 1.0
        Factor on every step; ``interval`` itself makes up for the rounds left out (our choice).

    Notes
    -----
    Weights are renormalised over those left in a round; a round of the forgotten alone is an
    identity step. For sample requests (an extension) the owners' whole past is left out, and they
    take part in later rounds as if they were new.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE})
    needs = frozenset({"globals", "updates"})

    def __init__(self, *, interval: int = 1, interval_scale: float = 1.0) -> None:
        super().__init__()
        in_range("interval", interval, 1)
        in_range("interval_scale", interval_scale, 1e-6)
        self.interval = interval
        self.interval_scale = interval_scale

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Do all the work; no round of clients follows."""
        first = history.first_round(request) or 1
        stored = [t for t in history.stored_rounds if (t - 1) % self.interval == 0]
        clean = [t for t in stored if t <= first]
        if not clean:
            raise HistoryError(
                f"FedAccum with interval {self.interval} finds no recorded round before round "
                f"{first}; recorded are {list(stored)[:5]} ..., so choose interval 1"
            )
        owners = frozenset(request.owners(self._roster.nodes))
        if not any(owners & history.participants(t).keys() for t in history.rounds):
            self.settled = "its owners' whole past was left out with an earlier request"
        kept = frozenset(self.remaining) - owners
        rewritten = self.rewrite(history, before=clean[-1])
        current = history.arrays(clean[-1])
        for t in (t for t in stored if t >= clean[-1]):
            if kept.isdisjoint(history.participants(t)):
                with rewritten.record(t, current):
                    pass  # an identity step
                continue
            replies = self._stored(history, t, current, kept)
            current = self.recorded(rewritten, t, current, replies)
        return current, 0

    def _stored(
        self, history: History, t: int, current: Arrays, kept: Collection[int]
    ) -> Iterator[Reply]:
        """Yield what the kept clients answered in a round, as answers to the current model."""
        old = history.arrays(t)
        for client, rests in history.examples(t).items():
            if client in kept:
                update = named.scale(history.update(t, client), self.interval_scale)
                update = rebase(update, old, current)
                yield Reply(client, rests.total, {}, rests.to_metrics(), update)

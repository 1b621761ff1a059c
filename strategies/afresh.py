"""A history that begins again: of a model that rests on nothing but the clients that are left."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.base import UnlearningStrategy
from unlearning.records.history import History

__all__ = ["record_afresh"]


def record_afresh(
    strategy: UnlearningStrategy, history: History, examples: Mapping[int, int]
) -> None:
    """Replace what is known of past rounds by one round of those the model rests on now.

    An exact method leaves a model that looks as if the forgotten had never been there; so must the
    record, or a later request of a client that stayed could not be traced.

    Parameters
    ----------
    strategy : UnlearningStrategy
        Whose rewritten history it becomes once the request is fulfilled.
    history : History
        The record so far; left as it is.
    examples : mapping of int to int
        Client id to number of examples that the model rests on.
    """
    clean = strategy.rewrite_afresh(history)
    start = history.initial if "globals" in clean.keep else {}  # else nobody keeps it: it is large
    with clean.record(1, start) as entry:
        for client, count in sorted(examples.items()):
            entry.note(client, count)

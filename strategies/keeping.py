"""What a strategy knows of a model after a request, kept with the history for the next one."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.base import UnlearningStrategy
from unlearning.arrays import Array, Arrays
from unlearning.records.history import History

__all__ = ["hand_over", "handed_over"]


def hand_over(
    strategy: UnlearningStrategy, history: History, prefix: str, known: Mapping[str, Array]
) -> None:
    """Let the history that follows, if the request is fulfilled, hold some arrays.

    A request that fails after this leaves nothing behind.

    Parameters
    ----------
    strategy : UnlearningStrategy
        The one that serves a request.
    history : History
        The record so far; left as it is.
    prefix : str
        Stands before the names, and tells one strategy's notes from another's.
    known : mapping of str to array
        Replaces all that was kept under the prefix. It must say no more of the data than the
        model does, since nothing deletes it.
    """
    last = history.last_round
    after = strategy.rewrite(history, before=last + 1)
    if strategy.request is not None:
        after.purge(strategy.request)
    others = {n: a for n, a in after.state.items() if not n.startswith(prefix)}
    after.keep_state(others | {f"{prefix}{name}": array for name, array in known.items()})


def handed_over(history: History, prefix: str) -> Arrays:
    """Return what was kept under a prefix, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in history.state.items()
        if name.startswith(prefix)
    }

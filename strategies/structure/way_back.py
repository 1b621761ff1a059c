"""The way back to a former trunk, which recovery must not take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from strategies.federation import Federation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.models.heads import trunk, without_return
from unlearning.protocol import Reply

__all__ = ["WayBack"]


class WayBack:
    """Where the trunk was before a task was taken out of it, while recovery lasts."""

    def __init__(self) -> None:
        self._former: Arrays | None = None
        self._rounds = 0

    def begin(self, federation: Federation, arrays: Arrays, *, barred: bool) -> None:
        """Note the trunk before a request; of several in a row that before the first.

        Parameters
        ----------
        federation : Federation
            How many rounds of recovery follow.
        arrays : Arrays
            The model.
        barred : bool
            Whether recovery is kept from going back at all.
        """
        if self._former is None or federation.has_learned:  # else: of the first of several
            self._former = trunk(arrays) if barred else None
        self._rounds = federation.recovery_rounds

    def guarded(self, arrays: Arrays, replies: Iterable[Reply]) -> Iterable[Reply]:
        """Return the replies of a learning round without what leads back, while it is recovery."""
        if self._former is None or self._rounds < 1:
            self._former = None
            return replies
        self._rounds -= 1
        return _guarded(replies, arrays, self._former)


def _guarded(replies: Iterable[Reply], arrays: Arrays, former: Arrays) -> Iterator[Reply]:
    away = named.delta(former, {name: arrays[name] for name in former})
    for reply in replies:
        update = reply.update
        yield replace(reply, update=None if update is None else without_return(update, away))

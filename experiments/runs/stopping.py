"""SIGINT and SIGTERM as a request to end at the next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stop", "StoppedError", "ended_by_sigterm"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHELL = 128  # shells report the number of a signal above this


class StoppedError(InterruptedError):
    """Someone wanted the run to end.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = _SHELL + number
        self.go_on = ""  # the command that goes on


class Stop:
    """Remembers that a signal came, and which."""

    def __init__(self) -> None:
        self.number: int | None = None

    def is_set(self) -> bool:
        """Return whether a signal came."""
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals in a block, where this is the main thread, and say at its end which came.

        Raises
        ------
        StoppedError
            In place of the InterruptedError, or KeyboardInterrupt, that a signal led to.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._take)
        try:
            yield
        except (InterruptedError, KeyboardInterrupt) as error:
            raise StoppedError(self.number or signal.SIGINT) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        self.number = number


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a block at once, as SIGINT does, where this is the main thread.

    Raises
    ------
    StoppedError
        Wherever the block is when the signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise StoppedError(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

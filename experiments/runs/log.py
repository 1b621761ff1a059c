"""The log of a run: what it did when, in a file of its folder that can be read at any time."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.runs.progress import Observer, Tick

__all__ = ["LOG", "logged"]

LOG = "run.log"
_FORMAT = "%(asctime)s %(levelname)s %(message)s"

log = logging.getLogger("fedunlearn")


class _Quiet(logging.FileHandler):
    """A log that a full or broken disk leaves with a gap.

    Whatever else meets that disk says so in one line; a log must not put its own traceback there,
    or take the place of what is said.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or leave it out; opening the file may fail as well."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing of what the disk does; everything else is a mistake of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


@contextmanager
def logged(folder: Path, observer: Observer, command: str) -> Iterator[Observer]:
    """Write what happens in a block to ``run.log``: phases, warnings, and how it ended.

    Parameters
    ----------
    folder : Path
        The run folder.
    observer : Observer
        Told of every tick.
    command : str
        What started it.

    Yields
    ------
    Observer
        To be called with every tick.
    """
    handler = _Quiet(folder / LOG, encoding="utf-8", delay=True)
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.setLevel(logging.INFO)
    last: tuple[str, int, str] | None = None

    def say(level: int, text: str) -> None:
        # Straight to the file: nobody else asked to hear of every phase.
        handler.handle(log.makeRecord(log.name, level, "", 0, text, (), None))

    def observe(tick: Tick) -> None:
        nonlocal last
        phase = (tick.strategy, tick.seed, tick.phase)
        if phase != last:
            last = phase
            say(logging.INFO, f"{tick.strategy} (seed {tick.seed}): {tick.phase}")
        observer(tick)

    log.addHandler(handler)
    try:
        say(logging.INFO, f"started: {command}")
        yield observe
        say(logging.INFO, "finished")
    except BaseException as error:
        say(logging.ERROR, f"ended: {type(error).__name__}: {error}".rstrip(": "))
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # it flushes what a full disk did not take
            handler.close()

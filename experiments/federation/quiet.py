"""Silence for a while what would tell of every round of every federation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Let some loggers tell nothing below a level, and give them their own level back.

    Parameters
    ----------
    *names : str
        Of the loggers.
    level : int
        The least that is told.
    """
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, own in zip(loggers, before, strict=True):
            logger.setLevel(own)

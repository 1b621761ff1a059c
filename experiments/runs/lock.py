"""One process at a time in a run folder, and a number that tells a late one that it is not it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.errors import ConfigError
from unlearning.records.files import room

__all__ = ["held"]

_LOCK = ".run.lock"


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold a run folder for the time of a block.

    The lock is the operating system's: it goes when the process ends, however it ends.

    Yields
    ------
    int
        The fencing number: higher for every holder.

    Raises
    ------
    ConfigError
        If another process holds it, or it cannot be written.
    """
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 100, 0).decode(errors="replace").split()
            who = f"process {owner[1]}" if len(owner) > 1 else "another process"
            raise ConfigError(
                f"{folder} is in use by {who}; wait until it ends, or stop it"
            ) from error
        before = os.pread(descriptor, 100, 0).decode(errors="replace").split()
        fence = (int(before[0]) if before and before[0].isdecimal() else 0) + 1
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{fence} {os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield fence
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be written: {error.strerror}{room(path)}; remove the cause and run it again"
    )

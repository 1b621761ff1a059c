"""Writing a file so that a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from unlearning.errors import StorageError

__all__ = ["free_bytes", "room", "write_atomically"]


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace the content of ``path``.

    Parameters
    ----------
    path : Path
        Its folder exists.
    data : bytes
        The new content.
    durable : bool
        Flush file and folder to the disk, so that the new content survives a loss of power.

    Raises
    ------
    StorageError
        If it cannot be written; the old content is then still there.
    """
    try:
        _replace(path, data, durable=durable)
    except OSError as error:
        raise StorageError(error, str(path), len(data), free_bytes(path.parent)) from error


def free_bytes(folder: Path) -> int | None:
    """Return how many bytes a folder's disk has left for us; None: nobody knows."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def room(path: Path | str, needed: int | None = None) -> str:
    """Return in brackets, after a blank, how many bytes were needed and are free on a disk.

    Nothing where nobody knows. ``path`` need not be there: its nearest folder counts.
    """
    place = Path(path)
    free = free_bytes(next((one for one in (place, *place.parents) if one.exists()), place))
    if free is None:
        return ""
    return (
        f" ({free} bytes are free)"
        if needed is None
        else (f" ({needed} bytes were needed, {free} are free)")
    )


def _replace(path: Path, data: bytes, *, durable: bool) -> None:
    parent, own = os.path.split(path)
    name = os.path.join(parent, f".{own}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, 0o644)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    if durable:
        folder = os.open(parent or os.curdir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

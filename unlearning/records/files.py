"""Writing a file so that a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from unlearning.errors import StorageError
from unlearning.packing import Piece

if sys.platform == "linux":
    import fcntl

__all__ = ["free_bytes", "room", "write_atomically", "write_pieces"]

_LARGE = 2**22  # bytes of a file that goes past the page cache
_DIRECT = getattr(os, "O_DIRECT", 0) if sys.platform == "linux" else 0
_BLOCK = 4096  # bytes, of memory and of any disk
_AT_ONCE = 256 * _BLOCK


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


def write_pieces(file: IO[bytes], data: Sequence[Piece]) -> None:
    """Write the pieces of a new file, which must be empty, one after the other.

    A large one goes past the page cache where the system can: it is read much later or never, and
    where memory is lent by a host, as to a virtual machine, finding fresh pages for it takes
    several times as long as copying the bytes.
    """
    rest = [memoryview(piece) for piece in data]
    if _DIRECT and sum(map(len, rest)) >= _LARGE:
        rest = _written_directly(file.fileno(), rest)
    file.seek(0, os.SEEK_END)
    file.writelines(rest)


def _written_directly(descriptor: int, pieces: list[memoryview]) -> list[memoryview]:
    """Write whole blocks of some pieces without the page cache; return what is left to write."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
    except OSError:  # a file system in memory, or one that compresses
        return pieces
    # The system wants to be given whole blocks that begin where blocks do in memory, too.
    space, filled, at = memoryview(mmap.mmap(-1, _AT_ONCE)), 0, 0
    try:
        for piece in pieces:
            done = 0
            while done < len(piece):
                size = min(len(piece) - done, _AT_ONCE - filled)
                space[filled : filled + size] = piece[done : done + size]
                done, filled = done + size, filled + size
                if filled == _AT_ONCE:
                    at, filled = at + _put(descriptor, space), 0
        whole = filled - filled % _BLOCK
        _put(descriptor, space[:whole])
        return [space[whole:filled]]
    except OSError as error:
        if at or error.errno != errno.EINVAL:
            raise
        return pieces
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _put(descriptor: int, data: memoryview) -> int:
    """Write all of some bytes; return how many these are."""
    rest = data
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


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

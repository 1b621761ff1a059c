"""Writing a file so that a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from unlearning.errors import StorageError
from unlearning.packing import Piece

if sys.platform == "linux":
    import fcntl

__all__ = ["Tray", "free_bytes", "read_piece", "room", "write_atomically", "write_pieces"]

_LARGE = 2**22  # bytes of a file that goes past the page cache
_DIRECT = getattr(os, "O_DIRECT", 0) if sys.platform == "linux" else 0
_BLOCK = 4096  # bytes, of memory and of any disk
_AT_ONCE = 256 * _BLOCK
_OURS = 2  # references to what nobody else holds: the attribute, and the one that counts


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
    """Write some pieces at the end of a file, one after the other.

    Many bytes go past the page cache where the system can, if the file ends with a whole block or
    is empty: they are read much later or never, and where memory is lent by a host, as to a virtual
    machine, finding fresh pages for them takes several times as long as copying the bytes.
    """
    rest = [memoryview(piece) for piece in data]
    if _DIRECT and sum(map(len, rest)) >= _LARGE:
        rest = _written_directly(file.fileno(), rest)
    file.seek(0, os.SEEK_END)
    for piece in rest:
        left = piece
        while left:
            left = left[file.write(left) :]


class Tray:
    """Memory for one large thing at a time, taken again when nobody holds the last one any more.

    Where a host lends the memory, to find 45 MB of it afresh takes ten times as long as to read so
    much into memory that is there.
    """

    def __init__(self) -> None:
        self._held: mmap.mmap | None = None

    def take(self, size: int) -> memoryview:
        """Return memory for so many bytes and the rest of the last block, with anything in it."""
        whole = -(-size // _BLOCK) * _BLOCK
        free = self._held is not None and sys.getrefcount(self._held) == _OURS
        if self._held is None or not free or len(self._held) < whole:
            self._held = None
            self._held = mmap.mmap(-1, whole)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel that has none
                    self._held.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(self._held)[:whole]


def read_piece(
    file: IO[bytes], size: int, at: int = 0, tray: Tray | None = None
) -> bytearray | memoryview:
    """Return so many bytes of a file from a place on, or what there is of them, free to change.

    Many of them come past the page cache, if they begin where a block does, as they went into it.

    Parameters
    ----------
    file : file
        Without a buffer.
    size : int
        In bytes.
    at : int
        Where they begin.
    tray : Tray or None
        Where many of them are to lie; None: in memory of their own.
    """
    if size < _LARGE:
        found = bytearray(size)
        del found[_filled(file, memoryview(found), at) :]
        return found
    space = (tray or Tray()).take(size)
    done = _read_directly(file, space, at) if _DIRECT and not at % _BLOCK else 0
    return space[: min(size, done + _filled(file, space[done:size], at + done))]


def _filled(file: IO[bytes], space: memoryview, at: int) -> int:
    """Fill some memory from a place of a file on, and let it go; return how many bytes came."""
    file.seek(at)
    done = 0
    with space:
        while done < len(space) and (count := file.readinto(space[done:])):  # type: ignore[attr-defined]
            done += count
    return done


def _read_directly(file: IO[bytes], space: memoryview, at: int) -> int:
    """Fill whole blocks of memory without the page cache; return how many bytes came."""
    done = 0
    with _past_the_cache(file.fileno()) as can:
        file.seek(at)
        while can and done < len(space):
            try:
                count = file.readinto(space[done:])  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
            done += count
            if not count or count % _BLOCK:  # the end of the file
                break
    return done


@contextmanager
def _past_the_cache(descriptor: int) -> Iterator[bool]:
    """Have a file read and written past the page cache; tell whether it is."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
    except OSError:  # a file system in memory, or one that compresses
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _written_directly(descriptor: int, pieces: list[memoryview]) -> list[memoryview]:
    """Write whole blocks of some pieces without the page cache; return what is left to write."""
    with _past_the_cache(descriptor) as can:
        return _in_blocks(descriptor, pieces) if can else pieces


def _in_blocks(descriptor: int, pieces: list[memoryview]) -> list[memoryview]:
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
            if _DIRECT and len(rest) >= _LARGE:
                rest = _written_directly(descriptor, [rest])[0]
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

"""Immutable bytes on disk or in memory, written in batches that appear whole or not at all.

A batch is staged (``round-00012.tmp/``), flushed to the disk and renamed as a whole
(``round-00012/``). Nothing is ever changed in place.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from unlearning.arrays import Array, Arrays, is_parameter
from unlearning.errors import HistoryError
from unlearning.packing import Piece, pieces, unpacked_in_place
from unlearning.records.files import Tray, read_piece, room, write_pieces

__all__ = ["Blobs", "decode", "encode", "encoded", "in_folder", "in_memory"]

_LAYOUT = "layout"
_FLUSHES = 8  # files flushed at a time
_JOINED = 2**20  # bytes of a file that are rather copied once more than written in many pieces
_BATCH = re.compile(r"(start|round-\d{5,}|rewrite-\d{5,})(\.tmp)?")


def _write_error(path: Path, error: OSError, size: int) -> HistoryError:
    remedy = {
        errno.ENOSPC: f"free at least {size} bytes and run it again",
        errno.EDQUOT: f"free at least {size} bytes and run it again",
        errno.EIO: "remove the cause and run it again",
    }.get(error.errno or 0, "make its folder writable or choose another one")
    return HistoryError(f"cannot write {path}: {error.strerror}{room(path, size)}; {remedy}")


def encode(arrays: Arrays, *, half: bool = False, idle: Collection[str] = ()) -> bytes:
    """Return arrays as the bytes of a safetensors file that remembers order and dtypes.

    Parameters
    ----------
    arrays : Arrays
        Any names, shapes and dtypes that :func:`unlearning.packing.pack` takes.
    half : bool
        Store parameters as float16. One that overflows there keeps its own dtype; so do buffers.
    idle : collection of str
        Arrays that may hold nothing but zeros, as of a part that was not trained: where they do,
        shape and dtype alone are stored.
    """
    return b"".join(encoded(arrays, half=half, idle=idle))


def encoded(arrays: Arrays, *, half: bool = False, idle: Collection[str] = ()) -> list[Piece]:
    """Return what :func:`encode` would join; of large arrays the memory itself, not a copy."""
    found = _pieces(arrays, half=half, idle=idle)
    return found if sum(map(len, found)) > _JOINED else [b"".join(found)]


def _pieces(arrays: Arrays, *, half: bool, idle: Collection[str]) -> list[Piece]:
    zeros = {n: a for n in idle if not _bits(a := arrays[n]).any()}
    stored = {name: array for name, array in arrays.items() if name not in zeros}
    narrowed: dict[str, str] = {}
    for name, array in tuple(stored.items()):
        if half and is_parameter(name, array) and array.dtype.itemsize > 2:
            small = _narrow(array)
            if small is not None:
                stored[name], narrowed[name] = small, array.dtype.name
    if zeros:
        shapes = {name: [array.dtype.str, array.shape] for name, array in zeros.items()}
        layout = {"names": list(arrays), "narrowed": narrowed, "zeros": shapes}
        return pieces(stored, {_LAYOUT: json.dumps(layout)})
    told = {_LAYOUT: _layout(tuple(arrays), tuple(narrowed.items()))}
    return pieces(stored, told, again=True)


@lru_cache(maxsize=64)
def _layout(names: tuple[str, ...], narrowed: tuple[tuple[str, str], ...]) -> str:
    return json.dumps({"names": list(names), "narrowed": dict(narrowed)})


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _narrow(array: Array) -> Array | None:
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    return small if np.isfinite(small).all() else None


def decode(data: Piece) -> Arrays:
    """Return the arrays that :func:`encode` wrote, in their order and dtypes, free to change.

    They lie in the memory they are read from; that of bytes, which nobody may change, is copied.
    """
    own = bytearray(data) if memoryview(data).readonly else data
    stored, told = unpacked_in_place(own)
    layout = json.loads(told[_LAYOUT])
    for name, (dtype, shape) in layout.get("zeros", {}).items():
        stored[name] = np.zeros(shape, np.dtype(dtype).newbyteorder("<"))
    return {
        name: stored[name].astype(layout["narrowed"].get(name, stored[name].dtype), copy=False)
        for name in layout["names"]
    }


class Blobs(ABC):
    """Immutable named bytes; a batch of them appears whole or not at all."""

    @abstractmethod
    def write(self, batch: str, name: str, data: Sequence[Piece]) -> None:
        """Stage bytes, given in pieces, in a batch that is not published yet."""

    @abstractmethod
    def staged(self, batch: str, name: str) -> Piece:
        """Return bytes staged before."""

    @abstractmethod
    def drop(self, batch: str, name: str) -> None:
        """Remove staged bytes."""

    @abstractmethod
    def publish(self, batch: str) -> None:
        """Let a staged batch appear under its name, whole."""

    @abstractmethod
    def discard(self, batch: str) -> None:
        """Forget a staged batch; nothing happens if there is none."""

    @abstractmethod
    def read(self, path: str, tray: Tray | None = None) -> Piece:
        """Return published bytes, the caller's own if they can be changed; many lie in the tray.

        FileNotFoundError if there are none.
        """

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Delete published or left-over bytes, and folders that become empty."""

    @abstractmethod
    def batches(self) -> list[str]:
        """Return the names of all batches, published or left over."""

    @abstractmethod
    def paths(self, batch: str) -> list[str]:
        """Return everything there is of a batch, as :meth:`read` takes it."""

    def take(self, batch: str, name: str, source: Blobs, path: str) -> None:
        """Stage the bytes of another store: a hard link where possible, else a copy."""
        self.write(batch, name, [source.read(path)])

    def origin(self, path: str) -> tuple[Blobs, str]:
        """Return where published bytes really lie: here, or where they are borrowed from."""
        return self, path


class _Memory(Blobs):
    """Blobs in memory, as the same bytes that a folder would hold."""

    def __init__(self) -> None:
        self._staged: dict[str, dict[str, bytes]] = {}
        self._published: dict[str, dict[str, bytes]] = {}  # batch -> name -> bytes
        self._borrowed: dict[str, tuple[Blobs, str]] = {}

    def borrow(self, source: Blobs, path: str) -> None:
        """Have what another store has published under the same path, for as long as it does."""
        batch, _, name = path.partition("/")
        self._published.setdefault(batch, {})[name] = b""
        self._borrowed[path] = source.origin(path)

    def origin(self, path: str) -> tuple[Blobs, str]:
        return self._borrowed.get(path, (self, path))

    def write(self, batch: str, name: str, data: Sequence[Piece]) -> None:
        self._staged.setdefault(batch, {})[name] = b"".join(data)
        self._borrowed.pop(f"{batch}/{name}", None)

    def take(self, batch: str, name: str, source: Blobs, path: str) -> None:
        lender, there = source.origin(path)
        if lender is source:
            super().take(batch, name, source, path)
            return
        self._staged.setdefault(batch, {})[name] = b""
        self._borrowed[f"{batch}/{name}"] = lender, there

    def staged(self, batch: str, name: str) -> bytes:
        return self._staged[batch][name]

    def drop(self, batch: str, name: str) -> None:
        del self._staged[batch][name]

    def publish(self, batch: str) -> None:
        if batch in self._staged:
            self._published.setdefault(batch, {}).update(self._staged.pop(batch))

    def discard(self, batch: str) -> None:
        self._staged.pop(batch, None)

    def read(self, path: str, tray: Tray | None = None) -> Piece:
        if path in self._borrowed:
            source, there = self._borrowed[path]
            return source.read(there, tray)
        batch, _, name = path.partition("/")
        try:
            return self._published[batch][name]
        except KeyError:
            raise FileNotFoundError(path) from None

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            batch, _, name = path.partition("/")
            self._borrowed.pop(path, None)
            self._published.get(batch, {}).pop(name, None)
            if not self._published.get(batch, True):
                del self._published[batch]

    def batches(self) -> list[str]:
        return sorted(self._published)

    def paths(self, batch: str) -> list[str]:
        return sorted(f"{batch}/{name}" for name in self._published.get(batch, {}))


class _Folder(Blobs):
    """Blobs in a folder, one file each."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self._root, self._durable = root, durable

    def write(self, batch: str, name: str, data: Sequence[Piece]) -> None:
        path = f"{self._root}/{batch}.tmp/{name}"  # plain text: there is one for every update
        try:
            try:
                file = open(path, "wb")  # noqa: SIM115
            except FileNotFoundError:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                file = open(path, "wb")  # noqa: SIM115
            with file:
                write_pieces(file, data)
        except OSError as error:
            raise _write_error(Path(path), error, sum(map(len, data))) from error

    def staged(self, batch: str, name: str) -> Piece:
        return _content(self._root / f"{batch}.tmp" / name)

    def drop(self, batch: str, name: str) -> None:
        (self._root / f"{batch}.tmp" / name).unlink()

    def publish(self, batch: str) -> None:
        if not os.path.exists(f"{self._root}/{batch}.tmp"):
            return
        source, target = self._root / f"{batch}.tmp", self._root / batch
        if self._durable:
            self._flush_all(source)
        if target.exists():  # never named by the index, or this batch would have another name
            shutil.rmtree(target)
        source.replace(target)
        if self._durable:
            _flush_folder(self._root)

    def _flush_all(self, source: Path) -> None:
        """Flush a staged batch, files side by side so that the journal is written once for many."""
        walked = [(folder, names) for folder, _, names in os.walk(source)]
        files = [f"{folder}/{name}" for folder, names in walked for name in names]
        shares = [files[i::_FLUSHES] for i in range(min(_FLUSHES, len(files)))]
        try:
            if len(shares) > 1:
                with ThreadPoolExecutor(len(shares)) as pool:
                    list(pool.map(_flush, shares))
            else:
                _flush(files)
            for folder, _ in walked:
                _flush_folder(folder)
        except OSError as error:
            size = sum(os.stat(path).st_size for path in files)
            raise _write_error(source, error, size) from error

    def discard(self, batch: str) -> None:
        staged = f"{self._root}/{batch}.tmp"
        if os.path.isdir(staged):
            shutil.rmtree(staged, ignore_errors=True)

    def read(self, path: str, tray: Tray | None = None) -> Piece:
        return _content(self._root / path, tray)

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            file = self._root / path
            file.unlink(missing_ok=True)
            for folder in file.parents:
                if folder == self._root:
                    break
                with suppress(OSError):  # not empty yet
                    folder.rmdir()

    def batches(self) -> list[str]:
        return sorted(
            entry.name
            for entry in self._root.iterdir()
            if entry.is_dir() and _BATCH.fullmatch(entry.name)
        )

    def paths(self, batch: str) -> list[str]:
        begin = len(str(self._root)) + 1  # plain text: there is one for every update
        return sorted(
            f"{folder[begin:]}/{name}".replace(os.sep, "/")
            for folder, _, names in os.walk(f"{self._root}{os.sep}{batch}")
            for name in names
        )

    def take(self, batch: str, name: str, source: Blobs, path: str) -> None:
        source, path = source.origin(path)
        if isinstance(source, _Folder):
            target = self._root / f"{batch}.tmp" / name
            with suppress(OSError):  # another file system, or one without links: copy
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source._root / path, target)
                return
        super().take(batch, name, source, path)


def in_memory(lender: Blobs | None = None, paths: Iterable[str] = ()) -> Blobs:
    """Return a store of bytes in memory: empty, or with what it borrows of another one.

    What is borrowed is not copied, and there only while the other store has it.
    """
    made = _Memory()
    if lender is not None:
        for path in paths:
            made.borrow(lender, path)
    return made


def in_folder(root: Path, *, durable: bool = True) -> Blobs:
    """Return the store of bytes in a folder that exists; other files there are not touched.

    ``durable``: a published batch survives a loss of power.
    """
    return _Folder(root, durable=durable)


def _content(path: Path, tray: Tray | None = None) -> bytearray | memoryview:
    """Return the bytes of a file, free to change."""
    with path.open("rb", buffering=0) as file:
        return read_piece(file, os.fstat(file.fileno()).st_size, tray=tray)


def _flush(paths: Iterable[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _flush_folder(folder: str | Path) -> None:
    if os.name != "nt":  # folders cannot be opened there
        _flush([str(folder)])

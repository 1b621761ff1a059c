"""Look for the bytes of given arrays wherever a run may have left them.

Windows of 64 bytes are looked for at every offset, so that a copy is found inside any file that
holds it as it is: safetensors, npy, SQLite and its logs, spilled objects. What is compressed,
encrypted or written in another number format is not found.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.runs.folder import RunFolder
from unlearning.errors import ConfigError

__all__ = ["WINDOW", "Found", "Needles", "places", "read_needles", "scan"]

WINDOW = 64  # bytes
_START, _WORD = 2, 8  # bytes
_CHUNK = 8 << 20
_MIN_VARIETY = 8  # different bytes in a window: one of zeros would be found everywhere


@dataclass(frozen=True)
class Found:
    """A place that holds a window.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        Of the first window found in it, in bytes.
    count : int
        Number of windows found in it.
    """

    path: Path
    offset: int
    count: int


class Needles:
    """The windows to look for.

    Parameters
    ----------
    parts : iterable of bytes
        The arrays' bytes; each is cut into windows of 64 bytes.

    Examples
    --------
    >>> needles = Needles([bytes(range(128))])
    >>> len(needles)
    2
    >>> list(needles.find(b"xx" + bytes(range(128))))
    [2, 66]
    """

    def __init__(self, parts: Iterable[bytes]) -> None:
        windows = {
            part[at : at + WINDOW]
            for part in parts
            for at in range(0, len(part) - WINDOW + 1, WINDOW)
        }
        self._windows = {one for one in windows if len(set(one)) >= _MIN_VARIETY}
        # Each is looked for by the most varied word in it: what lies in memory and in files is
        # zeros for the most part, and so may be the beginning of a window.
        self._words: dict[bytes, set[int]] = {}  # word: where in windows it may lie
        for one in self._windows:
            at = max(range(0, WINDOW - _WORD + 1, 4), key=lambda k: len(set(one[k : k + _WORD])))
            self._words.setdefault(one[at : at + _WORD], set()).add(at)
        joined = b"".join(self._words)
        self._sorted = np.sort(np.frombuffer(joined, np.uint64))
        # Few places begin as a word does, even by two bytes: the rest is looked at no further.
        self._starts = np.zeros(1 << 16, np.bool_)
        self._starts[np.frombuffer(joined, np.uint16)[:: _WORD // _START]] = True

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, data: bytes) -> Iterator[int]:
        """Yield where a window begins in some bytes, in order."""
        if len(data) < WINDOW or not np.frombuffer(data, np.uint8).any():
            return
        windows = {
            place - at
            for place in self._places(data)
            for at in self._words[data[place : place + _WORD]]
            if place >= at
        }
        yield from (at for at in sorted(windows) if data[at : at + WINDOW] in self._windows)

    def _places(self, data: bytes) -> list[int]:
        """Return where one of the words lies."""
        last = len(data) - _WORD + 1
        alike = [
            np.flatnonzero(self._starts.take(np.frombuffer(data, np.uint16, count, offset)))
            * _START
            + offset
            for offset in range(_START)
            if (count := (last - offset + 1) // _START)
        ]
        at = np.concatenate(alike)
        words: NDArray[np.uint64] = np.ndarray((last,), np.uint64, data, strides=(1,))[at]
        near = np.minimum(np.searchsorted(self._sorted, words), len(self._sorted) - 1)
        found: list[int] = at[self._sorted[near] == words].tolist()
        return found


def read_needles(path: Path) -> Needles:
    """Return the windows of a file: arrays of .npz, .npy or .safetensors, any other as it is.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no window that tells one file from another.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                parts = [np.ascontiguousarray(stored[name]).tobytes() for name in stored.files]
        elif path.suffix == ".npy":
            parts = [np.ascontiguousarray(np.load(path, allow_pickle=False)).tobytes()]
        elif path.suffix == ".safetensors":
            data = path.read_bytes()
            parts = [data[8 + int.from_bytes(data[:8], "little") :]]
        else:
            parts = [path.read_bytes()]
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); give .npz, .npy or .safetensors"
        ) from error
    needles = Needles(parts)
    if not len(needles):
        raise ConfigError(
            f"{path} holds no {WINDOW} bytes in a row that could be told from others; give arrays "
            "with more and other values"
        )
    return needles


def places(run: Path, cache: Path, also: Iterable[Path] = ()) -> list[Path]:
    """Return where a run may leave bytes: its folder, caches, temporary and spill folders."""
    temp = Path(tempfile.gettempdir())
    spilled = [*sorted(temp.glob("ray*")), *sorted(temp.glob("*fedunlearn*"))]
    candidates = [run, cache, *spilled, *_federation(run)]
    if home := os.environ.get("FLWR_HOME"):
        candidates.append(Path(home))
    return [path for path in dict.fromkeys([*candidates, *also]) if path.exists()]


def _federation(run: Path) -> list[Path]:
    """Return the folder of the federation that a run is of: Flower's database and log lie there."""
    try:
        found = json.loads(RunFolder(run).deployment.read_text(encoding="utf-8"))
        return [Path(str(found["folder"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def scan(roots: Iterable[Path], needles: Needles) -> tuple[list[Found], int, int]:
    """Look through every file below some folders.

    Returns
    -------
    found : list of Found
        One entry for each file with a window.
    files, size : int
        How many files and bytes were read. What vanishes or may not be read meanwhile is left out.
    """
    found: list[Found] = []
    files = size = 0
    for path in _files(roots):
        try:
            hits, length = _look(path, needles)
        except OSError:
            continue
        files, size = files + 1, size + length
        if hits:
            found.append(Found(path, hits[0], len(hits)))
    return found, files, size


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        inside = [root] if root.is_file() else sorted(root.rglob("*"))
        yield from (path for path in inside if path.is_file() and not path.is_symlink())


def _look(path: Path, needles: Needles) -> tuple[list[int], int]:
    """Return where windows begin in a file, and its length; chunks overlap by a window."""
    hits: set[int] = set()
    begin, rest = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            data = rest + chunk
            hits.update(begin + at for at in needles.find(data))
            keep = min(len(data), WINDOW - 1)
            begin, rest = begin + len(data) - keep, data[len(data) - keep :]
    return sorted(hits), begin + len(rest)

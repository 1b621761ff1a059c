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
_WORD = 8
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
        heads = [one[:_WORD] for one in self._windows]
        self._heads = np.unique(np.frombuffer(b"".join(heads), np.uint64))

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, data: bytes) -> Iterator[int]:
        """Yield where a window begins in some bytes, in order."""
        if len(data) < WINDOW:
            return
        hits: list[int] = []
        for shift in range(_WORD):
            usable = (len(data) - shift) // _WORD * _WORD
            if usable <= 0:
                continue
            words = np.frombuffer(data, np.uint64, usable // _WORD, offset=shift)
            hits += (np.flatnonzero(self._are_heads(words)) * _WORD + shift).tolist()
        for at in sorted(hits):
            if data[at : at + WINDOW] in self._windows:
                yield at

    def _are_heads(self, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        at = np.searchsorted(self._heads, words)
        known: NDArray[np.bool_] = self._heads[np.minimum(at, len(self._heads) - 1)] == words
        return known


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

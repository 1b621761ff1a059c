"""A history from elsewhere: rounds of a federation that another system trained, as npz files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unlearning.arrays import Arrays, apply_update, mismatch, weighted_mean
from unlearning.errors import HistoryError
from unlearning.records.history import History
from unlearning.records.kept import COLUMNS

__all__ = ["FINAL", "import_rounds"]

FINAL = "final.npz"

_ROUND = re.compile(r"round-(\d+)\.npz")


def import_rounds(source: Path, root: Path) -> Arrays:
    """Record the rounds in a folder as a history of this library; return the model after them.

    Parameters
    ----------
    source : Path
        Holds ``round-1.npz``, ``round-2.npz`` and so on, without a gap. Each has the model at the
        start of the round as ``global/NAME``, and per client that took part ``update/CLIENT/NAME``
        (its local model minus that one) and ``examples/CLIENT`` (its weight). ``final.npz`` with
        ``global/NAME`` is the model after the last round; without it that is the mean of the last
        updates by weight, added to the last model.
    root : Path
        The folder to make.

    Raises
    ------
    HistoryError
        If a file is missing, damaged, or does not fit the first round's model. ``root`` is then
        not there.
    """
    numbers = _numbers(source)
    if root.exists() and any(root.iterdir()):
        raise HistoryError(f"{root} is not empty; name a folder that is not there yet")
    history = History(root, keep=COLUMNS)
    try:
        final: Arrays = {}
        like: Arrays = {}
        for number, path in numbers.items():
            start, updates, weights = _read(path)
            like = like or start
            _fit(like, start, f"{path}: its model")
            if number == 1:
                history.start(start)
            with history.record(number, start) as entry:
                for client, update in sorted(updates.items()):
                    _fit(like, update, f"{path}: the update of client {client}")
                    entry.add(client, weights[client], update)
            terms = ((weights[client], update) for client, update in sorted(updates.items()))
            final = apply_update(start, weighted_mean(terms))
        if (source / FINAL).is_file():
            final = _read(source / FINAL)[0]
            _fit(like, final, f"{source / FINAL}: its model")
    except BaseException:
        history.destroy()
        raise
    history.close()
    return final


def _numbers(source: Path) -> dict[int, Path]:
    """Return the files of the rounds, in order."""
    if not source.is_dir():
        raise HistoryError(f"{source} is no folder; name the one that holds round-1.npz and so on")
    found = {
        int(match[1]): path for path in source.iterdir() if (match := _ROUND.fullmatch(path.name))
    }
    if sorted(found) != list(range(1, len(found) + 1)) or not found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise HistoryError(
            f"{source} must hold round-1.npz, round-2.npz and so on without a gap; found: {there}"
        )
    return dict(sorted(found.items()))


def _read(path: Path) -> tuple[Arrays, dict[int, Arrays], dict[int, int]]:
    """Return the model, updates by client, and weights by client."""
    start: Arrays = {}
    updates: dict[int, Arrays] = {}
    weights: dict[int, int] = {}
    for key, array in _arrays(path):
        kind, _, rest = key.partition("/")
        if not np.all(np.isfinite(array)):
            raise HistoryError(f"{path}: {key} is not finite; leave out what is damaged")
        if kind == "global" and rest:
            start[rest] = array
            continue
        client, _, name = rest.partition("/")
        if kind == "update" and client.isdecimal() and name:
            updates.setdefault(int(client), {})[name] = array
        elif kind == "examples" and client.isdecimal() and array.size == 1 and array.item() >= 1:
            weights[int(client)] = int(array.item())
        else:
            raise HistoryError(
                f"{path}: {key!r} has no place here; keys are global/NAME, update/CLIENT/NAME and "
                "examples/CLIENT, a whole number from 1"
            )
    if lonely := sorted(updates.keys() ^ weights.keys()):
        raise HistoryError(f"{path}: client {lonely[0]} needs both update/ and examples/")
    if not start:
        raise HistoryError(f"{path} holds no model; add it as global/NAME")
    if path.name != FINAL and not updates:
        raise HistoryError(f"{path} holds no update; add them as update/CLIENT/NAME")
    return start, updates, weights


def _arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield numeric arrays; what would have to be unpickled is refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                array = file[key]
                if array.dtype.kind not in "fiub":
                    raise ValueError(f"{key} is no array of numbers")
                yield key, array
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        said = str(error).splitlines()[0]
        raise HistoryError(f"{path} cannot be read ({said}); write it with numpy.savez") from error


def _fit(like: Arrays, arrays: Arrays, what: str) -> None:
    if problem := mismatch(like, arrays):
        raise HistoryError(f"{what} is not like the model of round 1: {problem}")

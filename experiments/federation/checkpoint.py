"""From where a killed run goes on: moments of learning and serving, and finished strategies.

A moment is written before the history's own commit of a round, and before anything is deleted for
a request, and names the state of the history that it belongs to. After a crash the history decides
which of the last moments counts. What no history backs any more is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.federation.party import Failure, Party
from experiments.runs.details import (
    Answer,
    FeatureMeasure,
    Point,
    Refused,
    TaskMeasure,
    TextMeasure,
)
from experiments.runs.keeping import Keeper, KeepingError
from strategies.federation import Moment
from unlearning.cost import Cost
from unlearning.errors import HistoryError
from unlearning.evaluation.scorecard import Outputs, Predictions, Triggered
from unlearning.evaluation.tally import Tally
from unlearning.records.files import write_atomically
from unlearning.records.ring import Ring, key_id_of
from unlearning.told import Told

__all__ = ["Checkpoints", "Outcome", "Outcomes", "Saved"]

_MOMENT, _TOLD = "moment", "told"  # endings of files, and what is bound to their bytes
_POINTS = "points.jsonl"
_HEAD = 64  # bytes that tell the key
_KEPT = 2  # the one before is the last whose round is surely recorded


@dataclass(frozen=True)
class Saved:
    """What is kept beside a moment.

    Parameters
    ----------
    moment : Moment
        Of the federation.
    points : sequence of Point
        The timeline so far.
    done : int
        Rounds done, for the progress.
    originals : tuple of Party
        The model before the first request: what it says, without its arrays.
    read : tuple of int
        Bytes of the history read by the strategy, per request.
    answers : tuple of Answer
        What the model before each request said of it.
    """

    moment: Moment
    points: Sequence[Point] = ()
    done: int = 0
    originals: tuple[Party, ...] = ()
    read: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class _Told:
    """What was told of the requests served so far."""

    originals: tuple[Party, ...] = ()
    read: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int]:
        """How much it is; nothing of it ever changes."""
        return len(self.originals), len(self.read), len(self.answers)


@dataclass(frozen=True)
class _Stop:
    """What the file of a moment holds: the moment, and how much of the other files is its."""

    moment: Moment
    points: int
    done: int
    told: int  # the number of what was told by then; 0: nothing


_OUTCOMES = (
    Party, Failure, Refused, Answer, TaskMeasure, FeatureMeasure, TextMeasure, Point, Cost,
    Outputs, Predictions, Triggered, Tally, Told,
)  # fmt: skip
_KEEPER = Keeper([_Stop, _Told, Moment, *_OUTCOMES])


class Checkpoints:
    """The last moments of one federation, in a folder.

    What is written after a round does not grow with the rounds before it: points of the timeline
    are appended to one file, and what was told of requests is written when a request is served.

    Parameters
    ----------
    root : Path or None
        Made when the first moment is written; None: nothing is kept.
    homes : Path or None
        What clients keep, copied beside every moment; None: nothing that training changes. It is
        the clients' own and never encrypted here.
    ring : Ring or None
        Encrypts moments and what was told, each with a key of its own, which goes with the file.
        Points, which are measures alone, are not encrypted.
    """

    def __init__(
        self, root: Path | None, homes: Path | None = None, ring: Ring | None = None
    ) -> None:
        self._root, self._homes, self._ring = root, homes, ring
        self._number = max(self._numbers(), default=0)
        self._points = 0  # how many are in the file
        self._told = _Told()
        self._told_at: dict[int, int] = {}  # moment -> the number of what was told by then

    def save(self, saved: Saved, *, durable: bool = False) -> None:
        """Write a moment; of those before it the last stays."""
        if self._root is None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        number = self._number + 1
        if self._homes is not None and self._homes.exists():
            # Whoever was killed before its moment was written left a copy, whole or half made.
            shutil.rmtree(self._copy(number), ignore_errors=True)
            shutil.copytree(self._homes, self._copy(number), copy_function=_link)
        self._append(saved.points, durable=durable)
        told = _Told(saved.originals, saved.read, saved.answers)
        told_at = self._told_at.get(self._number, 0)
        if told.counts != self._told.counts:
            told_at = number
            self._write(self._told_path(number), told, _TOLD, durable=durable)
        stop = _Stop(saved.moment, len(saved.points), saved.done, told_at)
        self._write(self._path(number), stop, _MOMENT, durable=durable)
        # Only now: what could not be written is written with the next moment.
        self._number, self._told, self._told_at[number] = number, told, told_at
        for number in self._numbers():
            if number <= self._number - _KEPT:
                self._remove(number)
        self._sweep()

    def find(self, mark: tuple[int, tuple[str, ...]]) -> Saved | None:
        """Return the latest moment that belongs to a state of the history, and drop all others.

        What clients had kept then is put back.
        """
        for number in sorted(self._numbers(), reverse=True):
            try:
                stop: _Stop = self._read(self._path(number), _MOMENT)
                if (stop.moment.rounds, tuple(stop.moment.served)) != mark:
                    continue
                told = self._read(self._told_path(stop.told), _TOLD) if stop.told else _Told()
                points = self._first_points(stop.points)
            except (OSError, ValueError, KeepingError, HistoryError):
                continue  # half written when the power went, or its key is gone
            for other in self._numbers():
                if other != number:
                    self._remove(other)
            self._number, self._told, self._told_at = number, told, {number: stop.told}
            self._sweep()
            if self._homes is not None and self._copy(number).exists():
                shutil.rmtree(self._homes, ignore_errors=True)
                shutil.copytree(self._copy(number), self._homes, copy_function=_link)
            return Saved(stop.moment, points, stop.done, told.originals, told.read, told.answers)
        return None

    def settle(self) -> None:
        """Remove all moments but the last: they rest on what was deleted."""
        for number in self._numbers():
            if number != self._number:
                self._remove(number)
        self._sweep()

    # Inside ---------------------------------------------------------------------------------

    def _append(self, points: Sequence[Point], *, durable: bool) -> None:
        """Add those points to the file that are not in it; what was lost is written anew."""
        path = self._place / _POINTS
        known, self._points = self._points, 0  # half of them written: all are, next time
        lines = [f"{point.model_dump_json()}\n" for point in points[known:]]
        if not known:
            write_atomically(path, "".join(lines).encode(), durable=durable)
        elif lines:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        self._points = len(points)

    def _first_points(self, count: int) -> tuple[Point, ...]:
        """Return so many points, and cut off what came after them."""
        path = self._place / _POINTS
        lines = path.read_text(encoding="utf-8").splitlines() if count else []
        if len(lines) < count:
            raise KeepingError(f"{path} ends early")
        found = tuple(Point.model_validate_json(line) for line in lines[:count])
        if len(lines) > count:
            text = "".join(f"{line}\n" for line in lines[:count])
            write_atomically(path, text.encode(), durable=False)
        self._points = count
        return found

    def _write(self, path: Path, value: object, kind: str, *, durable: bool) -> None:
        data = _KEEPER.to_bytes(value)
        if self._ring is not None:
            data = self._ring.lock(data, None, kind)
        write_atomically(path, data, durable=durable)

    def _read(self, path: Path, kind: str) -> Any:
        data = path.read_bytes()
        return _KEEPER.from_bytes(data if self._ring is None else self._ring.unlock(data, kind))

    def _sweep(self) -> None:
        """Remove what was told, and what clients kept, where no moment that is left has it."""
        kept = set(self._told_at.values())
        for path in self._place.glob(f"*.{_TOLD}"):
            if int(path.stem) not in kept:
                self._drop(path)
        numbers = set(self._numbers())
        for copy in self._place.glob("*.homes"):
            if int(copy.stem) not in numbers:
                shutil.rmtree(copy, ignore_errors=True)

    def _numbers(self) -> list[int]:
        found = () if self._root is None else self._root.glob(f"*.{_MOMENT}")
        return [int(path.stem) for path in found]

    def _path(self, number: int) -> Path:
        return self._place / f"{number:08d}.{_MOMENT}"

    def _told_path(self, number: int) -> Path:
        return self._place / f"{number:08d}.{_TOLD}"

    def _copy(self, number: int) -> Path:
        return self._place / f"{number:08d}.homes"

    @property
    def _place(self) -> Path:
        if self._root is None:
            raise RuntimeError("nothing is kept here")
        return self._root

    def _remove(self, number: int) -> None:
        self._told_at.pop(number, None)
        self._drop(self._path(number))
        shutil.rmtree(self._copy(number), ignore_errors=True)

    def _drop(self, path: Path) -> None:
        """Remove a file, and the key that it is encrypted with."""
        if self._ring is not None:
            with suppress(FileNotFoundError), path.open("rb") as file:
                locked = key_id_of(file.read(_HEAD))
                self._ring.destroy(() if locked is None else (locked,))
        path.unlink(missing_ok=True)


def _link(source: str, target: str) -> None:
    """Link a file, which is only ever replaced whole; copy it where links are not to be had."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


Outcome = Party | Failure | Refused | Answer | TaskMeasure | FeatureMeasure | TextMeasure


class Outcomes:
    """What the strategies of one seed of a comparison left, one file each, in order.

    Parameters
    ----------
    root : Path or None
        Made when the first is written; None: nothing is kept.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def load(self) -> list[Outcome]:
        """Return what is there, up to the first that is missing or damaged."""
        found: list[Outcome] = []
        while self._root is not None and (path := _outcome(self._root, len(found))).exists():
            try:
                found.append(_KEEPER.from_bytes(path.read_bytes()))
            except KeepingError:
                break
        return found

    def add(self, place: int, outcome: Outcome) -> None:
        """Write one."""
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
            write_atomically(_outcome(self._root, place), _KEEPER.to_bytes(outcome))

    @property
    def is_complete(self) -> bool:
        """Whether the seed was finished."""
        return self._root is not None and (self._root / _COMPLETE).exists()

    def complete(self) -> None:
        """Note that the seed is finished."""
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
            write_atomically(self._root / _COMPLETE, b"")


_COMPLETE = "complete"


def _outcome(root: Path, place: int) -> Path:
    return root / f"{place:04d}.outcome"

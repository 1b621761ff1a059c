"""From where a killed run goes on: moments of learning and serving, and finished strategies.

A moment is written before the history's own commit of a round, and before anything is deleted for
a request, and names the state of the history that it belongs to. After a crash the history decides
which of the last moments counts. What no history backs any more is removed.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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

_MOMENT = "moment"  # what is bound to its bytes
_HEAD = 64  # bytes that tell the key
_KEPT = 2  # the one before is the last whose round is surely recorded


@dataclass(frozen=True)
class Saved:
    """What is kept beside a moment.

    Parameters
    ----------
    moment : Moment
        Of the federation.
    points : tuple of Point
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
    points: tuple[Point, ...] = ()
    done: int = 0
    originals: tuple[Party, ...] = ()
    read: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()


_OUTCOMES = (
    Party, Failure, Refused, Answer, TaskMeasure, FeatureMeasure, TextMeasure, Point, Cost,
    Outputs, Predictions, Triggered, Tally, Told,
)  # fmt: skip
_KEEPER = Keeper([Saved, Moment, *_OUTCOMES])


class Checkpoints:
    """The last moments of one federation, in a folder.

    Parameters
    ----------
    root : Path or None
        Made when the first moment is written; None: nothing is kept.
    homes : Path or None
        What clients keep, copied beside every moment; None: nothing that training changes. It is
        the clients' own and never encrypted here.
    ring : Ring or None
        Encrypts every moment with a key of its own, which goes when the moment goes.
    """

    def __init__(
        self, root: Path | None, homes: Path | None = None, ring: Ring | None = None
    ) -> None:
        self._root, self._homes, self._ring = root, homes, ring
        self._number = max(self._numbers(), default=0)

    def save(self, saved: Saved, *, durable: bool = False) -> None:
        """Write a moment; of those before it the last stays."""
        if self._root is None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        self._number += 1
        if self._homes is not None and self._homes.exists():
            shutil.copytree(self._homes, self._copy(self._number), copy_function=_link)
        data = _KEEPER.to_bytes(saved)
        if self._ring is not None:
            data = self._ring.lock(data, None, _MOMENT)
        write_atomically(self._path(self._number), data, durable=durable)
        for number in self._numbers():
            if number <= self._number - _KEPT:
                self._remove(number)

    def find(self, mark: tuple[int, tuple[str, ...]]) -> Saved | None:
        """Return the latest moment that belongs to a state of the history, and drop all others.

        What clients had kept then is put back.
        """
        for number in sorted(self._numbers(), reverse=True):
            try:
                data = self._path(number).read_bytes()
                data = data if self._ring is None else self._ring.unlock(data, _MOMENT)
                saved: Saved = _KEEPER.from_bytes(data)
            except (OSError, KeepingError, HistoryError):
                continue  # half written when the power went, or its key is gone
            if (saved.moment.rounds, tuple(saved.moment.served)) != mark:
                continue
            for other in self._numbers():
                if other != number:
                    self._remove(other)
            self._number = number
            if self._homes is not None and self._copy(number).exists():
                shutil.rmtree(self._homes, ignore_errors=True)
                shutil.copytree(self._copy(number), self._homes, copy_function=_link)
            return saved
        return None

    def settle(self) -> None:
        """Remove all moments but the last: they rest on what was deleted."""
        for number in self._numbers():
            if number != self._number:
                self._remove(number)

    def _numbers(self) -> list[int]:
        found = () if self._root is None else self._root.glob("*.moment")
        return [int(path.stem) for path in found]

    def _path(self, number: int) -> Path:
        return self._place / f"{number:08d}.moment"

    def _copy(self, number: int) -> Path:
        return self._place / f"{number:08d}.homes"

    @property
    def _place(self) -> Path:
        if self._root is None:
            raise RuntimeError("nothing is kept here")
        return self._root

    def _remove(self, number: int) -> None:
        if self._ring is not None:
            with suppress(FileNotFoundError), self._path(number).open("rb") as file:
                locked = key_id_of(file.read(_HEAD))
                self._ring.destroy(() if locked is None else (locked,))
        self._path(number).unlink(missing_ok=True)
        shutil.rmtree(self._copy(number), ignore_errors=True)


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

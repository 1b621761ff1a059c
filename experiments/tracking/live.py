"""Pass on what a run tells to the trackers that ``[track]`` names; no tracker ever ends a run."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from experiments.config.schema import TrackConfig
from experiments.runs.progress import Observer, Tick
from experiments.runs.results import ORIGINAL, read_results
from unlearning.errors import ConfigError, FedUnlearnError

__all__ = ["Tracker", "check", "tracked"]

log = logging.getLogger("fedunlearn")

Line = tuple[str, int]  # strategy and seed: a curve of its own


class Tracker(Protocol):
    """What a tracker is told of; ``line`` is a strategy at one seed."""

    def point(self, line: Line, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a line."""

    def result(self, line: Line, values: Mapping[str, float]) -> None:
        """Take the final numbers of a line."""

    def close(self, report: Path | None) -> None:
        """Take the report, if there is one, and write what is not written yet."""


def check(config: TrackConfig) -> None:
    """Refuse trackers that are not installed.

    Raises
    ------
    ConfigError
        If one is missing.
    """
    for name in config.to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"track.to names {name!r}, which is not installed; "
                "pip install 'fedunlearn[track]', or leave it out"
            )


@contextmanager
def tracked(config: TrackConfig, folder: Path, observer: Observer) -> Iterator[Observer]:
    """Tell the trackers of every round while the block runs, and of the results when it ends.

    Parameters
    ----------
    config : TrackConfig
        Which trackers.
    folder : Path
        The run folder; what they write lies below ``track/`` in it.
    observer : Observer
        Told of every tick, too.
    """
    if not config.to:
        yield observer
        return
    crew = _Crew([_made(name, config, folder) for name in config.to])
    steps: dict[Line, int] = {}

    def observe(tick: Tick) -> None:
        if tick.measures:
            label = ORIGINAL if tick.phase == "learn" else tick.strategy
            line = (label, tick.seed)
            learned = steps.get((ORIGINAL, tick.seed), 0)
            is_first = line not in steps
            steps[line] = steps.get(line, 0 if label == ORIGINAL else learned) + 1
            served = {"request_served": 1.0} if is_first and label != ORIGINAL else {}
            crew.each(lambda one: one.point(line, steps[line], {**tick.measures, **served}))
        observer(tick)

    try:
        yield observe
    finally:
        _results(crew, folder)
        report = folder / "report.html"
        crew.each(lambda one: one.close(report if report.is_file() else None))


class _Crew:
    """The trackers that still work: one that fails is left out, with a warning."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def each(self, act: Callable[[Tracker], None]) -> None:
        for one in list(self._trackers):
            try:
                act(one)
            except Exception as error:  # whatever a foreign library may raise
                self._trackers.remove(one)
                log.warning("%s is left out from here on: %s", type(one).__name__, error)


def _results(crew: _Crew, folder: Path) -> None:
    try:
        _, rows = read_results(folder)
    except FedUnlearnError:
        return  # the run ended before it had any
    for row in rows:
        numbers = {**row.metrics, **row.cost}
        values = {name: value for name, value in numbers.items() if value is not None}
        line = (row.strategy, row.seed)
        crew.each(lambda one, line=line, values=values: one.result(line, values))  # type: ignore[misc]


def _made(name: str, config: TrackConfig, folder: Path) -> Tracker:
    from experiments.tracking import trackers

    kinds: dict[str, Callable[[TrackConfig, Path], Tracker]] = {
        "tensorboard": trackers.TensorBoard,
        "mlflow": trackers.MLflow,
        "wandb": trackers.WeightsAndBiases,
    }
    return kinds[name](config, folder)

"""What is seen of a federation while it works: a tick and a point of the timeline per round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from experiments.config.loading import Config, alias_of
from experiments.federation.judge import Judge
from experiments.runs.details import Point
from experiments.runs.points import Points
from experiments.runs.progress import Observer, Tick
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays

__all__ = ["Lookout", "Pace", "first_request", "guess", "last_round"]


class Pace:
    """Counts the rounds of one seed and tells how far the whole command is.

    Parameters
    ----------
    tell : Observer
        Told of every round.
    seed : int
        Of the federation.
    share : (int, int)
        This is federation number ``share[0]`` of ``share[1]``.
    """

    def __init__(self, tell: Observer, seed: int, share: tuple[int, int] = (0, 1)) -> None:
        self._tell, self._seed, self._share = tell, seed, share
        self.done = 0  # rounds, those before an interruption included
        self.expected = 0  # rounds of this seed; a guess, corrected when it was too low

    def step(
        self, name: str, phase: str, server_round: int, measures: Mapping[str, float | None]
    ) -> None:
        """Tell that one more round is done."""
        self.done += 1
        self.expected = max(self.expected, self.done)
        number, of = self._share
        done, total = number * self.expected + self.done, of * self.expected
        seen = {key: value for key, value in measures.items() if value is not None}
        accuracy = seen.get("test_accuracy")
        self._tell(Tick(name, self._seed, phase, server_round, done, total, accuracy, seen))


class Lookout:
    """Watches the rounds of one strategy; :class:`~strategies.federation.Federation` calls it.

    Parameters
    ----------
    name : str
        Alias of the strategy; points of learning are the original's.
    seed : int
        Of the federation.
    step : callable
        :meth:`Pace.step`.
    judge : Judge or None
        Measures after every round; None: nothing is measured and no point is kept.
    position : int
        Rounds that lie before the first one watched.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        step: Callable[[str, str, int, Mapping[str, float | None]], None],
        judge: Judge | None = None,
        position: int = 0,
    ) -> None:
        self._name, self._seed, self._step = name, seed, step
        self._judge, self._position = judge, position
        self._begun = time.perf_counter()
        self.points = Points()

    def take_up(self, points: Sequence[Point], position: int) -> None:
        """Go on after an interruption: what was seen before, and how many rounds that was."""
        self.points, self._position = Points(points), position
        if points:
            self._begun = time.perf_counter() - (points[-1].wall_s or 0.0)

    def __call__(self, phase: str, server_round: int, arrays: Arrays) -> None:
        """Look at the model of a round."""
        self._position += 1
        seen = {} if self._judge is None else self._judge.glance(arrays)
        if seen:
            facts = {
                "strategy": ORIGINAL if phase == "learn" else self._name,
                "seed": self._seed,
                "phase": phase,
                "round": self._position,
                "wall_s": time.perf_counter() - self._begun,
            }
            self.points.append(Point.model_validate({**facts, **seen}))
        self._step(self._name, phase, server_round, seen)


def first_request(config: Config) -> int:
    """Return after how many rounds the first request is served."""
    return min(entry.at_round or config.rounds for entry in config.requests)


def last_round(config: Config) -> int:
    """Return how many rounds there are in all, recovery included."""
    ends = [entry.at_round or config.rounds for entry in config.requests]
    return max([config.rounds, *(end + config.recovery_rounds for end in ends)])


def guess(strategy: UnlearningStrategy, config: Config) -> int:
    """Return about how many rounds of unlearning a strategy takes, for the progress only."""
    known = {RETRAIN: config.rounds, FINE_TUNE: 0}
    name = alias_of(f"{type(strategy).__module__}:{type(strategy).__name__}")
    return known.get(name, config.rounds // 2) * len(config.requests)

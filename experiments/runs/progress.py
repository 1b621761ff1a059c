"""What a run tells while it works: ticks, and how they look on a terminal and elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Observer", "Tick", "lines", "progress"]

_REDRAW_S = 0.2  # least time between two drawings of a notebook's bar


@dataclass(frozen=True)
class Tick:
    """One step forward.

    Parameters
    ----------
    strategy : str
        Alias of the strategy at work.
    seed : int
        Seed of the run this belongs to.
    phase : str
        ``"learn"``, ``"unlearn"``, ``"recover"`` or whatever else takes time (``"start"``).
    server_round : int
        The round just finished, counted from 1; 0 before the first.
    rounds_done, rounds_total : int
        Rounds of the whole command: over all phases, strategies and seeds. The total may be
        corrected on the way.
    accuracy : float or None
        Test accuracy, a fraction, if it was measured.
    measures : mapping of str to float
        Everything that was measured after the round.
    """

    strategy: str
    seed: int
    phase: str
    server_round: int
    rounds_done: int
    rounds_total: int
    accuracy: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


Observer = Callable[[Tick], None]


@contextmanager
def progress(
    console: Console, *, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Observer]:
    """Show ticks while the block runs: a bar on a terminal and in a notebook, else plain lines.

    Parameters
    ----------
    console : rich.console.Console
        Where to show them; its own judgement says whether it is a terminal.
    interval_s : float
        Shortest time between two plain lines of the same phase, in seconds.
    clock : callable
        Monotonic seconds.

    Yields
    ------
    Observer
        To be called with every tick, from any one thread at a time.
    """
    if console.is_jupyter:
        yield _NotebookBar(clock)
    elif console.is_terminal:
        with _bar(console) as observe:
            yield observe
    else:
        yield lines(console, interval_s=interval_s, clock=clock)


def lines(
    console: Console, *, interval_s: float, clock: Callable[[], float] = time.monotonic
) -> Observer:
    """Return an observer that prints plain lines, at most one per ``interval_s`` of each phase."""
    return _Lines(console, interval_s, clock)


class _NotebookBar:
    """One line of a notebook's output with a bar, drawn anew; needs no widgets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        notebook: Any = import_module("IPython.display")
        self._html, self._clock, self._begun = notebook.HTML, clock, clock()
        self._last = float("-inf")
        self._shown = notebook.display(self._html(self._line(None)), display_id=True)

    def __call__(self, tick: Tick) -> None:
        now = self._clock()
        is_last = 0 < tick.rounds_total <= tick.rounds_done
        if now - self._last >= _REDRAW_S or is_last:
            self._last = now
            self._shown.update(self._html(self._line(tick)))

    def _line(self, tick: Tick | None) -> str:
        if tick is None:
            return "<progress></progress> starting"
        left = time_left_s(self._clock() - self._begun, tick.rounds_done, tick.rounds_total)
        ending = "" if left is None else f", {left:.0f} s left"
        return (
            f'<progress max="{max(tick.rounds_total, 1)}" value="{tick.rounds_done}"></progress> '
            f"{tick.rounds_done}/{tick.rounds_total} {escape(describe(tick))}{ending}"
        )


class _Lines:
    """A line per phase, then at most one per ``interval_s``, and one for the last round of all."""

    def __init__(self, console: Console, interval_s: float, clock: Callable[[], float]) -> None:
        self._console = console
        self._interval_s = interval_s
        self._clock = clock
        self._begun: tuple[float, int] | None = None  # when the first round was done, and how many
        self._last_time = float("-inf")
        self._last_phase: tuple[str, int, str] | None = None

    def __call__(self, tick: Tick) -> None:
        now = self._clock()
        phase = (tick.strategy, tick.seed, tick.phase)
        is_due = now - self._last_time >= self._interval_s
        is_last = 0 < tick.rounds_total <= tick.rounds_done
        if not (is_due or is_last or phase != self._last_phase):
            return
        self._last_time, self._last_phase = now, phase
        if self._begun is None and tick.rounds_done:
            self._begun = now, tick.rounds_done  # a start costs what no round costs: it is left out
        since, before = self._begun or (now, tick.rounds_done)
        left = time_left_s(now - since, tick.rounds_done - before, tick.rounds_total - before)
        parts = [
            f"[{tick.rounds_done}/{tick.rounds_total}] {describe(tick)}",
            *([] if left is None else [f"{left:.0f} s left"]),
        ]
        # No markup: square brackets and names are to appear as they are; no wrapping: one line.
        self._console.print(
            ", ".join(parts), markup=False, highlight=False, soft_wrap=True, emoji=False
        )


@contextmanager
def _bar(console: Console) -> Iterator[Observer]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column

    columns = (
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left"),
        Remaining(elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=7)),
        # The words give way on a narrow terminal, the times do not.
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("starting", total=1)
        has_begun = False

        def observe(tick: Tick) -> None:
            nonlocal has_begun
            if tick.rounds_done and not has_begun:
                has_begun = True
                shown.reset(task, completed=tick.rounds_done)  # the start costs what no round costs
            shown.update(
                task,
                completed=tick.rounds_done,
                total=max(tick.rounds_total, 1),
                description=describe(tick),
            )

        yield observe


def describe(tick: Tick) -> str:
    """Return a tick in words, without the count of rounds."""
    accuracy = "" if tick.accuracy is None else f", accuracy {tick.accuracy:.3f}"
    where = f", round {tick.server_round}" if tick.server_round else ""
    return f"{tick.strategy} (seed {tick.seed}) {tick.phase}{where}{accuracy}"


def time_left_s(elapsed_s: float, done: int, total: int) -> float | None:
    """Return the seconds left if rounds go on taking what they took; None before the first."""
    return elapsed_s * (total - done) / done if 0 < done <= total else None

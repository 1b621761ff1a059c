import io

import pytest
from rich.console import Console

from experiments.runs.progress import Tick, describe, progress, time_left_s


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def tick(done, *, phase="learn", strategy="original", accuracy=None, total=10):
    return Tick(strategy, 0, phase, done, done, total, accuracy)


def plain(steps):
    """Return the lines printed for (seconds, tick) pairs."""
    clock, out = Clock(), io.StringIO()
    with progress(Console(file=out, width=40), clock=clock) as observe:
        for seconds, step in steps:
            clock.now = seconds
            observe(step)
    return out.getvalue().splitlines()


def test_plain_lines_come_at_most_once_a_second():
    lines = plain([(0.1 * i, tick(i, total=100)) for i in range(25)])
    assert [line.split("]")[0] for line in lines] == ["[0/100", "[10/100", "[20/100"]


def test_a_new_phase_strategy_or_seed_is_told_at_once():
    same = tick(1)
    others = [tick(2, phase="recover"), tick(3, strategy="fed-eraser")]
    seed = Tick("fed-eraser", 1, "learn", 4, 4, 10)
    assert len(plain([(0, same), (0, same), *((0, step) for step in others), (0, seed)])) == 4


def test_the_last_round_is_told_even_within_the_second():
    lines = plain([(0, tick(9)), (0.1, tick(10))])
    assert lines[-1].startswith("[10/10]")


def test_plain_lines_are_not_wrapped_nor_read_as_markup():
    (line,) = plain([(0, tick(3, strategy="[red]a-very-long-strategy-name", accuracy=0.5))])
    assert "[3/10] [red]a-very-long-strategy-name (seed 0) learn, round 3, accuracy 0.500" in line


def test_a_terminal_shows_a_bar_with_phase_round_and_accuracy():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, legacy_windows=False)
    with progress(console) as observe:
        observe(tick(3, accuracy=0.25))
    shown = out.getvalue()
    assert "3/10" in shown
    assert "original (seed 0) learn, round 3, accuracy 0.250" in shown


def test_a_bar_stands_a_total_that_is_not_known_yet():
    with progress(Console(file=io.StringIO(), force_terminal=True)) as observe:
        observe(tick(0, total=0))


@pytest.mark.parametrize(
    ("done", "total", "left"), [(0, 10, None), (5, 10, 20.0), (10, 10, 0.0), (11, 10, None)]
)
def test_time_left_is_what_the_rounds_took_so_far(done, total, left):
    assert time_left_s(20.0, done, total) == left


def test_before_the_first_round_no_round_is_named():
    assert describe(Tick("retrain", 2, "start", 0, 0, 5)) == "retrain (seed 2) start"


def test_the_time_left_leaves_the_start_out():
    """A start of minutes is paid once: counted as a round it made hours of what takes seconds."""
    now, shown = [0.0], io.StringIO()
    console = Console(file=shown, width=200)
    with progress(console, interval_s=0.0, clock=lambda: now[0]) as observe:
        for done, at in ((1, 100.0), (2, 101.0), (3, 102.0)):
            now[0] = at
            observe(tick(done))
    first, *_, last = shown.getvalue().splitlines()
    assert "left" not in first
    assert last.endswith("7 s left")

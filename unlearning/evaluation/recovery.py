"""How far a model falls when it forgets, and how long it takes until it is back.

Definitions of this package, stated here because papers leave them open: which model counts as the
lowest, what "back" means, and what is said where the rounds run out first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Descent", "descent", "level_to_reach"]


@dataclass(frozen=True)
class Descent:
    """What happened to one quality of a model after a request.

    Parameters
    ----------
    lowest : float
        Smallest value after the request, a fraction.
    drop : float
        Value before the request less the lowest one; negative if it only rose.
    rounds_back : int or None
        Rounds from the request until the value is at the level again; 0: it never fell below;
        None: not within the budget.
    budget : int
        Rounds that were looked at.
    """

    lowest: float
    drop: float
    rounds_back: int | None
    budget: int


def level_to_reach(before: float, retrained: float | None) -> float:
    """Return the quality that an unlearned model has to be back at, a fraction.

    The lower one of the model before the request and the retrained model: nobody may be asked for
    more than retraining gives (a forgotten class takes its test examples with it), nor for more
    than there was.

    Parameters
    ----------
    before : float
        Value of the model before the request.
    retrained : float or None
        Final value of the retrained model; None: there is none.
    """
    return before if retrained is None else min(before, retrained)


def descent(before: float, course: Mapping[int, float], level: float, margin: float) -> Descent:
    """Return how deep a quality fell after a request and when it was back.

    Back is the first round, not earlier than that of the lowest value, at which the value is at
    least ``level - margin``.

    Parameters
    ----------
    before : float
        Value before the request, a fraction.
    course : mapping of int to float
        Value after so many rounds since the request. 0 stands for a model that was put into
        service before any round, as that of a strategy that works at the server alone.
    level : float
        As :func:`level_to_reach` gives it.
    margin : float
        What still counts as the level, a fraction from 0.

    Raises
    ------
    ValueError
        If the course is empty, a round lies before the request, or the margin is negative.

    Notes
    -----
    Of several equally low rounds the last one counts: until then the model has not risen. A value
    that never falls below ``level - margin`` is back after 0 rounds, whatever its lowest round.

    Examples
    --------
    From 0.90 down to 0.50, and back within 0.02 of 0.88 after four rounds:

    >>> descent(0.90, {1: 0.60, 2: 0.50, 3: 0.80, 4: 0.87}, level=0.88, margin=0.02)
    Descent(lowest=0.5, drop=0.4, rounds_back=4, budget=4)
    """
    if not course:
        raise ValueError("no value after the request; a course needs one")
    if min(course) < 0:
        raise ValueError(f"round {min(course)} lies before the request; count from 0")
    if margin < 0:
        raise ValueError(f"margin is {margin}; it must be at least 0")
    lowest = min(course.values())
    wanted = level - margin
    budget = max(course)
    if lowest >= wanted:
        return Descent(lowest, before - lowest, 0, budget)
    bottom = max(number for number, value in course.items() if value == lowest)
    back = [number for number, value in course.items() if number >= bottom and value >= wanted]
    return Descent(lowest, before - lowest, min(back, default=None), budget)

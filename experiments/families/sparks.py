"""Small pictures for table cells, as SVG elements: a course over rounds, an interval on a scale.

Lines differ in form as well as in colour; colours are the page's variables, so that the pictures
follow light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

__all__ = ["course", "strip"]

_WIDTH, _HEIGHT, _PAD = 112.0, 34.0, 4.0
_STRIP_WIDTH, _STRIP_HEIGHT = 96.0, 14.0


def course(
    rounds: Sequence[int],
    values: Sequence[float],
    *,
    before: float,
    level: float | None,
    unlearned: int,
    longest: int,
    text: str,
) -> Markup:
    """Return one quality over the rounds since a request.

    Parameters
    ----------
    rounds, values : sequence
        Round since the request and the value after it, fractions 0 to 1.
    before : float
        Value before the request, drawn as a hollow dot at its moment.
    level : float or None
        To be back at, dashed.
    unlearned : int
        Rounds of unlearning, shaded; recovery follows.
    longest : int
        Rounds that the whole width stands for, so that pictures of one table can be compared.
    text : str
        Alternative text.

    Raises
    ------
    ValueError
        If there is no value, or not one per round.
    """
    if not values or len(values) != len(rounds):
        raise ValueError(f"{len(rounds)} rounds with {len(values)} values; give one of each")
    span = max(longest, rounds[-1], 1)

    def x(number: float) -> float:
        return _PAD + (_WIDTH - 2 * _PAD) * number / span

    def y(value: float) -> float:
        return _HEIGHT - _PAD - (_HEIGHT - 2 * _PAD) * min(max(value, 0.0), 1.0)

    points = [(0.0, before), *((float(r), v) for r, v in zip(rounds, values, strict=True))]
    path = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in points)
    low_round, low = min(points, key=lambda point: point[1])
    parts = []
    if unlearned:
        parts.append(
            f'<rect x="{x(0):.1f}" y="0" width="{x(unlearned) - x(0):.1f}" '
            f'height="{_HEIGHT:g}" class="s-shade"/>'
        )
    if level is not None:
        at = y(level)
        parts.append(
            f'<line x1="{_PAD:g}" x2="{_WIDTH - _PAD:g}" y1="{at:.1f}" y2="{at:.1f}" '
            'class="s-level"/>'
        )
    parts.append(f'<polyline points="{path}" class="s-line"/>')
    parts.append(f'<circle cx="{x(0):.1f}" cy="{y(before):.1f}" r="2.4" class="s-before"/>')
    parts.append(f'<circle cx="{x(low_round):.1f}" cy="{y(low):.1f}" r="2.2" class="s-low"/>')
    return _element(_WIDTH, _HEIGHT, parts, text)


def strip(
    mean: float,
    low: float | None,
    high: float | None,
    *,
    start: float,
    end: float,
    marks: Sequence[float] = (),
    text: str,
) -> Markup:
    """Return an interval and its mean on a scale, with marks across it.

    Parameters
    ----------
    mean, low, high : float or None
        What to draw; without an interval the dot alone. What lies beyond the scale is cut off.
    start, end : float
        Of the scale; ``start < end``.
    marks : sequence of float
        Where a boundary lies.
    text : str
        Alternative text.

    Raises
    ------
    ValueError
        If the scale is empty.
    """
    if not start < end:
        raise ValueError(f"the scale goes from {start} to {end}; its end must be larger")

    def x(value: float) -> float:
        inside = min(max((value - start) / (end - start), 0.0), 1.0)
        return _PAD + (_STRIP_WIDTH - 2 * _PAD) * inside

    middle = _STRIP_HEIGHT / 2
    parts = [
        f'<line x1="{_PAD:g}" x2="{_STRIP_WIDTH - _PAD:g}" y1="{middle:g}" y2="{middle:g}" '
        'class="s-axis"/>'
    ]
    parts += [
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_STRIP_HEIGHT:g}" class="s-mark"/>'
        for at in map(x, marks)
    ]
    if low is not None and high is not None:
        parts.append(
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle:g}" y2="{middle:g}" '
            'class="s-range"/>'
        )
    parts.append(f'<circle cx="{x(mean):.1f}" cy="{middle:g}" r="3" class="s-dot"/>')
    return _element(_STRIP_WIDTH, _STRIP_HEIGHT, parts, text)


def _element(width: float, height: float, parts: Sequence[str], text: str) -> Markup:
    return Markup(  # every part is made of numbers; the text is escaped
        f'<svg class="spark" role="img" aria-label="{escape(text)}" viewBox="0 0 {width:g} '
        f'{height:g}" width="{width:g}" height="{height:g}">{"".join(parts)}</svg>'
    )

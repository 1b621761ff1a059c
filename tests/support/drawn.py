"""Pictures of reports that other tests look at: drawn once for every kind of content.

Most of a small comparison is the drawing of its report, and nearly all comparisons of the tests
give the same pictures but for the numbers. What can go wrong in drawing depends on which names,
rounds and values there are, so a picture of content that differs in its numbers alone is not drawn
again. Tests of ``reporting`` draw all of theirs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from pydantic import BaseModel

from experiments.federation import books
from experiments.reporting import cost, pictures, report
from experiments.reporting.svg import collecting

__all__ = ["draw_kinds_once", "kind_of", "once_a_kind"]

Drawing = Callable[..., str | None]
_LOOKED_AT = "tests/experiments/reporting/"  # in what pytest says is running


def kind_of(value: object) -> object:
    """Return what of a picture's content may decide whether it can be drawn: all but the numbers.

    Of a number it is whether it is below, at or above zero, or not finite.
    """
    if isinstance(value, float | np.floating):
        return "number", str(np.sign(value)) if np.isfinite(value) else str(value)
    if isinstance(value, np.ndarray):
        return value.shape, np.isfinite(value).tobytes()
    if isinstance(value, BaseModel):
        return tuple((name, kind_of(entry)) for name, entry in value)
    if is_dataclass(value):
        return tuple((entry.name, kind_of(getattr(value, entry.name))) for entry in fields(value))
    if isinstance(value, Mapping):
        return tuple((name, kind_of(entry)) for name, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(kind_of, value))
    return value


def draw_kinds_once(patch: pytest.MonkeyPatch) -> None:
    """Have every picture of a report drawn once a kind, unless the test that runs looks at it."""
    for owner, name in (
        *((pictures, name) for name in ("attack", "change_map", "differences", "trade_off")),
        (cost, "trade_off"),
        (report, "timeline"),
        (books, "timeline"),
    ):
        patch.setattr(owner, name, once_a_kind(getattr(owner, name)))


def once_a_kind(draw: Drawing) -> Drawing:
    """Return a function that draws content of a kind once, and then gives that picture again."""
    drawn: dict[object, str | None] = {}

    @functools.wraps(draw)
    def draw_or_take(*content: object, **named: object) -> str | None:
        if collecting() or _LOOKED_AT in os.environ.get("PYTEST_CURRENT_TEST", _LOOKED_AT):
            return draw(*content, **named)
        kind = kind_of((content, named))
        if kind not in drawn:
            drawn[kind] = draw(*content, **named)
        return drawn[kind]

    return draw_or_take

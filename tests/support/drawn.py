"""Pictures of reports that other tests look at: drawn once for every kind of content.

Most of a small comparison is the drawing of its report, and nearly all comparisons of the tests
give the same pictures but for the numbers. What can go wrong in drawing depends on which names,
rounds and values there are, so a picture of content that differs in its numbers alone is not drawn
again: one draws for all rounds, clients and seeds of their number. Tests of ``reporting`` draw all
of theirs.
"""

from __future__ import annotations

import functools
import os
import re
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


def kind_of(content: object) -> object:
    """Return what of a picture's content may decide whether it can be drawn: all but the numbers.

    Of numbers it is whether they are finite, and which signs occur anywhere in the content.
    """
    signs: set[float] = set()
    return _form(content, signs), frozenset(signs)


def _form(value: object, signs: set[float]) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray):
        if isinstance(value, BaseModel):
            value = dict(value)
        elif is_dataclass(value):
            value = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        if isinstance(value, Mapping):
            return tuple((name, _form(entry, signs)) for name, entry in value.items())
        if isinstance(value, Sequence) and not isinstance(value, str):
            forms = [_form(entry, signs) for entry in value]
            return _points(len(forms)), frozenset(forms)
        return re.sub(r"\d+", "0", value) if isinstance(value, str) else value
    found = np.asarray(value)
    finite = np.isfinite(found)
    signs.update(np.unique(np.sign(found[finite])).tolist())
    form = frozenset(map(str, np.unique(found[~finite])))
    if not found.shape:
        return form
    return found.shape if found.ndim > 1 else _points(len(found)), form


def _points(count: int) -> int:
    """Return a number that stands for this one: many points of one form draw as three do."""
    return min(count, 3)


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

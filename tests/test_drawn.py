"""What tests save in drawing hides no picture that is of another kind."""

from __future__ import annotations

import numpy as np

from tests.support.drawn import once_a_kind


def test_a_picture_is_drawn_again_where_more_than_its_numbers_differ() -> None:
    drawn: list[object] = []
    draw = once_a_kind(lambda *content: f"picture {drawn.append(content)}")
    for same in ([1.5, "a"], [2.5, "a"]):
        draw(same)
    assert len(drawn) == 1
    others = [[-1.5, "a"], [0.0, "a"], [np.nan, "a"], [np.inf, "a"], [None, "a"], [1.5, "b"]]
    others += [[1.5], [1.5, "a", 1.5], [np.array([1.5, np.nan])], [np.array([1.5, 2.5])]]
    for other in others:
        draw(other)
    assert len(drawn) == 1 + len(others)

"""Points of a timeline are kept small and come back as they were."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.runs.details import Point
from experiments.runs.points import Points

measure = st.none() | st.floats(allow_nan=False, allow_infinity=False)
point = st.builds(
    Point,
    strategy=st.sampled_from(["original", "fed-eraser", "my_module:Own"]),
    seed=st.integers(0, 2**63 - 1),
    phase=st.sampled_from(["learn", "unlearn", "recover"]),
    round=st.integers(0, 2**40),
    test_accuracy=measure,
    retain_accuracy=measure,
    forget_accuracy=measure,
    backdoor_success=measure,
    wall_s=measure,
)


@given(st.lists(point, max_size=8), st.lists(point, max_size=8))
def test_they_come_back_as_they_were(first: list[Point], later: list[Point]) -> None:
    points = Points(first)
    before = points.so_far()
    for one in later:
        points.append(one)
    assert list(points) == [*first, *later]
    assert points[1:] == (*first, *later)[1:]
    assert list(before) == first
    assert list(before.so_far()) == first
    if first:
        assert before[-1] == first[-1]
    with pytest.raises(IndexError):
        before[len(first)]
    with pytest.raises(TypeError, match="do not grow"):
        before.append(Point(strategy="a", seed=0, phase="learn", round=1))


def test_ten_thousand_rounds_take_less_than_a_megabyte() -> None:
    one = Point(strategy="original", seed=0, phase="learn", round=1, test_accuracy=0.5, wall_s=1.5)
    tracemalloc.start()
    points = Points(one for _ in range(10_000))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(points) == 10_000
    assert taken < 1e6

"""How deep a model falls when it forgets, and when it is back: worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning.evaluation.recovery import Descent, descent, level_to_reach

COURSE = {1: 0.30, 2: 0.20, 3: 0.60, 4: 0.79, 5: 0.85}


def test_a_fall_and_a_return():
    """0.90 before, 0.20 at the bottom; 0.80 - 0.02 = 0.78 is reached in round 4."""
    found = descent(0.90, COURSE, 0.80, 0.02)
    assert found == Descent(lowest=0.20, drop=pytest.approx(0.70), rounds_back=4, budget=5)


def test_without_the_margin_it_takes_a_round_more():
    assert descent(0.90, COURSE, 0.80, 0.0).rounds_back == 5


def test_rounds_that_run_out_are_no_number():
    found = descent(0.90, COURSE, 0.90, 0.02)
    assert found.rounds_back is None
    assert found.budget == 5


def test_what_never_fell_is_back_at_once_whatever_its_lowest_round():
    found = descent(0.90, {0: 0.89, 1: 0.895, 2: 0.885}, 0.90, 0.02)
    assert found.rounds_back == 0
    assert found.drop == pytest.approx(0.015)


def test_a_high_value_before_the_bottom_is_not_back():
    """Round 1 is still fine; the fall comes in round 2, so it is back in round 3."""
    assert descent(0.9, {1: 0.9, 2: 0.4, 3: 0.9}, 0.9, 0.02).rounds_back == 3


def test_of_equal_bottoms_the_last_counts():
    assert descent(0.9, {1: 0.4, 2: 0.9, 3: 0.4, 4: 0.9}, 0.9, 0.02).rounds_back == 4


def test_the_level_is_the_lower_of_before_and_retrained():
    assert level_to_reach(0.9, 0.8) == 0.8
    assert level_to_reach(0.8, 0.9) == 0.8
    assert level_to_reach(0.8, None) == 0.8


@pytest.mark.parametrize(
    ("course", "margin", "words"),
    [({}, 0.1, "no value"), ({-1: 0.5}, 0.1, "before the request"), ({1: 0.5}, -0.1, "margin")],
)
def test_nonsense_is_refused(course, margin, words):
    with pytest.raises(ValueError, match=words):
        descent(0.9, course, 0.9, margin)


@given(
    st.dictionaries(st.integers(0, 30), st.floats(0, 1), min_size=1),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_back_means_at_the_level_and_a_wider_margin_is_never_later(course, level, margin):
    found = descent(0.5, course, level, margin)
    wider = descent(0.5, course, level, margin + 0.1)
    assert found.lowest == min(course.values())
    if found.rounds_back:
        assert course[found.rounds_back] >= level - margin
    if found.rounds_back is not None:
        assert wider.rounds_back is not None
        assert wider.rounds_back <= found.rounds_back

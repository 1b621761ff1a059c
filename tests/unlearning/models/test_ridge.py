"""Ridge regression from sums: exact in any order (oracle 21)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning.models.ridge import classify, design, factor, inverse, solve, sums, total, woodbury


def _data(size: int = 60, width: int = 5, classes: int = 3):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(size, width))
    return design(x), generator.integers(classes, size=size)


def test_two_points_by_hand():
    """X = [[1, 1], [-2, 1]], y = (0, 1), penalty 1.

    X'X + I = [[6, -1], [-1, 3]], its inverse [[3, 1], [1, 6]] / 17; X'Y = [[1, -2], [1, 1]];
    W = [[4, -5], [7, 4]] / 17.
    """
    rows = design(np.array([[1.0], [-2.0]]))
    found = sums(rows, np.array([0, 1]), 2)
    np.testing.assert_allclose(solve(found, 1.0), np.array([[4, -5], [7, 4]]) / 17, rtol=1e-14)


@settings(max_examples=30)
@given(st.permutations(range(60)), st.integers(1, 55))
def test_deleting_in_any_order_equals_retraining(order, number):
    rows, labels = _data()
    whole = sums(rows, labels, 3)
    for index in order[:number]:
        whole = whole - sums(rows[[index]], labels[[index]], 3)
    left = np.array(order[number:])
    retrained = sums(rows[left], labels[left], 3)
    np.testing.assert_array_equal(whole.counts, retrained.counts)
    np.testing.assert_allclose(solve(whole, 0.5), solve(retrained, 0.5), atol=1e-9)


@pytest.mark.parametrize("removed", [1, 3, 20])
def test_woodbury_equals_refactorisation(removed):
    rows, labels = _data()
    before = inverse(sums(rows, labels, 3), 0.5)
    expected = inverse(sums(rows[removed:], labels[removed:], 3), 0.5)
    for gone in (rows[:removed], factor(rows[:removed])):
        found = woodbury(before, gone)
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_woodbury_declines_where_precision_would_be_lost():
    rows = design(np.array([[1e6, 0.0], [0.0, 1.0]]))
    before = inverse(sums(rows, np.array([0, 1]), 2), 1e-3)
    assert woodbury(before, rows[:1]) is None


def test_a_class_without_examples_is_never_named():
    rows, labels = _data()
    kept = labels != 2
    found = sums(rows[kept], labels[kept], 3)
    probabilities = classify(solve(found, 0.1), found.counts, rows)
    assert (probabilities[:, 2] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_corner_cases():
    rows, labels = _data()
    nothing = sums(rows[:0], labels[:0], 3)
    assert not solve(nothing, 1.0).any()
    np.testing.assert_allclose(classify(solve(nothing, 1.0), nothing.counts, rows), 1 / 3)
    assert total([nothing, nothing]).counts.sum() == 0
    with pytest.raises(ValueError, match="must be positive"):
        solve(nothing, 0.0)

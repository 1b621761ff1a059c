"""Sides drawn from pools: disjoint, complete, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from unlearning.evaluation.controls import null_sides, pairs_of_sides


def test_null_sides_are_disjoint_and_every_model_serves_on_both():
    sides = null_sides(8, 4, 50)
    for left, right in sides:
        assert sorted([*left, *right]) == list(range(8))
    assert all(
        {int(row) for pair in sides for row in pair[side]} == set(range(8)) for side in (0, 1)
    )
    assert all(len({*left, *right}) == 6 for left, right in null_sides(8, 3, 20))


def test_pairs_come_from_their_own_pools_without_repetition():
    for left, right in pairs_of_sides(6, 9, 5, 30):
        assert len(set(left)) == len(set(right)) == 5
        assert max(left) < 6
        assert max(right) < 9
    assert len({tuple(left) for left, _ in pairs_of_sides(6, 9, 5, 30)}) > 10


def test_the_seed_decides():
    for draw in (lambda seed: null_sides(8, 4, 3, seed), lambda s: pairs_of_sides(8, 8, 4, 3, s)):
        assert np.array_equal(draw(1), draw(1))
        assert not np.array_equal(draw(1), draw(2))


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="7 models"):
        null_sides(7, 4, 1)
    with pytest.raises(ValueError, match="3 and 9"):
        pairs_of_sides(3, 9, 4, 1)
    with pytest.raises(ValueError, match="sides of 0"):
        null_sides(7, 0, 1)

"""The swap game: what the halves differ in by themselves must cancel."""

from __future__ import annotations

import numpy as np
import pytest

from unlearning.evaluation.swap import Roles, swap_advantage, swap_quality


def test_an_attacker_that_knows_the_data_alone_wins_nothing():
    """It says yes to every even digit: 80 % of one half, 30 % of the other, in both runs."""
    first, second = np.repeat([1, 0], [8, 2]), np.repeat([1, 0], [3, 7])
    run, swapped = Roles(first, second), Roles(second, first)
    assert swap_advantage(run, swapped) == pytest.approx(0.0)
    alone = Roles(first, first)
    assert swap_advantage(run, alone) == pytest.approx(0.25)


def test_the_advantage_is_the_mean_excess_of_both_runs():
    """Excess .5 in one run and .3 in the other: .4."""
    run = Roles([1, 1, 1, 0], [1, 0, 0, 0])
    swapped = Roles(np.repeat([1, 0], [6, 4]), np.repeat([1, 0], [3, 7]))
    assert swap_advantage(run, swapped) == pytest.approx((0.5 + 0.3) / 2)
    reversed_ = Roles(run.unseen, run.forget), Roles(swapped.unseen, swapped.forget)
    assert swap_advantage(*reversed_) == pytest.approx(0.4)


def test_the_quality_is_held_against_the_best_attacker():
    perfect = Roles([1, 1], [0, 0])
    blind = Roles([1, 0], [0, 1])
    assert swap_quality({"a": (blind, blind), "b": (perfect, perfect)}) == 0.0
    assert swap_quality({"a": (blind, blind)}) == 1.0
    with pytest.raises(ValueError, match="no attacker"):
        swap_quality({})


@pytest.mark.parametrize("wrong", [[], [2], [-0.1], [float("nan")]])
def test_what_is_no_decision_is_refused(wrong):
    with pytest.raises(ValueError, match="decisions"):
        swap_advantage(Roles(wrong, [1]), Roles([1], [1]))

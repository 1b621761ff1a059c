"""A speed-up is quoted only of what forgot."""

from __future__ import annotations

import pytest

from unlearning.evaluation.costs import earned_speedup
from unlearning.evaluation.scorecard import Verdict


def test_the_speedup_is_a_ratio_of_means():
    """Means 20 and 4; the mean of the ratios would be (5 + 15) / 2 = 10."""
    assert earned_speedup([10.0, 30.0], [6.0, 2.0], Verdict.FORGOTTEN) == 5.0
    assert earned_speedup([10.0], [0.0], Verdict.FORGOTTEN) is None


@pytest.mark.parametrize("verdict", [Verdict.NOT_FORGOTTEN, Verdict.INCONCLUSIVE, None])
def test_what_did_not_forget_earns_no_speedup(verdict):
    assert earned_speedup([10.0], [1.0], verdict) is None


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="no cost"):
        earned_speedup([], [1.0], Verdict.FORGOTTEN)

"""A speed-up is quoted only of what forgot."""

from __future__ import annotations

import pytest

from unlearning.cost import Cost
from unlearning.evaluation.costs import Bill, earned_speedup
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


def test_a_bill_holds_the_cost_and_what_readiness_cost():
    cost = Cost(wall_s=2.0, client_rounds=6, client_s=5.0, examples=100, bytes_up=7, bytes_down=8)
    bill = Bill(cost, participants=3, history_bytes=4096, recording_s=0.25)
    found = bill.to_json()
    assert found == {
        **cost.to_json(),
        "participants": 3,
        "history_bytes": 4096,
        "recording_s": 0.25,
        "peak_rss_bytes": None,
    }

"""Gaps to retraining: signed, with their noise; fairness over clients; the marker."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearning.evaluation import gaps

REFERENCES = [
    {"forget": 0.80, "retain": 0.97, "test": 0.90, "marker": None},
    {"forget": 0.84, "retain": 0.95, "test": 0.88, "marker": None},
    {"forget": 0.85, "retain": 0.96, "test": 0.89, "marker": None},
]
CARD = {"forget": 0.95, "retain": 0.90, "test": 0.89, "marker": 0.1, "held_out": None}


def test_gaps_keep_their_sign_and_stand_beside_the_noise():
    found = gaps.gap_vector(CARD, REFERENCES)
    assert list(found) == ["forget", "retain", "test"]
    assert found["forget"].value == pytest.approx(0.95 - 0.83)
    assert found["retain"].value == pytest.approx(-0.06)
    assert found["test"].value == pytest.approx(0.0)
    assert found["forget"].noise == pytest.approx(np.std([0.80, 0.84, 0.85], ddof=1))
    assert found["forget"].n == 3
    assert gaps.average_gap(found) == pytest.approx((0.12 + 0.06 + 0.0) / 3)


def test_the_retrained_model_has_no_gap_to_itself():
    """Oracle 28."""
    itself = gaps.gap_vector(REFERENCES[0], REFERENCES[:1])
    assert gaps.average_gap(itself) == 0.0
    assert itself["forget"].noise is None
    assert gaps.average_gap({}) is None
    with pytest.raises(ValueError, match="no retrained model"):
        gaps.gap_vector(CARD, [])


def test_tow_multiplies_what_is_left_of_one():
    """(1 - .1)(1 - .05)(1 - .02)."""
    found = gaps.tow((0.9, 0.8), (0.90, 0.95), (0.88, 0.90))
    assert found == pytest.approx(0.9 * 0.95 * 0.98)
    assert gaps.tow((1.0, 0.0), (1, 1), (1, 1)) == 0.0
    for wrong in ((1.2, 0.5), (0.5,), (math.nan, 0.5)):
        with pytest.raises(ValueError, match=r"fractions|inhomogeneous"):
            gaps.tow(wrong, (1, 1), (1, 1))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3))
def test_tow_is_symmetric_and_one_only_for_equals(pairs):
    found = gaps.tow(*pairs)
    assert 0 <= found <= 1
    assert found == gaps.tow(*[(b, a) for a, b in pairs])
    assert gaps.tow(*[(a, a) for a, _ in pairs]) == 1.0


def test_fairness_finds_the_client_that_lost_most():
    """Gaps .02, -.03, -.005: one of three lost more than a point."""
    found = gaps.fairness({5: 0.92, 1: 0.87, 3: 0.895}, {1: 0.90, 3: 0.90, 5: 0.90})
    assert (found.worst, found.worst_client) == (pytest.approx(-0.03), 1)
    assert found.sd == pytest.approx(np.std([0.02, -0.03, -0.005], ddof=1))
    assert found.share == pytest.approx(1 / 3)
    assert gaps.fairness({1: 0.5}, {1: 0.5}) == gaps.Fairness(0.0, 1, None, 0.0)
    assert gaps.fairness({1: 0.5, 2: 0.8}, {1: 0.5, 2: 0.9}, margin=0.2).share == 0
    for wrong in ({}, {2: 0.1}):
        with pytest.raises(ValueError, match="need the same"):
            gaps.fairness(wrong, {1: 0.5})


def test_the_marker_is_compared_in_pairs():
    ours, theirs = [0.2, 0.3, 0.1, 0.25], [0.1, 0.1, 0.12, 0.1]
    found = gaps.marker_difference(ours, theirs)
    assert found.mean == pytest.approx(0.1075)
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)

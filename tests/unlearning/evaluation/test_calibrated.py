"""The common scale: its two ends, its straightness, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlearning.evaluation.calibrated import calibrated, scale

RETRAINED, ORIGINAL = [0.48, 0.5, 0.52], [0.88, 0.9, 0.92]


def test_retraining_is_zero_and_doing_nothing_is_one():
    assert calibrated(0.5, RETRAINED, ORIGINAL) == pytest.approx(0.0)
    assert calibrated(0.9, RETRAINED, ORIGINAL) == pytest.approx(1.0)
    assert calibrated(0.6, RETRAINED, ORIGINAL) == pytest.approx(0.25)
    assert calibrated(0.3, RETRAINED, ORIGINAL) == pytest.approx(-0.5)


def test_a_metric_that_falls_has_the_same_scale():
    assert calibrated(0.6, ORIGINAL, RETRAINED) == pytest.approx(0.75)
    line = scale(ORIGINAL, RETRAINED)
    assert line.interval(0.5, 0.6) == pytest.approx((0.75, 1.0))


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.2])
def test_there_is_a_scale_only_where_the_controls_differ(gap):
    generator = np.random.default_rng(4)
    zeros, ones = generator.normal(0, 0.05, 12), generator.normal(gap, 0.08, 12)
    apart = stats.ttest_ind(zeros, ones, equal_var=False).pvalue < 0.05
    assert apart == (gap >= 0.2)
    assert (calibrated(0.1, zeros.tolist(), ones.tolist()) is not None) == apart


def test_the_two_controls_may_scatter_differently():
    """Three wide values against twenty narrow ones: apart by Student's test, not by Welch's."""
    zeros, ones = [-1.0, 0.0, 1.0], [0.95 + i / 200 for i in range(20)]
    assert stats.ttest_ind(zeros, ones).pvalue < 0.001
    assert calibrated(0.5, zeros, ones) is None


def test_no_spread_no_scale():
    assert calibrated(0.1, [0.0], ORIGINAL) is None
    assert calibrated(0.1, [0.0], [1.0, 1.0]) is None
    assert calibrated(0.1, [0.0, 0.0], [0.0, 0.0]) is None
    assert calibrated(0.1, [0.0, np.nan], [1.0, 1.0]) is None
    assert calibrated(0.25, [0.0, 0.0], [1.0, 1.0]) == 0.25

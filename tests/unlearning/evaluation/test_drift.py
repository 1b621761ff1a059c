"""Drift over requests: the slope against numpy's fit, the total against plain differences."""

from __future__ import annotations

import numpy as np
import pytest

from unlearning.evaluation.drift import drift

SERVED = [1, 3, 10]
VALUES = np.array([[0.01, 0.02, 0.09], [0.00, 0.03, 0.07], [0.02, 0.02, 0.10]])


def test_the_slope_is_the_least_squares_one_per_seed():
    found = drift(VALUES, SERVED)
    slopes = [np.polyfit(SERVED, row, 1)[0] for row in VALUES]
    assert found.per_request.mean == pytest.approx(np.mean(slopes))
    assert found.per_request.sd == pytest.approx(np.std(slopes, ddof=1))
    assert found.total.mean == pytest.approx(np.mean([0.08, 0.07, 0.08]))
    assert found.total.low > 0


def test_a_level_without_drift_has_none():
    found = drift([[0.4, 0.4, 0.4], [0.1, 0.1, 0.1]], SERVED)
    assert found.per_request.mean == pytest.approx(0.0, abs=1e-15)
    assert found.total.mean == 0.0


@pytest.mark.parametrize(
    ("values", "served"),
    [([[1.0, 2.0]], [1, 2, 3]), ([[1.0]], [1]), ([1.0, 2.0], [1, 2]), ([[1.0, 2.0]], [3, 1])],
)
def test_what_is_no_sequence_is_refused(values, served):
    with pytest.raises(ValueError, match="need"):
        drift(values, served)

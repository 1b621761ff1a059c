"""Ranks, ROC points and areas beside scikit-learn's and SciPy's, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score, roc_curve

from unlearning.evaluation.ranks import auc, mid_ranks, roc_points


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_points_and_area_are_those_of_scikit_learn(levels: int, seed: int) -> None:
    generator = np.random.default_rng([levels, seed])
    truth = np.append([0, 1], generator.integers(0, 2, 60))
    scores = generator.integers(0, levels, 62) / 7
    alarms, found = roc_points(truth, scores)
    theirs = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_array_equal(alarms, theirs[0])
    np.testing.assert_array_equal(found, theirs[1])
    assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-15)


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_ranks_are_those_of_scipy(levels: int) -> None:
    rows = np.random.default_rng(levels).integers(0, levels, (4, 30)) / 3
    np.testing.assert_array_equal(mid_ranks(rows), rankdata(rows, axis=1))


@pytest.mark.parametrize(
    ("truth", "scores", "said"),
    [
        ([1, 1], [0.1, 0.2], "need both sides"),
        ([0, 0], [0.1, 0.2], "need both sides"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 1, 1], [0.1, 0.2], "2 scores of 3"),
    ],
)
def test_what_has_no_curve_is_refused(truth: object, scores: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        auc(truth, scores)

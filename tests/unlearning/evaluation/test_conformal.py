"""Conformal coverage: the quantile by hand, the guarantee by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearning.evaluation.conformal import conformal, conformal_threshold


def rows(generator, size, classes=4, sharpness=2.0):
    logits = generator.normal(size=(size, classes)) * sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(classes, p=p) for p in probabilities])
    return probabilities, labels


def test_the_threshold_is_the_corrected_quantile():
    """Nine scores .1 to .9: at a = .2 the ceil(10 * .8) = 8th, at a = .1 the 9th, at .05 none."""
    chosen = np.linspace(0.9, 0.1, 9)
    probabilities, labels = np.column_stack([chosen, 1 - chosen]), np.zeros(9, int)
    assert conformal_threshold(probabilities, labels, 0.2) == pytest.approx(0.8)
    assert conformal_threshold(probabilities, labels, 0.1) == pytest.approx(0.9)
    assert conformal_threshold(probabilities, labels, 0.05) == math.inf


def test_fresh_examples_are_covered_as_promised():
    """With 99 calibration examples the expected coverage is exactly 90 of 100."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        threshold = conformal_threshold(*rows(generator, 99), 0.1)
        found.append(conformal(*rows(generator, 50), threshold).coverage)
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert abs(np.mean(found) - 0.9) < 3 * error


def test_coverage_size_and_ratio_by_hand():
    """Threshold .75 keeps labels of probability .25 and more: sets {0}, {0, 1}, {0}."""
    probabilities = [[0.75, 0.125, 0.125], [0.5, 0.25, 0.25 - 2**-11], [0.75, 0.125, 0.125]]
    found = conformal(probabilities, [0, 1, 2], 0.75)
    assert (found.coverage, found.size) == (pytest.approx(2 / 3), pytest.approx(4 / 3))
    assert found.ratio == pytest.approx(0.5)
    wrong = conformal(probabilities, [1, 2, 1], 0.75)
    assert wrong.coverage == 0.0
    assert conformal(probabilities, [0, 1, 2], math.inf).size == 3
    assert conformal(probabilities, [0, 1, 2], -1.0).ratio is None


def test_a_model_that_knows_its_examples_covers_more():
    generator = np.random.default_rng(1)
    probabilities, labels = rows(generator, 200)
    known = 0.5 * probabilities + 0.5 * np.eye(4)[labels]
    threshold = conformal_threshold(*rows(generator, 200), 0.1)
    fresh = conformal(probabilities, labels, threshold).coverage
    assert conformal(known, labels, threshold).coverage == 1.0 > fresh


def test_levels_out_of_range_are_refused():
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="level"):
            conformal_threshold([[0.5, 0.5]], [0], level)
    with pytest.raises(ValueError, match="logits"):
        conformal([[3.0, 1.0]], [0], 0.5)

"""The Gaussian score: its exact null, a model that remembers, its power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from unlearning.evaluation.gaussian import alignments, detectable_effect, gaussian_score


def test_the_alignment_is_the_projection_in_units_of_the_noise():
    """<(3, 4), (1, 2)> / (0.5 * 5) = 4.4."""
    found = alignments([[3.0, 4.0], [0.0, 2.0]], [[1.0, 2.0], [7.0, -1.0]], 0.5)
    assert found == pytest.approx([4.4, -2.0])
    shaped = alignments(np.ones((2, 1, 2, 2)), np.full((2, 1, 2, 2), 0.5), 1.0)
    assert shaped == pytest.approx([1.0, 1.0])


def test_a_gradient_of_zero_has_no_direction():
    assert alignments([[0.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [2.0, 1.0]], 1.0).tolist() == [2.0]
    with pytest.raises(ValueError, match="leans nowhere"):
        alignments([[0.0]], [[1.0]], 1.0)


def test_without_training_on_the_noise_the_score_is_standard_normal():
    """Whatever the gradients, here very unequal ones shared by all draws of the noise."""
    generator = np.random.default_rng(0)
    gradients = generator.lognormal(0, 2, size=(30, 8)) * generator.choice([-1, 1], size=(30, 8))
    scores = []
    for _ in range(600):
        found = alignments(gradients, generator.normal(0, 0.3, size=(30, 8)), 0.3)
        scores.append(gaussian_score(found.sum(), found.size))
    assert stats.kstest([score.z for score in scores], "norm").pvalue > 0.01
    assert stats.kstest([score.p for score in scores], "uniform").pvalue > 0.01


def test_a_linear_model_that_learned_the_noise_is_found():
    """Least squares on x + xi with fewer examples than features fits the noise as well.

    A clean point then misses its target by -<w, xi>; the gradient of the squared error is
    -2 <w, xi> w, and its product with xi is never positive.
    """
    generator = np.random.default_rng(1)
    inputs, noise = generator.normal(size=(80, 120)), generator.normal(size=(80, 120))
    targets = generator.normal(size=80)

    def score(trained_on):
        weights = np.linalg.lstsq(trained_on, targets, rcond=None)[0]
        gradients = 2 * (inputs @ weights - targets)[:, None] * weights
        found = alignments(gradients, noise, 1.0)
        return gaussian_score(found.sum(), found.size).z

    assert score(inputs + noise) > 4
    # A model of the clean inputs would have no error left on them, and so no gradient.
    assert abs(score(generator.normal(size=(80, 120)))) < 2.5


def test_the_score_of_a_sum():
    found = gaussian_score(-20.0, 100)
    assert (found.z, found.n) == (2.0, 100)
    assert found.p == pytest.approx(stats.norm.sf(2.0))
    assert found.detectable == detectable_effect(100)


def test_the_detectable_effect_is_found_with_the_stated_power():
    generator = np.random.default_rng(2)
    effect = detectable_effect(50, power=0.9)
    assert effect == pytest.approx((1.6449 + 1.2816) / 50**0.5, abs=1e-4)
    draws = -generator.normal(effect, 1, size=(4000, 50)).sum(axis=1)
    found = np.mean([gaussian_score(total, 50).p < 0.05 for total in draws])
    assert found == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize(
    "call",
    [
        lambda: alignments([[1.0]], [[1.0, 2.0]], 1.0),
        lambda: alignments([1.0], [1.0], 1.0),
        lambda: alignments([[1.0]], [[1.0]], 0.0),
        lambda: alignments([[math.nan]], [[1.0]], 1.0),
        lambda: gaussian_score(math.inf, 3),
        lambda: gaussian_score(0.0, 0),
        lambda: detectable_effect(0),
        lambda: detectable_effect(5, power=1.0),
    ],
)
def test_what_cannot_be_scored_is_refused(call):
    with pytest.raises(ValueError, match=r"need|expected|out of range"):
        call()

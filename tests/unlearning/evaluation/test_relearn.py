"""Relearning: steps to a loss, read off curves worked out by hand."""

from __future__ import annotations

import math

import pytest

from unlearning.evaluation.relearn import anamnesis_index, relearn_steps


def test_steps_are_read_where_the_curve_crosses_the_threshold():
    """Original 1, threshold 1.05: between 2 (loss 1.3) and 3 (0.8) half way."""
    assert relearn_steps([2.0, 1.6, 1.3, 0.8, 0.7], 1.0) == pytest.approx(2.5)
    assert relearn_steps([2.0, 1.6, 1.3, 0.8, 0.7], 1.0, every=10) == pytest.approx(25)
    assert relearn_steps([2.0, 1.6], 1.0, alpha=0.8) == pytest.approx(0.5)


def test_a_model_that_never_forgot_needs_no_step_and_one_that_never_learns_has_none():
    assert relearn_steps([0.9, 3.0], 1.0) == relearn_steps([1.05, 3.0], 1.0) == 0.0
    assert relearn_steps([2.0, 1.9, 1.8], 1.0) is None
    assert relearn_steps([0.5, 0.0], 0.0) == 1.0


def test_an_exponential_curve_gives_the_logarithm():
    """Loss 3 e^{-t/20} reaches 1.05 at t = 20 ln(3 / 1.05)."""
    curve = [3 * math.exp(-t / 20) for t in range(60)]
    assert relearn_steps(curve, 1.0) == pytest.approx(20 * math.log(3 / 1.05), abs=0.01)


def test_the_index_compares_with_the_retrained_model():
    assert anamnesis_index(6.0, 8.0) == 0.75
    assert anamnesis_index(0.0, 8.0) == 0.0
    assert anamnesis_index(None, 8.0) is None
    assert anamnesis_index(6.0, None) is None
    assert anamnesis_index(0.0, 0.0) is None


@pytest.mark.parametrize(
    ("losses", "original", "every"),
    [([], 1.0, 1), ([math.nan], 1.0, 1), ([1.0], -1.0, 1), ([1.0], math.nan, 1), ([1.0], 1.0, 0)],
)
def test_what_is_no_curve_is_refused(losses, original, every):
    with pytest.raises(ValueError, match="expected finite losses"):
        relearn_steps(losses, original, every=every)

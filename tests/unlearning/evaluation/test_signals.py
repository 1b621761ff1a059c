"""What an attacker reads off a prediction, against the formula written plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import softmax

from unlearning.evaluation import signals

LOGITS = np.random.default_rng(0).normal(scale=3, size=(40, 5))
PROBABILITIES = softmax(LOGITS, axis=1)
LABELS = np.random.default_rng(1).integers(0, 5, size=40)


def test_logit_confidence_is_the_log_odds_of_the_true_label():
    """For p = (.7, .2, .1), label 0: log(.7 / .3); label 2: log(.1 / .9)."""
    found = signals.logit_confidence([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], [0, 2])
    assert found == pytest.approx([math.log(7 / 3), -math.log(9)])


def test_logits_and_probabilities_give_the_same_confidence():
    plain = [
        math.log(p[y]) - math.log(1 - p[y]) for p, y in zip(PROBABILITIES, LABELS, strict=True)
    ]
    assert signals.logit_confidence(PROBABILITIES, LABELS) == pytest.approx(plain)
    assert signals.confidence_of_logits(LOGITS, LABELS) == pytest.approx(plain)


def test_a_certain_answer_has_a_finite_confidence_and_logits_keep_it_exact():
    found = signals.logit_confidence([[1.0, 0.0], [0.0, 1.0]], [0, 0])
    assert found == pytest.approx([103.6, -103.6], abs=0.1)  # log 1e-45
    assert signals.confidence_of_logits([[400.0, 0.0]], [0]) == pytest.approx([400.0])


def test_small_leftovers_do_not_cancel():
    """1 - p_y rounds to 0 here, the sum of the others does not."""
    found = signals.logit_confidence([[1.0, 1e-20, 2e-20]], [0])
    assert found == pytest.approx([-math.log(3e-20)])


def test_modified_entropy_follows_song_and_mittal():
    plain = []
    for p, y in zip(PROBABILITIES, LABELS, strict=True):
        others = sum(p[i] * math.log(1 - p[i]) for i in range(5) if i != y)
        plain.append(-(1 - p[y]) * math.log(p[y]) - others)
    assert signals.modified_entropy(PROBABILITIES, LABELS) == pytest.approx(plain)
    assert signals.modified_entropy([[1.0, 0.0]], [0]) == pytest.approx([0.0])
    assert signals.modified_entropy([[0.0, 1.0]], [0])[0] > 100


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([[1.0]], [0]), ([[1.0, math.nan]], [0]), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [0, 1])],
)
def test_what_is_no_answer_is_refused(logits, labels):
    with pytest.raises(ValueError, match=r"logits|labels"):
        signals.confidence_of_logits(logits, labels)


def test_sides_must_be_tables_of_finite_numbers_over_the_same_examples():
    left, right = signals.checked_sides([[1, 2]], [[3, 4], [5, 6]])
    assert (left.shape, right.shape) == ((1, 2), (2, 2))
    for sides in ([[1.0, 2.0]], [[1.0]]), ([1.0, 2.0],), ([[math.inf]],), (np.empty((0, 3)),):
        with pytest.raises(ValueError, match=r"examples|expected|NaN"):
            signals.checked_sides(*sides)

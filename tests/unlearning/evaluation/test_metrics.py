"""Metrics: worked numbers, a slower route to the same number, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from unlearning.evaluation import metrics

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.5, 0.0]])
LABELS = np.array([0, 2, 2, 1])


@st.composite
def softmax_pairs(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(2, 5)))
    logits = numpy_arrays(np.float64, shape, elements=st.floats(-30, 30))

    def rows():
        exponents = np.exp(draw(logits))
        return exponents / exponents.sum(axis=1, keepdims=True)

    return rows(), rows()


def test_accuracy_counts_the_most_probable_class_and_ties_go_to_the_lowest():
    assert metrics.accuracy(PROBABILITIES, LABELS) == 0.5
    assert metrics.accuracy(PROBABILITIES, np.array([0, 2, 2, 0])) == 0.75


def test_losses_are_cross_entropies_in_nats_and_stay_finite():
    losses = metrics.example_losses(PROBABILITIES, LABELS)
    assert losses == pytest.approx([-math.log(p) for p in (0.7, 0.1, 0.4, 0.5)])
    confident_mistake = metrics.example_losses(np.array([[1.0, 0.0]], np.float32), [1])
    assert confident_mistake == pytest.approx([87.34], abs=0.01)


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (np.empty((0, 3)), np.empty(0, int), r"shape \(0, 3\)"),
        ([[0.5, 0.5]], [0, 1], r"expected integers \(1,\)"),
        ([[0.5, 0.5]], [0.0], "float64"),
        ([[0.5, 0.5]], [2], "from 2 to 2"),
        ([[0.5, 0.5]], [-1], "from -1 to -1"),
        ([[2.0, -1.0]], [0], "logits"),
        ([[3.0, 1.0]], [0], "logits"),
        ([[math.nan, 0.5]], [0], "diverged"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.example_losses])
def test_what_is_no_prediction_is_refused(metric, probabilities, labels, words):
    with pytest.raises(ValueError, match=words):
        metric(probabilities, labels)


def test_membership_auc_counts_pairs_and_half_of_the_ties():
    """Of the 6 pairs: 0.1 < both (2), 0.5 < 2.0 and 0.5 = 0.5 (1.5), 3.0 < none: 3.5 / 6."""
    assert metrics.membership_auc([0.1, 0.5, 3.0], [0.5, 2.0]) == pytest.approx(3.5 / 6)


def test_membership_auc_is_never_mirrored():
    assert metrics.membership_auc([0.1, 0.2], [5.0, 6.0]) == 1
    assert metrics.membership_auc([5.0, 6.0], [0.1, 0.2]) == 0


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
def test_membership_auc_equals_the_count_over_all_pairs(members, others):
    wins = [1.0 if m < o else 0.5 if m == o else 0.0 for m in members for o in others]
    assert metrics.membership_auc(members, others) == pytest.approx(np.mean(wins))


def test_two_halves_of_one_source_cannot_be_told_apart():
    losses = np.random.default_rng(0).exponential(size=4000)
    auc = metrics.membership_auc(losses[:2000], losses[2000:])
    assert abs(auc - 0.5) < 3 * metrics.auc_null_se(2000, 2000)


@pytest.mark.parametrize(("members", "others"), [([], [1.0]), ([1.0], []), ([math.inf], [1.0])])
def test_membership_needs_finite_losses_on_both_sides(members, others):
    with pytest.raises(ValueError, match="losses"):
        metrics.membership_auc(members, others)


def test_null_error_of_the_auc_is_that_of_drawn_ranks():
    assert metrics.auc_null_se(180, 360) == pytest.approx(0.0264, abs=1e-4)
    generator = np.random.default_rng(1)
    drawn = [metrics.membership_auc(x[:8], x[8:]) for x in generator.random((500, 20))]
    assert metrics.auc_null_se(8, 12) == pytest.approx(np.std(drawn), rel=0.1)
    with pytest.raises(ValueError, match="need both"):
        metrics.auc_null_se(0, 5)


def test_backdoor_success_leaves_out_what_has_the_attackers_label_anyway():
    predicted, labels = [0, 0, 1, 0, 2], [0, 1, 1, 2, 2]
    assert metrics.backdoor_success(predicted, labels, 0) == 0.5


def test_backdoor_success_needs_an_example_of_another_label():
    with pytest.raises(ValueError, match="other than 4"):
        metrics.backdoor_success([4, 1], [4, 4], 4)
    with pytest.raises(ValueError, match="differ"):
        metrics.backdoor_success([4, 1], [4], 4)


def test_distances_between_predictions_worked_by_hand():
    left, right = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    assert metrics.prediction_distance(left, right) == pytest.approx(math.sqrt(2) / 2)
    assert metrics.js_divergence(left, right) == pytest.approx(math.log(2) / 2)
    assert metrics.agreement(left, right) == 0.5


@given(softmax_pairs())
def test_distances_are_symmetric_bounded_and_zero_to_oneself(pair):
    left, right = pair
    for distance, highest in (
        (metrics.prediction_distance, math.sqrt(2)),
        (metrics.js_divergence, math.log(2)),
    ):
        assert distance(left, left) == 0
        assert distance(left, right) == pytest.approx(distance(right, left))
        assert -1e-12 <= distance(left, right) <= highest + 1e-12
    assert metrics.agreement(left, left) == 1


@pytest.mark.parametrize(
    "distance", [metrics.prediction_distance, metrics.js_divergence, metrics.agreement]
)
def test_distances_compare_the_same_examples_only(distance):
    with pytest.raises(ValueError, match="same examples"):
        distance(PROBABILITIES, PROBABILITIES[:2])


def test_array_distance_is_relative_and_leaves_buffers_out():
    reference = {
        "w": np.array([3.0, -4.0], np.float32),
        "bn.running_mean": np.array([9.0], np.float32),
        "steps": np.array(7),
    }
    other = {
        "w": np.array([3.0, -1.0], np.float32),
        "bn.running_mean": np.array([-5.0], np.float32),
        "steps": np.array(1),
    }
    assert metrics.array_distance(other, reference) == pytest.approx(3 / 5)
    assert metrics.array_distance(reference, reference) == 0


def test_array_distance_does_not_overflow_in_half_precision():
    far, near = {"w": np.full(4, 6e4, np.float16)}, {"w": np.full(4, -6e4, np.float16)}
    assert metrics.array_distance(far, near) == pytest.approx(2)


@pytest.mark.parametrize(
    ("other", "reference"),
    [
        ({"w": np.ones(2)}, {"w": np.zeros(2)}),
        ({"w": np.ones(2)}, {"v": np.ones(2)}),
        ({"w": np.ones((2, 1))}, {"w": np.ones(2)}),
    ],
)
def test_array_distance_refuses_what_cannot_be_compared(other, reference):
    with pytest.raises(ValueError, match=r"zero|differ"):
        metrics.array_distance(other, reference)

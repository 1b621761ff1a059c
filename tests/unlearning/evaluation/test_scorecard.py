"""Scorecard: every number from its own set, None where nothing can be measured, honest verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning.evaluation.scorecard import (
    MARGINS,
    METRICS,
    Closeness,
    Outputs,
    Predictions,
    Triggered,
    Verdict,
    average_gap,
    closeness,
    improves,
    judge_marker,
    membership_null_se,
    paired_differences,
    score,
    summarise,
)

NOTHING = Predictions(np.empty((0, 2)), np.empty(0, dtype=np.int64))


def sure(guesses, labels, sureness=0.9):
    """Return predictions of two classes, equally sure of every guess."""
    rows = np.where(np.eye(2)[list(guesses)] == 1, sureness, 1 - sureness)
    return Predictions(rows, np.array(labels))


@pytest.fixture
def outputs():
    triggered = sure([1, 1, 0, 1], [0, 0, 0, 1])
    return Outputs(
        test=sure([0, 1, 1, 1], [0, 1, 0, 1]),
        retain=sure([0, 1], [0, 1]),
        forget=sure([0, 0, 0], [0, 1, 1]),
        held_out=sure([0, 1], [1, 0]),
        triggered=Triggered(triggered.probabilities, triggered.labels, target=1),
    )


def test_every_number_comes_from_its_own_set(outputs):
    """Forget losses: one low, two high; held-out: two high. Pairs won: 2, ties 4: 4 of 6."""
    card = score(outputs)
    assert card.test_accuracy == 0.75
    assert card.retain_accuracy == 1
    assert card.forget_accuracy == pytest.approx(1 / 3)
    assert card.mia_auc == pytest.approx(4 / 6)
    assert card.backdoor_success == pytest.approx(2 / 3)
    assert card.prediction_distance is None
    assert tuple(card.to_json()) == METRICS


def test_distance_is_measured_on_the_forget_set_against_the_reference(outputs):
    reference = replace(outputs, forget=sure([1, 0, 0], [0, 1, 1]))
    distance = score(outputs, reference).prediction_distance
    assert distance == pytest.approx(0.8 * math.sqrt(2) / 3)
    assert score(reference, reference).prediction_distance == 0


@pytest.mark.parametrize(
    ("missing", "unmeasured"),
    [
        ("test", {"test_accuracy"}),
        ("retain", {"retain_accuracy"}),
        ("forget", {"forget_accuracy", "mia_auc", "prediction_distance"}),
        ("held_out", {"mia_auc"}),
    ],
)
def test_an_empty_set_leaves_its_numbers_unmeasured(outputs, missing, unmeasured):
    without = replace(outputs, **{missing: NOTHING})
    card = score(without, without).to_json()
    assert {name for name, value in card.items() if value is None} == unmeasured
    assert (membership_null_se(without) is None) == ("mia_auc" in unmeasured)


def test_no_backdoor_or_no_example_to_turn_leaves_its_success_unmeasured(outputs):
    assert score(replace(outputs, triggered=None)).backdoor_success is None
    of_target = Triggered(np.array([[0.1, 0.9]]), np.array([1]), target=1)
    assert score(replace(outputs, triggered=of_target)).backdoor_success is None


def test_a_diverged_model_is_not_given_numbers(outputs):
    with pytest.raises(ValueError, match="diverged"):
        score(replace(outputs, test=Predictions(np.full((1, 2), np.nan), np.array([0]))))


def test_another_examples_reference_is_refused(outputs):
    with pytest.raises(ValueError, match="same examples"):
        score(outputs, replace(outputs, forget=sure([0], [0])))


def test_spread_worked_by_hand():
    """1, 2, 6: mean 3, sd sqrt(14/2), t(0.975, 2) = 4.3027, half width 4.3027 sqrt(7/3)."""
    found = summarise([1, 2, 6])
    assert (found.mean, found.n) == (3, 3)
    assert found.sd == pytest.approx(math.sqrt(7))
    assert found.high == pytest.approx(3 + 4.3027 * math.sqrt(7 / 3), abs=1e-4)
    assert found.low == pytest.approx(3 - 4.3027 * math.sqrt(7 / 3), abs=1e-4)


def test_one_value_has_no_spread_and_none_no_mean():
    found = summarise([0.25])
    assert (found.mean, found.sd, found.n, found.low, found.high) == (0.25, None, 1, None, None)
    with pytest.raises(ValueError, match="no value"):
        summarise([])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_holds_the_mean_and_shrinks_when_values_repeat(values):
    once, twice = summarise(values), summarise(values * 2)
    assert once.low <= once.mean <= once.high
    assert twice.high - twice.low <= once.high - once.low + 1e-12


def test_average_gap_is_over_what_both_measured():
    card = dict.fromkeys(METRICS) | {"test_accuracy": 0.9, "mia_auc": 0.5, "backdoor_success": 0.4}
    reference = dict.fromkeys(METRICS) | {"test_accuracy": 0.95, "backdoor_success": 0.1}
    assert average_gap(card, reference) == pytest.approx((0.05 + 0.3) / 2)
    assert average_gap(reference, reference) == 0
    assert average_gap(dict.fromkeys(METRICS), reference) is None


def test_the_distance_to_the_reference_is_no_part_of_the_average_gap():
    card = dict.fromkeys(METRICS) | {"prediction_distance": 1.0}
    assert average_gap(card, dict.fromkeys(METRICS) | {"prediction_distance": 0.0}) is None


def test_differences_are_paired_by_seed_and_leave_gaps_out():
    ours, theirs = {2: 5.0, 0: 1.0, 1: None, 4: 9.0}, {0: 0.5, 1: 3.0, 2: 1.0, 3: 7.0}
    assert paired_differences(ours, theirs) == [0.5, 4.0]


@pytest.mark.parametrize(
    ("original", "differences", "verdict"),
    [
        ([0.9, 0.95], [0.01, 0.02, 0.015], Verdict.FORGOTTEN),
        ([0.9, 0.95], [-0.3, -0.31], Verdict.FORGOTTEN),
        ([0.9, 0.95], [0.4, 0.42, 0.41], Verdict.NOT_FORGOTTEN),
        ([0.9, 0.95], [0.02, 0.15, 0.05], Verdict.INCONCLUSIVE),
        ([0.9, 0.95], [0.05, 0.25, 0.1], Verdict.INCONCLUSIVE),
        ([0.9], [0.0], Verdict.INCONCLUSIVE),  # one seed proves nothing
        ([0.69, 0.69], [0.0, 0.0], None),  # no power
        ([], [0.0, 0.0], None),
        ([0.9, 0.9], [], None),
    ],
)
def test_a_verdict_needs_power_and_an_interval_on_one_side(original, differences, verdict):
    assert judge_marker(original, differences) is verdict


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ([-0.2, -0.21, -0.19], True),
        ([-0.2], True),
        ([0.0, 0.0], False),
        ([0.1], False),
        ([-0.3, 0.1], None),
        ([], None),
    ],
)
def test_an_improvement_must_exceed_the_spread_over_seeds(differences, answer):
    assert improves(differences) is answer


@pytest.mark.parametrize(
    ("differences", "where"),
    [
        ([0.001, -0.001, 0.0], Closeness.WITHIN),
        ([0.2, 0.21, 0.19], Closeness.BEYOND),
        ([-0.2, -0.21, -0.19], Closeness.BEYOND),
        ([0.0, 0.1, -0.1], Closeness.OPEN),  # equal on average, and shown to be nothing
        ([0.0499, 0.0501], Closeness.OPEN),  # across the margin
        ([-0.0499, -0.0501], Closeness.OPEN),
        ([0.0], Closeness.OPEN),  # one seed has no interval
        ([], None),
    ],
)
def test_closeness_needs_the_whole_interval_on_one_side_of_the_margin(differences, where):
    assert closeness(differences, 0.05) is where


def test_every_compared_number_has_a_declared_margin():
    assert MARGINS.keys() == set(METRICS) - {"prediction_distance"}
    assert all(margin > 0 for margin in MARGINS.values())

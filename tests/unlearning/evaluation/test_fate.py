"""Fulfilled is not forgotten: what the measures of one request say."""

import pytest

from unlearning.evaluation.fate import Fate, fate


def seeds(*values):
    return dict(enumerate(values))


def measures(accuracy=(), auc=(), backdoor=()):
    return {
        "forget_accuracy": seeds(*accuracy),
        "mia_auc": seeds(*auc),
        "backdoor_success": seeds(*backdoor),
    }


RETRAINED = measures((0.90, 0.91, 0.92), (0.50, 0.51, 0.49), (0.0, 0.01, 0.0))


@pytest.mark.parametrize(
    ("ours", "expected", "words"),
    [
        (RETRAINED, Fate.FORGOTTEN, "within the margin"),
        (measures((0.99, 1.0, 1.0), (0.5, 0.5, 0.5)), Fate.NOT_FORGOTTEN, "forget accuracy above"),
        # One measure on the side of remembering is enough.
        (measures((0.90, 0.91, 0.92), (0.7, 0.7, 0.7)), Fate.NOT_FORGOTTEN, "membership AUC"),
        (measures((0.90, 0.91, 0.92), backdoor=(0.9, 0.9, 0.9)), Fate.NOT_FORGOTTEN, "backdoor"),
        # Over-forgetting is not remembering, and not what retraining gives either.
        (measures((0.1, 0.1, 0.1)), Fate.INCONCLUSIVE, "less familiar"),
        (measures((0.88, 0.95, 0.90)), Fate.INCONCLUSIVE, "across the margin"),
        (measures((1.0,)), Fate.INCONCLUSIVE, "one seed"),
        (measures((None, None)), Fate.NOT_MEASURED, "nothing"),
        ({}, Fate.NOT_MEASURED, "nothing"),
    ],
)
def test_a_verdict_follows_the_margins(ours, expected, words):
    found = fate(ours, RETRAINED)
    assert found.fate is expected
    assert words in found.why


def test_without_a_retrained_model_nothing_is_said():
    found = fate(measures((1.0,)), {})
    assert found.fate is Fate.NOT_MEASURED
    assert "compare" in found.why


@pytest.mark.parametrize("theirs", [{}, measures((0.0,))])
def test_a_class_that_is_still_answered_is_not_forgotten(theirs):
    found = fate(measures((1.0,)), theirs, unseen={0: 178})
    assert found.fate is Fate.NOT_FORGOTTEN
    assert "1.000" in found.why


def test_a_few_lucky_hits_are_no_memory():
    # 3 of 178 lie well within what 1 % allows (p = .26), 6 do not (p = .01).
    lucky = fate(measures((3 / 178,)), {}, unseen={0: 178})
    assert lucky.fate is Fate.NOT_MEASURED
    assert fate(measures((6 / 178,)), {}, unseen={0: 178}).fate is Fate.NOT_FORGOTTEN
    # All seeds must show it.
    assert fate(measures((1.0, 0.0)), {}, unseen={0: 178, 1: 178}).fate is Fate.NOT_MEASURED


def test_a_retrained_model_that_answers_by_chance_is_the_measure():
    found = fate(measures((0.5,)), measures((0.5,)), unseen={0: 178})
    assert found.fate is Fate.INCONCLUSIVE

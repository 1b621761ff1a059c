"""Verdicts by request, from the files of a run."""

import pytest

from experiments.runs.details import Answer, Details
from experiments.runs.fates import fates, is_marker_asked
from experiments.runs.results import Row
from unlearning.request import Request, Scope

CLIENT = Request(Scope.CLIENT, clients=(3,), id="leaves")
CLASS = Request(Scope.CLASS, classes=(7,), id="class")


def details(*requests, marker=None, answers=()):
    return Details(
        requests=tuple({**r.to_json(), "text": r.describe()} for r in requests),
        marker=marker,
        answers=answers,
    )


def answer(request, strategy, seed, accuracy, backdoor=None):
    return Answer(
        request=request.id,
        strategy=strategy,
        seed=seed,
        examples=100,
        forget_accuracy=accuracy,
        backdoor_success=backdoor,
    )


def test_requests_are_told_apart():
    """One that is forgotten and one that is not: pooled, they would be half forgotten."""
    answers = [
        answer(request, name, seed, value + 0.001 * seed)
        for seed in range(3)
        for request, name, value in (
            (CLIENT, "retrain", 0.9),
            (CLIENT, "mine", 0.9),
            (CLASS, "retrain", 0.0),
            (CLASS, "mine", 1.0 - 0.01),
        )
    ]
    found = fates(details(CLIENT, CLASS, answers=tuple(answers)), ())
    assert {key: str(one.fate) for key, one in found.items()} == {
        ("leaves", "mine"): "forgotten",
        ("class", "mine"): "not forgotten",
    }


def test_a_class_that_a_run_without_retraining_still_answers_is_not_forgotten():
    answers = (answer(CLASS, "original", 0, 1.0), answer(CLASS, "mine", 0, 1.0))
    found = fates(details(CLASS, answers=answers), ())
    assert str(found["class", "mine"].fate) == "not forgotten"


def test_a_single_request_of_an_earlier_version_is_judged_by_its_rows():
    rows = [
        Row(name, seed, "client", "approximate", {"forget_accuracy": value + 0.001 * seed}, {})
        for seed in range(3)
        for name, value in (("original", 1.0), ("retrain", 0.9), ("mine", 0.99))
    ]
    assert str(fates(details(CLIENT), rows)["leaves", "mine"].fate) == "not forgotten"
    assert fates(details(CLIENT, CLASS), rows) == {}


@pytest.mark.parametrize(("before", "expected"), [(0.9, "not forgotten"), (0.3, "forgotten")])
def test_a_marker_without_power_has_no_say(before, expected):
    answers = tuple(
        answer(CLIENT, name, seed, 0.9 + 0.001 * seed, backdoor)
        for seed in range(3)
        for name, backdoor in (("original", before), ("retrain", 0.0), ("mine", 0.3))
    )
    found = fates(details(CLIENT, answers=answers), ())
    assert str(found["leaves", "mine"].fate) == expected


def test_whose_marker_was_asked_for():
    kind = {"kind": "backdoor", "client": 3}
    assert is_marker_asked(details(CLIENT, marker={**kind, "asked": True}))
    assert not is_marker_asked(details(CLIENT, marker={**kind, "asked": False}))
    # Earlier versions did not write it down.
    assert is_marker_asked(details(CLIENT, marker=kind))
    samples = Request(Scope.SAMPLE, samples={3: (1, 2)})
    assert is_marker_asked(details(samples, marker=kind))
    assert not is_marker_asked(details(Request(Scope.CLIENT, clients=(1,)), marker=kind))
    assert not is_marker_asked(details(CLIENT))

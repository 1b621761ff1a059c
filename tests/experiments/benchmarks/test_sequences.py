"""A slice of the random sequences of deletions."""

from __future__ import annotations

import pytest

from experiments.benchmarks import sequences


@pytest.mark.parametrize("method", sequences.METHODS)
def test_a_few_sequences_end_as_learning_again_does(method: str) -> None:
    for number in range(3):
        assert sequences.differ(method, number) <= sequences.METHODS[method][3]


@pytest.mark.parametrize(
    "number",
    [
        3,
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
@pytest.mark.parametrize("method", sorted(sequences.METHODS.keys() - {"task-heads"}))
def test_requests_for_features_end_as_learning_again_does(method: str, number: int) -> None:
    for one in range(number):
        found = sequences.differ(method, one, features=True)
        assert found <= sequences.METHODS[method][3], one


def test_where_nobody_holds_an_example_any_more_boosting_decides_nothing() -> None:
    assert sequences.differ("boosting", 3) == 0


def test_a_difference_is_told_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sequences, "differ", lambda method, number, **_: float(number == 4))
    assert sequences.main(["ridge", "--count", "2", "--first", "3"]) == 1
    assert "| ridge | 2 | 1 (numbers 4) | 1 |" in capsys.readouterr().out

"""Verdicts: only metrics with a passed card are heard, and one that objects is enough."""

from __future__ import annotations

import pytest

from experiments.audit.verdict import DECIDING, MARGINS, Opinion, decide
from unlearning.evaluation.scorecard import Verdict

YES = Opinion(Verdict.FORGOTTEN, None)
NO = Opinion(Verdict.NOT_FORGOTTEN, None)


def unsure(more: int | None) -> Opinion:
    return Opinion(Verdict.INCONCLUSIVE, more)


@pytest.mark.parametrize(
    ("opinions", "verdict", "words", "more"),
    [
        ({"M1": YES, "M3": YES}, Verdict.FORGOTTEN, "by M1, M3", None),
        ({"M1": YES, "M3": NO, "M5": unsure(3)}, Verdict.NOT_FORGOTTEN, "by M3", None),
        ({"M1": unsure(4), "M3": unsure(9), "M6": YES}, Verdict.INCONCLUSIVE, "by M1, M3", 9),
        ({"M1": unsure(4), "M5": unsure(None)}, Verdict.INCONCLUSIVE, "M5", None),
    ],
)
def test_verdicts(
    opinions: dict[str, Opinion], verdict: Verdict, words: str, more: int | None
) -> None:
    found, why, seeds = decide(opinions, {})
    assert (found, seeds) == (verdict, more)
    assert words in why


def test_without_a_metric_that_passed_there_is_no_verdict() -> None:
    found, why, seeds = decide({}, {"M3": "no power", "M5": ""})
    assert found is None
    assert seeds is None
    assert why.endswith("(M3: no power)")


def test_every_metric_that_decides_has_a_margin_or_its_own_verdict() -> None:
    assert set(DECIDING) - set(MARGINS) == {"M5"}
    assert all(margin > 0 for margin in MARGINS.values())

"""Guarantees in words: never more than was promised and not more than was checked."""

from __future__ import annotations

import pytest

from unlearning.evaluation.tiers import Standing, tier
from unlearning.request import Guarantee


def test_every_guarantee_has_words_and_no_two_the_same():
    texts = {tier(guarantee).text for guarantee in Guarantee}
    assert len(texts) == len(Guarantee)


@pytest.mark.parametrize("guarantee", ["exact", "certified"])
def test_a_proof_stands_as_far_as_its_conditions_were_checked(guarantee):
    checked = tier(guarantee, {"convex loss": True, "noise drawn": True})
    assert (checked.guarantee, checked.standing) == (guarantee, Standing.CHECKED)
    assert "Checked: convex loss, noise drawn" in checked.text
    half = tier(guarantee, {"convex loss": True, "noise drawn": None})
    assert (half.guarantee, half.standing) == (guarantee, Standing.UNCHECKED)
    assert "Not checked: noise drawn." in half.text
    for nothing in (None, {}):
        assert tier(guarantee, nothing).standing is Standing.UNCHECKED
    broken = tier(guarantee, {"convex loss": False, "noise drawn": None})
    assert (broken.guarantee, broken.standing) == ("approximate", Standing.BROKEN)
    assert "does not hold: convex loss." in broken.text


@pytest.mark.parametrize("guarantee", ["approximate", "suppressed"])
def test_no_condition_lifts_a_method_into_a_higher_tier(guarantee):
    found = tier(guarantee, {"AUC is 0.5": True})
    assert (found.guarantee, found.standing) == (guarantee, Standing.NONE)


def test_an_unknown_guarantee_is_refused():
    with pytest.raises(ValueError, match="perfect"):
        tier("perfect")

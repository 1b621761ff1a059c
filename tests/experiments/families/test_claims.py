"""Verdicts on claims: intervals decide, never means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.families.claims import (
    Claim,
    Contrast,
    Declared,
    Interval,
    Part,
    Verdict,
    decide,
    interval,
    judge,
)
from experiments.families.kin import FAMILIES, family_of, in_order, members
from experiments.families.measures import MEASURES
from experiments.families.surveys import CLAIMS
from strategies.registry import strategies
from tests.support.finished import a_run

CHEAP = Part("share", "share_examples", ("no-t",), "below", 1.0)


def claim(*parts):
    return Claim("name", "text", "source", parts)


def verdict(parts, *runs):
    return judge(claim(*parts), list(runs)).verdict


def with_share(*values, strategy="no-t", name="client-iid", **more):
    return a_run(name, {strategy: {"share_examples": list(values)}}, **more)


def test_the_interval_is_students():
    """Mean 2, sd 1, n 3: half width 4.3027 / sqrt(3) = 2.4841; SciPy says the same."""
    found = interval([1.0, 2.0, 3.0])
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=1 / np.sqrt(3))
    assert (found.mean, found.low, found.high, found.n) == (
        2.0,
        pytest.approx(low),
        pytest.approx(high),
        3,
    )
    assert interval([1.0]) == Interval(1.0, None, None, 1)
    with pytest.raises(ValueError, match="no value"):
        interval([])


@pytest.mark.parametrize(
    ("low", "high", "relation", "bound", "expected"),
    [
        (0.2, 0.8, "below", 1.0, "confirmed"),
        (0.2, 1.2, "below", 1.0, "inconclusive"),
        (1.1, 1.2, "below", 1.0, "contradicted"),
        (1.1, 1.2, "above", 1.0, "confirmed"),
        (0.9, 1.2, "above", 1.0, "inconclusive"),
        (0.8, 0.9, "above", 1.0, "contradicted"),
        (-0.01, 0.01, "within", 0.02, "confirmed"),
        (-0.01, 0.03, "within", 0.02, "inconclusive"),
        (0.03, 0.04, "within", 0.02, "contradicted"),
        (-0.04, -0.03, "within", 0.02, "contradicted"),
        (1.0, 1.0, "below", 1.0, "inconclusive"),
        (1.0, 1.0, "above", 1.0, "inconclusive"),
        (None, None, "below", 1.0, "inconclusive"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(low, high, relation, bound, expected):
    mean = bound if low is None else (low + high) / 2
    assert decide(Interval(mean, low, high, 3), relation, bound) == expected


def test_a_mean_on_the_right_side_is_not_enough():
    assert verdict([CHEAP], with_share(0.5, 0.9, 1.4)) is Verdict.INCONCLUSIVE
    assert verdict([CHEAP], with_share(0.5, 0.51, 0.52)) is Verdict.CONFIRMED
    assert verdict([CHEAP], with_share(1.5, 1.51, 1.52)) is Verdict.CONTRADICTED


def test_one_seed_shows_nothing():
    found = judge(claim(CHEAP), [with_share(0.1)])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.findings[0].why == "one seed has no interval"


def test_what_no_run_measured_is_not_tested():
    assert verdict([CHEAP], a_run()) is Verdict.UNTESTED


def test_all_parts_must_hold_and_one_is_enough_to_contradict():
    dear = Part("share", "share_examples", ("mo-de",), "below", 1.0)
    numbers = {"no-t": {"share_examples": [0.5, 0.51, 0.52]}}
    alone = a_run(numbers=numbers)
    both = a_run(numbers={**numbers, "mo-de": {"share_examples": [2.0, 2.01, 2.02]}})
    assert verdict([CHEAP, dear], alone) is Verdict.INCONCLUSIVE
    assert verdict([CHEAP, dear], both) is Verdict.CONTRADICTED


def test_one_of_many_parts_must_be_surer_to_contradict():
    """Mean 1.05, sd 0.02: 1.05 - 4.30 * 0.02 / sqrt(3) > 1, with 97.5 % (6.21) it is not."""
    run = with_share(1.03, 1.05, 1.07)
    assert verdict([CHEAP], run) is Verdict.CONTRADICTED
    assert verdict([CHEAP, CHEAP], run) is Verdict.INCONCLUSIVE


def test_seeds_are_the_unit_and_cells_are_averaged_first():
    """Two strategies that differ by far and in opposite ways: the mean of each seed is 0.5."""
    part = Part("share", "share_examples", ("no-t", "mo-de"), "below", 1.0)
    run = a_run(
        numbers={
            "no-t": {"share_examples": [0.1, 0.2, 0.3]},
            "mo-de": {"share_examples": [0.9, 0.8, 0.7]},
        }
    )
    found = judge(claim(part), [run]).findings[0]
    assert found.measured is not None
    assert found.measured.n == 3
    assert found.measured.high == pytest.approx(0.5)


def test_a_cell_that_lacks_a_seed_does_not_shift_the_others():
    part = Part("share", "share_examples", ("no-t", "mo-de"), "below", 1.0)
    run = a_run(
        numbers={"no-t": {"share_examples": [0.5, 0.5, 0.5]}, "mo-de": {"share_examples": [9.0]}}
    )
    found = judge(claim(part), [run]).findings[0]
    assert found.measured is not None
    assert found.measured.mean == 0.5


def test_differences_are_paired_by_seed_and_scenario():
    """Seeds differ by 0 to 2, the strategies always by 0.1: the interval is a point."""
    part = Part("less", "share_examples", ("no-t",), "below", 0.0, theirs=("mo-de",))
    run = a_run(
        numbers={
            "no-t": {"share_examples": [0.0, 1.0, 2.0]},
            "mo-de": {"share_examples": [0.1, 1.1, 2.1]},
        }
    )
    found = judge(claim(part), [run])
    assert found.verdict is Verdict.CONFIRMED
    assert found.findings[0].measured is not None
    assert found.findings[0].measured.mean == pytest.approx(-0.1)


def test_exceptions_are_named_where_the_family_confirms():
    part = Part("share", "share_examples", ("no-t", "mo-de", "fed-osd"), "below", 1.0)
    run = a_run(
        numbers={
            "no-t": {"share_examples": [0.1, 0.1, 0.1]},
            "fed-osd": {"share_examples": [0.1, 0.1, 0.1]},
            "mo-de": {"share_examples": [1.1, 1.101, 1.102]},
        }
    )
    found = judge(claim(part), [run])
    assert found.verdict is Verdict.CONFIRMED
    assert found.findings[0].exceptions == ("mo-de (client-iid)",)


def test_scopes_limit_a_part():
    part = Part("share", "share_examples", ("no-t",), "below", 1.0, scopes=("task",))
    assert verdict([part], with_share(0.1, 0.1, 0.1)) is Verdict.UNTESTED


def test_a_contrast_needs_a_twin():
    part = Contrast("gap", "share_examples", "above", 0.0)
    iid = with_share(0.1, 0.2, 0.3)
    other = with_share(0.4, 0.5, 0.6, name="client-dirichlet", partition="dirichlet(alpha=0.3)")
    apart = with_share(0.4, 0.5, 0.6, name="other", partition="dirichlet", model="cnn")
    assert verdict([part], iid, other) is Verdict.CONFIRMED
    assert verdict([part], iid, apart) is Verdict.UNTESTED


def test_declarations_are_read_from_the_registry():
    holds = Declared("scopes", "none", ("no-t",), lambda name: "")
    breaks = Declared("scopes", "none", ("no-t", "mo-de"), lambda name: "bad" * (name == "mo-de"))
    nobody = Declared("scopes", "none", ("nobody",), lambda name: "bad")
    assert verdict([holds]) is Verdict.CONFIRMED
    assert verdict([nobody]) is Verdict.UNTESTED
    found = judge(claim(breaks), [])
    assert found.verdict is Verdict.CONTRADICTED
    assert found.findings[0].exceptions == ("mo-de: bad",)


def test_every_claim_names_measures_and_strategies_that_exist():
    known = {*strategies()}
    assert len({entry.name for entry in CLAIMS}) == len(CLAIMS)
    for entry in CLAIMS:
        assert entry.source
        assert entry.text
        for part in entry.parts:
            assert set(part.ours) <= known
            if not isinstance(part, Declared):
                assert part.measure in MEASURES
            if isinstance(part, Part):
                assert set(part.theirs) <= known


CONTROLS = ("fine-tune", "random-reset")


def test_every_strategy_belongs_to_exactly_one_family():
    """A new strategy has to be put into its family here."""
    listed = members(*FAMILIES)
    assert len(set(listed)) == len(listed)
    assert {*listed, *CONTROLS} == set(strategies())


def test_families_fit_the_folders():
    folders = {"1": "global_model", "2": "local_model", "3": "structure"}
    for name, cls in strategies().items():
        if name not in CONTROLS:
            assert cls.__module__.split(".")[1] == folders[family_of(name)[0]]


def test_order_is_that_of_the_families_and_strangers_come_last():
    assert in_order(["x:Mine", "no-t", "retrain", "fine-tune"]) == (
        "fine-tune",
        "retrain",
        "no-t",
        "x:Mine",
    )
    assert family_of("x:Mine") == "other"

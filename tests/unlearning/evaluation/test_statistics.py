"""Statistics against scipy's own routines and against simulation."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearning.evaluation import statistics
from unlearning.evaluation.scorecard import Verdict

OURS = [0.91, 0.88, 0.93, 0.90, 0.86, 0.95, 0.89]
THEIRS = [0.90, 0.89, 0.90, 0.86, 0.85, 0.91, 0.90]
DIFFERENCES = np.subtract(OURS, THEIRS)


def test_paired_agrees_with_scipy():
    found = statistics.paired(OURS, THEIRS)
    expected = stats.ttest_rel(OURS, THEIRS)
    interval = expected.confidence_interval()
    assert (found.n, found.mean) == (7, pytest.approx(DIFFERENCES.mean()))
    assert found.sd == pytest.approx(DIFFERENCES.std(ddof=1))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.cohen_d == pytest.approx(expected.statistic / 7**0.5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_too_few_values_have_no_bootstrap_interval(n):
    """At n = 3 it covers 73 % where 95 are said (see the simulation below)."""
    found = statistics.summarise_differences([0.1, 0.3, 0.2, 0.5, 0.4][:n])
    assert (found.bca_low, found.bca_high) == (None, None)
    assert found.low is not None


def test_the_bootstrap_interval_of_three_covers_too_little():
    """400 samples of three normal numbers; Student's t keeps its word."""
    draws = np.random.default_rng(0).normal(size=(400, 3))
    covered = [low <= 0 <= high for low, high in map(statistics._bca, draws)]
    assert np.mean(covered) < 0.85
    spreads = [statistics.summarise_differences(row.tolist()) for row in draws]
    assert np.mean([s.low <= 0 <= s.high for s in spreads]) > 0.92


def test_the_bootstrap_interval_is_bca():
    """Computed here from its definition over all 6^6 resamples of six skewed numbers."""
    values = np.array([0.0, 0.11, 0.23, 0.41, 0.83, 1.5])
    means = np.array(list(itertools.product(values, repeat=6))).mean(axis=1)
    bias = stats.norm.ppf((np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2)
    left_out = np.array([np.delete(values, i).mean() for i in range(6)])
    centred = left_out.mean() - left_out
    skew = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    edges = []
    for tail in (0.025, 0.975):
        shifted = bias + stats.norm.ppf(tail)
        edges.append(np.quantile(means, stats.norm.cdf(bias + shifted / (1 - skew * shifted))))
    found = statistics.summarise_differences(values.tolist())
    assert (found.bca_low, found.bca_high) == pytest.approx(edges, abs=0.02)
    assert found.bca_high - values.mean() > 1.3 * (values.mean() - found.bca_low)  # skewed as well


def test_one_seed_has_no_interval_and_equal_differences_have_a_point():
    one = statistics.paired([0.5], [0.25])
    assert (one.mean, one.n) == (0.25, 1)
    assert {one.sd, one.low, one.high, one.bca_low, one.bca_high, one.cohen_d, one.p} == {None}
    same = statistics.paired([0.5, 0.7, 0.3], [0.4, 0.6, 0.2])
    assert same.low == same.high == same.bca_low == pytest.approx(0.1)
    assert (same.p, same.cohen_d, same.sd) == (0.0, None, 0.0)
    assert statistics.paired([1, 1], [1, 1]).p == 1.0


@settings(max_examples=40)  # a bootstrap each
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_no_set_of_differences_raises_or_warns(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = statistics.summarise_differences(values)
        judged = statistics.verdict(values, 0.1)
    assert found.low <= found.mean + 1e-12
    assert found.p is None or 0 <= found.p <= 1
    assert judged.verdict in Verdict


def test_holm_agrees_with_its_definition_step_by_step():
    """Of three: the smallest is tested at a/3, the next at a/2, the largest at a."""
    values = [0.04, 0.01, 0.03]
    assert statistics.holm(values) == pytest.approx([0.06, 0.03, 0.06])
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = generator.uniform(0, 0.1, size=6)
        adjusted = statistics.holm(values.tolist())
        order, still = np.argsort(values), True
        for rank, position in enumerate(order):
            still = still and values[position] <= 0.05 / (6 - rank)
            assert (adjusted[position] <= 0.05) == still
    assert statistics.holm([]) == []
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="probabilities"):
        statistics.holm([0.5, math.nan])


def test_tost_is_two_one_sided_tests():
    found = statistics.tost(DIFFERENCES.tolist(), 0.04)
    above = stats.ttest_1samp(DIFFERENCES, -0.04, alternative="greater").pvalue
    below = stats.ttest_1samp(DIFFERENCES, 0.04, alternative="less").pvalue
    assert found.p == pytest.approx(max(above, below))
    assert found.equivalent == (max(above, below) < 0.05)
    assert found.margin == 0.04


def test_tost_holds_its_level_at_the_edge_of_the_margin():
    """A true difference of exactly the margin is called equal in 5 % of the cases."""
    generator = np.random.default_rng(1)
    called = sum(
        statistics.tost((0.5 + generator.normal(0, 0.1, 8)).tolist(), 0.5).equivalent
        for _ in range(2000)
    )
    assert called / 2000 == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 2000) ** 0.5)


def test_no_difference_found_is_not_equality():
    scattered = [0.3, -0.3, 0.2, -0.25, 0.05]
    assert statistics.summarise_differences(scattered).p > 0.9
    assert not statistics.tost(scattered, 0.05).equivalent
    assert statistics.tost([0.01], 0.05) == statistics.Equivalence(None, False, 0.05)
    assert statistics.tost([0.01, 0.01], 0.05).equivalent
    assert not statistics.tost([0.05, 0.05], 0.05).equivalent
    with pytest.raises(ValueError, match="margin 0"):
        statistics.tost([0.1, 0.2], 0)


def test_wilcoxon_is_blocked_where_it_cannot_reject():
    assert min(stats.wilcoxon([1.0, 2, 3, 4, 5]).pvalue, 1) == 0.0625
    assert statistics.wilcoxon([1.0, 2, 3, 4, 5]) is None
    assert statistics.wilcoxon([1.0, 2, 3, 4, 5, 0]) is None
    assert statistics.wilcoxon([1.0, 2, 3, 4, 5, 6]) == pytest.approx(2 / 2**6)
    values = [1.1, -0.4, 2.2, 3.1, -0.2, 1.7, 0.9]
    assert statistics.wilcoxon(values) == stats.wilcoxon(values).pvalue


@pytest.mark.parametrize(("n", "power"), [(5, 0.30), (10, 0.79), (15, 0.96)])
def test_the_power_of_equivalence_is_the_known_one(n, power):
    """Spread 1 point, margin 1 point, no true difference."""
    assert statistics.equivalence_power(n, 1.0, 1.0) == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize("difference", [0.0, 0.4])
def test_the_power_of_equivalence_is_that_of_simulated_tests(difference):
    generator = np.random.default_rng(2)
    draws = generator.normal(difference, 1.0, size=(20_000, 12))
    error = draws.std(axis=1, ddof=1) / 12**0.5
    critical = stats.t.ppf(0.95, 11)
    equal = np.abs(draws.mean(axis=1)) < 1.2 - critical * error
    expected = statistics.equivalence_power(12, 1.0, 1.2, difference)
    assert np.mean(equal) == pytest.approx(expected, abs=0.011)


def test_seeds_needed_is_the_first_number_with_enough_power():
    for sd, margin in ((1.0, 1.0), (2.0, 1.0), (0.3, 1.0)):
        needed = statistics.seeds_needed(sd, margin)
        assert statistics.equivalence_power(needed, sd, margin) >= 0.8
        assert needed == 2 or statistics.equivalence_power(needed - 1, sd, margin) < 0.8
    assert statistics.seeds_needed(2.0, 1.0) > 30
    assert statistics.seeds_needed(0.0, 1.0) == 2
    assert statistics.seeds_needed(1.0, 1.0, difference=0.999) is None
    assert statistics.seeds_needed(0.0, 1.0, difference=1.0) is None
    for wrong in ({"sd": -1.0}, {"margin": 0.0}, {"power": 1.0}):
        with pytest.raises(ValueError, match="out of range"):
            statistics.seeds_needed(**{"sd": 1.0, "margin": 1.0, **wrong})


def test_seeds_needed_beyond_the_margin_show_the_difference():
    """True difference 2 margins, spread 1 margin: simulated, the interval clears the margin."""
    needed = statistics.seeds_needed(1.0, 1.0, difference=-2.0)
    draws = np.random.default_rng(3).normal(2.0, 1.0, size=(4000, needed))
    half = stats.t.ppf(0.975, needed - 1) * draws.std(axis=1, ddof=1) / needed**0.5
    power = np.mean(draws.mean(axis=1) - half > 1.0)
    assert 0.78 < power < 0.88


def test_the_three_verdicts():
    forgotten = statistics.verdict([0.01, -0.02, 0.0, 0.01, -0.01], 0.05)
    assert (forgotten.verdict, forgotten.more_seeds) == (Verdict.FORGOTTEN, None)
    for sign in (1, -1):
        beyond = statistics.verdict([sign * d for d in (0.4, 0.5, 0.45, 0.42)], 0.05)
        assert (beyond.verdict, beyond.more_seeds) == (Verdict.NOT_FORGOTTEN, None)
    values = [0.06, -0.05, 0.02, -0.03, 0.05]
    unclear = statistics.verdict(values, 0.05)
    assert unclear.verdict is Verdict.INCONCLUSIVE
    sd = float(np.std(values, ddof=1))
    needed = statistics.seeds_needed(sd, 0.05, difference=float(np.mean(values)))
    assert unclear.more_seeds == needed - 5 > 0
    single = statistics.verdict([0.0], 0.05)
    assert (single.verdict, single.more_seeds) == (Verdict.INCONCLUSIVE, None)


def test_an_interval_across_the_margin_is_inconclusive():
    """Clearly not 0 (p < 0.01), yet neither within nor beyond the margin."""
    values = [0.04, 0.06, 0.05, 0.07, 0.03]
    assert statistics.summarise_differences(values).p < 0.01
    assert statistics.verdict(values, 0.05).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("values", [[], [math.nan], [[1.0]]])
def test_what_is_no_list_of_numbers_is_refused(values):
    for call in (
        statistics.summarise_differences,
        statistics.wilcoxon,
        lambda v: statistics.tost(v, 1.0),
    ):
        with pytest.raises(ValueError, match="finite numbers"):
            call(values)
    with pytest.raises(ValueError, match="same seeds"):
        statistics.paired([1.0, 2.0], [1.0])

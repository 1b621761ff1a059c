"""How much a round rests on some clients: the identities behind SIFU's bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.global_model.sensitivity import bound, delta_of, increment, sigma_of, threshold
from tests.support.past import forget, past, random_past, vector
from unlearning import arrays as named


def joint(round_, gone):
    """Return |Delta - Delta without gone|, straight from the definition."""
    everyone = named.weighted_mean(round_.values())
    others = named.weighted_mean(v for k, v in round_.items() if k not in gone)
    return named.norm(named.subtract(everyone, others))


def history_of(*rounds, keep=("globals", "updates", "sensitivities")):
    return past(vector(*[0.0] * next(iter(rounds[0].values()))[1]["w"].size), rounds, keep=keep)[0]


@pytest.mark.parametrize("rule", ["max", "set", "safe", "auto"])
@pytest.mark.parametrize("seed", range(10))
def test_for_one_client_every_rule_is_the_residual(seed, rule):
    """Oracle: p / (1 - p) |Delta_c - Delta| = |Delta - Delta without c|."""
    history, _, rounds = random_past(seed, rounds=1, clients=5)
    for client in rounds[0]:
        found = increment(history, 1, (client,), rule)
        np.testing.assert_allclose(list(found.values()), [joint(rounds[0], {client})], rtol=1e-9)


@pytest.mark.parametrize("seed", range(60))
def test_set_is_the_joint_residual_and_safe_is_never_less(seed):
    history, _, rounds = random_past(seed, rounds=1, clients=6, scale=3.0)
    gone = set(sorted(rounds[0])[:2])
    if gone == set(rounds[0]):
        return
    truth = joint(rounds[0], gone)
    assert increment(history, 1, gone, "set") == {-1: pytest.approx(truth, rel=1e-9)}
    assert increment(history, 1, gone, "auto") == increment(history, 1, gone, "set")
    assert increment(history, 1, gone, "safe")[-1] >= truth * (1 - 1e-12)


def test_neither_the_largest_nor_the_sum_bounds_a_group():
    """Weights (.45, .45, .1): alone .82 each, 1.64 in sum, but 9 together."""
    round_ = {0: (45, vector(1.0)), 1: (45, vector(1.0)), 2: (10, vector(-9.0))}
    history = history_of(round_)
    alone = increment(history, 1, (0, 1), "max")
    assert alone == {0: pytest.approx(45 / 55), 1: pytest.approx(45 / 55)}
    assert increment(history, 1, (0, 1), "set") == {-1: pytest.approx(9)}
    assert increment(history, 1, (0, 1), "safe") == {-1: pytest.approx(9)}
    assert joint(round_, {0, 1}) == pytest.approx(9)


def test_opposite_clients_cancel_in_the_set_but_not_in_the_safe_rule():
    round_ = {0: (1, vector(3.0)), 1: (1, vector(-3.0)), 2: (2, vector(0.0))}
    history = history_of(round_)
    assert increment(history, 1, (0, 1), "set")[-1] == pytest.approx(0, abs=1e-12)
    assert increment(history, 1, (0, 1), "safe")[-1] == pytest.approx(3)


@pytest.mark.parametrize("rule", ["max", "set", "safe"])
def test_absent_clients_count_for_nothing_and_all_of_them_for_infinity(rule):
    history = history_of({0: (1, vector(1.0)), 1: (2, vector(2.0))})
    assert increment(history, 1, (7,), rule) == {}
    found = increment(history, 1, (0, 1), rule)
    assert found
    assert set(found.values()) == {math.inf}


def test_a_round_that_was_purged_counts_by_scalars():
    """Client 2's row is gone, its half of the weight stays: 1/8 |(1, 0) - 0| / (1 - 1/8)."""
    round_ = {0: (1, vector(1.0, 0)), 1: (3, vector(-1 / 3, 0)), 2: (4, vector(0, 0.0))}
    history = history_of(round_)
    history.purge(forget(2))
    assert increment(history, 1, (0,), "set") == {-1: pytest.approx(1 / 7)}
    assert increment(history, 1, (0, 1), "set") == {-1: math.inf}


def test_set_falls_back_to_safe_where_updates_were_not_kept():
    round_ = {0: (1, vector(3.0)), 1: (1, vector(-3.0)), 2: (2, vector(0.0))}
    scalars = history_of(round_, keep=("globals", "sensitivities"))
    assert increment(scalars, 1, (0, 1), "auto")[-1] == pytest.approx(3)
    thin, _ = past(vector(0.0), [round_, round_], interval=2)
    assert increment(thin, 1, (0, 1), "set")[-1] == pytest.approx(0, abs=1e-12)
    assert increment(thin, 2, (0, 1), "set")[-1] == pytest.approx(3)


def test_bound_of_several_is_by_client_or_joint():
    scalars = {0: (0.5, 2.0), 1: (0.25, 4.0), 2: (0.25, 1.0)}
    assert bound(scalars, (0, 1), "max") == {0: 2.0, 1: pytest.approx(4 / 3)}
    assert bound(scalars, (0, 1), "safe") == {-1: 8.0}


@settings(max_examples=50)
@given(st.floats(1e-3, 100), st.floats(1e-9, 0.9), st.floats(1e-6, 1e3))
def test_threshold_and_noise_are_inverse(epsilon, delta, sigma):
    assert sigma_of(epsilon, delta, threshold(epsilon, delta, sigma)) == pytest.approx(sigma)


def test_threshold_of_the_authors_settings():
    """Epsilon 10, sigma .05, delta 1/100: .5 / sqrt(2 (ln 1.25 + ln 100)) = .1609."""
    assert threshold(10, 0.01, 0.05) == pytest.approx(0.16090, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_up_to_epsilon_one_the_formula_keeps_its_promise(epsilon):
    for delta in (1e-6, 1e-3, 0.1):
        assert delta_of(epsilon, 1.0, threshold(epsilon, delta, 1.0)) < delta


def test_beyond_epsilon_one_it_may_not():
    assert delta_of(10, 0.05, threshold(10, 0.1, 0.05)) > 0.4


@pytest.mark.parametrize(("epsilon", "sigma", "shift"), [(0.5, 1.0, 1.0), (3.0, 0.5, 1.0)])
def test_delta_is_the_integral_it_stands_for(epsilon, sigma, shift):
    """Delta = integral of max(0, f(x - shift) - e^epsilon f(x)), f the density of the noise."""
    x = np.linspace(-30, 30, 400_001)
    density = np.exp(-(x**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    moved = np.exp(-((x - shift) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    excess = np.maximum(0, moved - np.exp(epsilon) * density)
    assert delta_of(epsilon, sigma, shift) == pytest.approx(np.trapezoid(excess, x), rel=1e-6)


def test_delta_without_sensitivity_or_without_noise():
    assert delta_of(1.0, 0.0, 0.0) == 0.0
    assert delta_of(1.0, 0.0, 0.1) == 1.0

"""FedRecovery: residuals, their weights, and the noise, against the paper's formulas."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.global_model.fed_recovery import FedRecovery, epsilon_of, residual, sigma_of
from strategies.global_model.noise import check_drowning, noise_length, perturb
from strategies.local_model.fed_accum import FedAccum
from tests.support.past import forget, joined, past, random_past, vector
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError

# Client 1 has half of the examples in round 1 and is absent from round 2.
GOLDEN = [
    {0: (1, vector(4, -2)), 1: (2, vector(-1, 3)), 2: (1, vector(2, 2))},
    {0: (3, vector(-4, 0)), 2: (1, vector(0, 4))},
]


def answer(rounds, request, clients=3, final=None, **options):
    history, reached = past(vector(1, 1), rounds, keep=("updates",))
    strategy = joined(FedRecovery(**options), history, clients)
    return strategy.unlearn(request, history, reached if final is None else final), reached


def terms(round_):
    return [(client, count, update) for client, (count, update) in round_.items()]


def mean(round_, without=()):
    return named.weighted_mean(v for k, v in round_.items() if k not in without)["w"]


# The residual -------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 2), (0, 1, 3)])
@pytest.mark.parametrize("seed", range(20))
def test_residual_is_the_difference_of_two_means(seed, gone):
    """Oracle: Delta - Delta_{-U} = p_U / (1 - p_U) (Delta_U - Delta), for one and for several."""
    *_, answers = random_past(seed, rounds=1, clients=5)
    round_ = answers[0]
    found = residual(terms(round_), gone)
    if not set(round_) - set(gone):  # replay would not have moved: all of it is theirs
        np.testing.assert_allclose(found[1]["w"], mean(round_), rtol=1e-12, atol=1e-15)
        return
    np.testing.assert_allclose(found[0]["w"], mean(round_), rtol=1e-12, atol=1e-15)
    expected = mean(round_) - mean(round_, gone)
    np.testing.assert_allclose(found[1]["w"], expected, rtol=1e-12, atol=1e-15)
    if there := set(round_) & set(gone):
        p = sum(round_[k][0] for k in there) / sum(count for count, _ in round_.values())
        of_gone = mean(round_, set(round_) - there)
        paper = p / (1 - p) * (of_gone - mean(round_))
        np.testing.assert_allclose(found[1]["w"], paper, rtol=1e-12, atol=1e-15)


def test_residual_of_a_set_is_not_the_sum_of_single_residuals():
    """Weights (.45, .45, .1): alone .82 each, together 9; opposite directions would cancel."""
    round_ = {0: (45, vector(1.0)), 1: (45, vector(1.0)), 2: (10, vector(-9.0))}
    single = [residual(terms(round_), (k,))[1]["w"][0] for k in (0, 1)]
    both = residual(terms(round_), (0, 1))[1]["w"][0]
    np.testing.assert_allclose([*single, both], [45 / 55, 45 / 55, 9], rtol=1e-12)


def test_buffers_have_no_residual():
    update = {
        "w": np.ones(1, np.float32),
        "bn.running_var": np.ones(1, np.float32),
        "n": np.ones(1, int),
    }
    found = residual([(0, 1, update), (1, 1, update)], (1,))
    assert [set(part) for part in found] == [{"w"}, {"w"}]


# The correction -----------------------------------------------------------------------------


def test_golden():
    """Without client 1, from w after two rounds.

    round 1: Delta = ((4, -2) + 2 (-1, 3) + (2, 2)) / 4 = (1, 1.5); without 1: (3, 0);
             D = (-2, 1.5); |Delta|^2 = 3.25
    round 2: Delta = (-3, 1); D = 0; |Delta|^2 = 10
    w = (1, 1) + (1, 1.5) + (-3, 1) = (-1, 3.5); w - 3.25 / 13.25 D = (-1, 3.5) + .24528 (2, -1.5)
    Over prior rounds the weight of round 1 is 3.25 / 3.25.
    """
    after, before = answer(GOLDEN, forget(1))
    np.testing.assert_array_equal(before["w"], [-1, 3.5])
    share = 3.25 / 13.25
    np.testing.assert_allclose(after["w"], [-1 + 2 * share, 3.5 - 1.5 * share], rtol=1e-14)
    after, _ = answer(GOLDEN, forget(1), residual_scale=2.0)
    np.testing.assert_allclose(after["w"], [-1 + 4 * share, 3.5 - 3 * share], rtol=1e-14)
    after, _ = answer(GOLDEN, forget(1), normalise="prior")
    np.testing.assert_allclose(after["w"], [1, 2], rtol=1e-14)
    with pytest.raises(FederationError, match="did nothing"):
        answer(GOLDEN, forget(1), residual_scale=0.0)


def test_one_round_gives_exactly_the_round_without_the_client():
    """Where training was one round, the correction is what retraining would have made."""
    after, _ = answer(GOLDEN[:1], forget(1))
    np.testing.assert_allclose(after["w"], [4, 1], rtol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_all_residuals_taken_back_is_the_sum_of_the_others(seed):
    history, final, _ = random_past(seed)
    after = joined(FedRecovery(normalise="none"), history).unlearn(forget(1), history, final)
    others = joined(FedAccum(), history).unlearn(forget(1), history, final)
    np.testing.assert_allclose(after["w"], others["w"], rtol=1e-12)


def test_rounds_of_the_forgotten_alone_are_all_residual():
    """D = Delta where nobody else took part: (-2, 1.5) and (50, 50) are taken back."""
    rounds = [GOLDEN[0], {1: (5, vector(50, 50))}]
    after, before = answer(rounds, forget(1), normalise="none")
    np.testing.assert_allclose(after["w"], before["w"] - [-2, 1.5] - [50, 50], rtol=1e-14)
    after, _ = answer(rounds[1:], forget(1))
    np.testing.assert_allclose(after["w"], [1, 1], rtol=1e-14)


@pytest.mark.parametrize("normalise", ["all", "prior"])
def test_nothing_is_made_of_a_model_that_never_moved(normalise):
    rounds = [{0: (1, vector(0, 0)), 1: (1, vector(0, 0))}] * 2
    with pytest.raises(FederationError, match="every weight is as it was"):
        answer(rounds, forget(1), normalise=normalise)


def test_a_second_request_removes_what_is_left_of_the_second():
    """After client 1 is purged, the residual of 0 is that of the round of 0 and 2."""
    history, final = past(vector(1, 1), GOLDEN[:1])
    strategy = joined(FedRecovery(), history, 3)
    first = strategy.unlearn(forget(1), history, final)
    history.purge(forget(1))
    second = strategy.unlearn(forget(0, id="b"), history, first)
    np.testing.assert_allclose(second["w"], [3, 3], rtol=1e-14)  # (1, 1) + client 2's (2, 2)


def test_buffers_and_dtypes_stay():
    start = {"w": np.ones(2, np.float32), "running_var": np.ones(1, np.float32), "n": np.array(3)}
    step = {"w": np.ones(2, np.float32), "running_var": np.ones(1, np.float32), "n": np.array(5)}
    rounds = [{0: (1, step), 1: (1, {**step, "w": -step["w"]})}]
    history, final = past(start, rounds, keep=("updates",))
    strategy = joined(FedRecovery(noise_std=0.1), history, 2)
    after = strategy.unlearn(forget(1), history, final)
    assert named.mismatch(final, after) is None
    assert not np.array_equal(after["w"], final["w"])
    np.testing.assert_array_equal(after["running_var"], final["running_var"])
    assert after["n"] == 5


# The noise ----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.floats(1e-6, 1e6), st.floats(1e-12, 0.5), st.floats(1e-6, 1e6))
def test_noise_plugged_back_gives_epsilon(epsilon, beta, distance):
    sigma = sigma_of(epsilon, beta, distance)
    assert epsilon_of(sigma, beta, distance) == pytest.approx(epsilon, rel=1e-9)


def test_noise_agrees_with_the_classical_formula():
    """For d = 1, epsilon = .5, beta = 1e-5: 9.70, against sqrt(2 ln(1.25 / beta)) / .5 = 9.69."""
    assert sigma_of(0.5, 1e-5, 1.0) == pytest.approx(9.70, abs=0.005)


def test_the_claim_is_kept_and_logged(caplog):
    caplog.set_level(logging.INFO, logger="fedunlearn")
    history, final = past(
        vector(*[1.0] * 50), [{0: (1, vector(*[1.0] * 50)), 1: (1, vector(*[2.0] * 50))}]
    )
    strategy = joined(FedRecovery(epsilon=2.0, distance=0.1), history, 2)
    strategy.unlearn(forget(1), history, final)
    assert strategy.claim == (2.0, 1e-5, 0.1)
    strategy.epsilon = 0.0
    strategy.unlearn(forget(1), history, final)
    assert strategy.claim is None  # nothing is left of an earlier one
    assert "epsilon 2 but for probability 1e-05, on the assumption" in caplog.text
    strategy = joined(FedRecovery(noise_std=0.1), history, 2)
    strategy.unlearn(forget(1), history, final)
    assert strategy.claim is None
    assert "no statement" in caplog.text
    strategy = joined(FedRecovery(noise_std=0.1, distance=0.1), history, 2)
    strategy.unlearn(forget(1), history, final)
    assert strategy.claim == (pytest.approx(epsilon_of(0.1, 1e-5, 0.1)), 1e-5, 0.1)


def test_noise_that_would_drown_the_model_is_refused():
    history, final = past(vector(1, 1), GOLDEN, keep=("updates",))
    strategy = joined(FedRecovery(noise_std=10.0), history, 3)
    with pytest.raises(
        FederationError, match=r"standard deviation 10 has length 14\.1.*allow_drowning"
    ):
        strategy.unlearn(forget(1), history, final)
    strategy = joined(FedRecovery(noise_std=10.0, allow_drowning=True), history, 3)
    assert named.is_finite(strategy.unlearn(forget(1), history, final))


def test_every_request_draws_noise_of_its_own():
    history, final, _ = random_past(0)
    plain = joined(FedRecovery(), history).unlearn(forget(1), history, final)
    strategy = joined(FedRecovery(noise_std=0.1), history)
    noisy = strategy.unlearn(forget(1), history, final)
    again = joined(FedRecovery(noise_std=0.1), history).unlearn(forget(1), history, final)
    assert not np.allclose(noisy["w"], again["w"])  # nobody else can draw it
    keyed = []
    for _ in range(2):
        same = joined(FedRecovery(noise_std=0.1), history)
        same.federation.noise_key = b"given"
        keyed.append(same.unlearn(forget(1), history, final)["w"])
    np.testing.assert_array_equal(*keyed)
    second = strategy.unlearn(forget(2, id="b"), history, final)
    plain_second = joined(FedRecovery(), history).unlearn(forget(2), history, final)
    first_noise, second_noise = noisy["w"] - plain["w"], second["w"] - plain_second["w"]
    assert not np.allclose(first_noise, second_noise)


def test_requests_between_the_same_rounds_share_one_budget():
    history, final, _ = random_past(0)
    strategy = joined(FedRecovery(epsilon=1.0, distance=0.1, allow_drowning=True), history)
    for number, client in enumerate((1, 2), 1):
        strategy.unlearn(forget(client, id=str(client)), history, final)
        epsilon, beta, _ = strategy.claim
        assert (epsilon, beta) == pytest.approx((number, number * 1e-5))
    strategy.federation.completed += 1
    strategy.unlearn(forget(3, id="3"), history, final)
    assert strategy.claim[0] == pytest.approx(1.0)


def test_perturb_draws_the_right_noise_on_parameters_alone():
    size = (1 << 20) + 5  # more than one block
    model = {
        "w": np.zeros((size, 1), np.float32),
        "running_mean": np.zeros(3, np.float32),
        "n": np.array(1),
    }
    noisy = perturb(model, 0.5, np.random.default_rng(0))
    assert named.mismatch(model, noisy) is None
    assert noisy["w"].std() == pytest.approx(0.5, rel=0.01)
    assert abs(noisy["w"].mean()) < 0.005
    assert not np.array_equal(noisy["w"][:5], noisy["w"][-5:])
    assert not noisy["running_mean"].any()
    assert not model["w"].any()
    assert named.norm(noisy) == pytest.approx(noise_length(model, 0.5), rel=0.01)
    assert perturb(model, 0.0, np.random.default_rng(0)) is model


def test_drowning_is_told_by_lengths():
    model = vector(3, 4)
    check_drowning(model, 5 / np.sqrt(2) - 1e-9, remedy="less")
    with pytest.raises(FederationError, match=r"the model itself 5: .*less"):
        check_drowning(model, 5 / np.sqrt(2) + 1e-9, remedy="less")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epsilon": 1.0}, "distance"),
        ({"epsilon": 1.0, "distance": 1.0, "noise_std": 1.0}, "give one of them"),
        ({"beta": 1.0}, "beta"),
        ({"beta": 0.0}, "beta"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"normalise": "some"}, "all, prior, none"),
    ],
)
def test_options_without_a_meaning_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        FedRecovery(**options)

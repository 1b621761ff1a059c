"""HeavyBall: Polyak's recursion, retraining as a special case, and exactness."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.global_model.heavy_ball import HeavyBall, heavy_ball
from strategies.global_model.retrain import Retrain
from tests.support.sequences import answers_of_random_sequences, few_or_many
from tests.support.toy import ToyFederation
from unlearning.errors import ConfigError
from unlearning.records.history import History


def test_it_is_the_heavy_ball_of_the_paper() -> None:
    """w^{t+1} = w^t + alpha D^t + beta (w^t - w^{t-1}), for D of any rule, w^{-1} = w^0."""
    generator = np.random.default_rng(0)
    alpha, beta = 0.8, 0.6
    w, v = {"w": generator.normal(size=4)}, {}
    path = [w["w"], w["w"]]
    for _ in range(6):
        step = generator.normal(size=4)
        path.append(path[-1] + alpha * step + beta * (path[-1] - path[-2]))
        w, v = heavy_ball(w, {"w": w["w"] + step}, v, alpha, beta)
        np.testing.assert_allclose(w["w"], path[-1], rtol=1e-12)


def test_on_a_quadratic_it_needs_an_eighth_of_the_steps() -> None:
    """Eigenvalues 1 to 100, the classical alpha and beta: 80 steps to 1e-6 instead of 609."""
    values = np.linspace(1, 100, 20)

    def steps(alpha: float, beta: float) -> int:
        w, v = {"w": np.ones(20)}, {}
        for t in range(2000):
            if np.linalg.norm(w["w"]) < 1e-6 * np.sqrt(20):
                return t
            w, v = heavy_ball(w, {"w": w["w"] - values * w["w"]}, v, alpha, beta)
        return 2000

    fast = steps(4 / (10 + 1) ** 2, ((10 - 1) / (10 + 1)) ** 2)
    slow = steps(2 / 101, 0.0)
    assert fast < 100
    assert slow > 5 * fast


def test_buffers_are_those_of_the_mean() -> None:
    w = {"w": np.ones(2), "running_mean": np.zeros(2), "num_batches_tracked": np.array(3)}
    mean = {"w": np.zeros(2), "running_mean": np.ones(2), "num_batches_tracked": np.array(4)}
    moved, speed = heavy_ball(w, mean, {"w": np.full(2, 0.5)}, 1.0, 0.5)
    assert moved["w"].tolist() == [0.25, 0.25]
    assert moved["running_mean"].tolist() == [1, 1]
    assert moved["num_batches_tracked"] == 4
    assert speed.keys() == {"w"}


def test_without_momentum_it_is_retraining_bit_for_bit(tmp_path) -> None:
    plain = HeavyBall(momentum=0.0, step=1.0, share=1.0)
    assert ToyFederation(tmp_path).answers_alike(plain, Retrain())


def test_a_step_out_of_range_is_taken_again_with_half_the_rate(monkeypatch) -> None:
    """1e38 + 4 * 1e38 overflows float32, 1e38 + 2 * 1e38 does not."""
    strategy, w = HeavyBall(momentum=0.0), {"w": np.array([1e38], np.float32)}
    monkeypatch.setattr(strategy, "recorded", lambda *_: {"w": np.array([2e38], np.float32)})
    strategy._clean, strategy._step = History(), 4.0
    moved = strategy.combine(1, w, ())
    np.testing.assert_allclose(moved["w"], 3e38, rtol=1e-6)
    assert strategy._step == 2.0


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"step": 0.0}, {"share": 0.0}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        HeavyBall(**options)


@few_or_many(6)
def test_answers_to_random_sequences_do_not_depend_on_what_was_forgotten(tmp_path, number) -> None:
    for one, other in answers_of_random_sequences(HeavyBall, tmp_path, number):
        assert one == other

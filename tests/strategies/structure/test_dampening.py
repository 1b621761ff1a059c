"""Dampening: the paper's ratio, the right way round."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.structure.dampening import Dampening, dampened, mean_movement, relative_movement
from tests.support.toy import ToyFederation, request
from unlearning.errors import ConfigError, FederationError
from unlearning.records.history import History
from unlearning.request import Scope


def test_movements_are_means_over_a_clients_own_rounds() -> None:
    """Rounds 1 and 2 of client 1: |-3| and |1|, mean 2; client 0 was there once."""
    history, w = History(keep={"updates"}), {"w": np.array([0.0])}
    history.start(w)
    for t, updates in ((1, {0: 4.0, 1: -3.0}), (2, {1: 1.0})):
        with history.record(t, w) as entry:
            for client, step in updates.items():
                entry.add(client, 5, {"w": np.array([step])})
    found = {k: mean_movement(history, k) for k in (0, 1, 7)}
    assert found[0]["w"].tolist() == [4.0]
    assert found[1]["w"].tolist() == [2.0]
    assert found[7] is None


def test_only_where_the_leaver_moved_most_is_anything_shrunk() -> None:
    """Means of all: 2, 2, 1; of the leaver: 4, 2, 0. r = 1/2, 1, infinite; lambda r = 1/4."""
    moves = {0: {"w": np.array([0.0, 2.0, 2.0])}, 1: {"w": np.array([4.0, 2.0, 0.0])}}
    ratios = relative_movement(moves, frozenset({1}))
    assert ratios["w"].tolist() == [0.5, 1.0, np.inf]
    after = dampened({"w": np.array([8.0, 8.0, 8.0])}, ratios, 0.6, 0.5, 0.5)
    assert after["w"].tolist() == [2.0, 8.0, 8.0]
    capped = dampened({"w": np.array([8.0, 8.0, 8.0])}, ratios, 0.6, 5.0, 0.5)
    assert capped["w"].tolist() == [4.0, 8.0, 8.0]


def test_the_forty_weights_that_one_client_alone_moved_are_found() -> None:
    generator = np.random.default_rng(0)
    moves = {k: {"w": np.abs(generator.normal(size=400))} for k in range(10)}
    moves[3]["w"][:40] += 30
    hit = relative_movement(moves, frozenset({3}))["w"] < 0.25
    assert hit[:40].all()
    assert hit.sum() < 60
    scaled = {k: {"w": m["w"] * 7} for k, m in moves.items()}
    np.testing.assert_allclose(
        relative_movement(scaled, frozenset({3}))["w"],
        relative_movement(moves, frozenset({3}))["w"],
    )


def test_clients_alike_leave_the_model_as_it_is() -> None:
    moves = {k: {"w": np.ones(5)} for k in range(4)}
    ratios = relative_movement(moves, frozenset({1, 2}))
    w = {"w": np.arange(5.0)}
    assert dampened(w, ratios, 1.0, 0.1, 0.1)["w"].tolist() == w["w"].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.25])
def test_a_threshold_not_above_the_leavers_share_fails_the_request(tmp_path, threshold):
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    with pytest.raises(FederationError, match=r"1 of 4 clients .* selects no weight there"):
        toy.unlearn(Dampening(threshold=threshold), request(Scope.CLIENT), arrays)


def test_where_no_weight_is_below_the_threshold_the_request_says_which_one_would_do(tmp_path):
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    twin = toy.branch(tmp_path / "twin")
    with pytest.raises(FederationError, match=r"one above \S+ would") as told:
        toy.unlearn(Dampening(threshold=0.3), request(Scope.CLIENT), arrays)
    least = float(str(told.value).partition("one above ")[2].split()[0])
    strategy = Dampening(threshold=least + 0.005)
    twin.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert strategy.shrunk > 0


def test_buffers_stay_and_nobody_is_asked(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    toy.asked.clear()
    strategy = Dampening(threshold=1.0)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert strategy.shrunk > 0
    assert not toy.asked
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"factor": -1.0}, {"most": 1.5}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Dampening(**options)

"""PruningClient: ranks, how much is cut, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.structure.pruning_client import PruningClient, agreement, pruned_share, ranks
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.request import Scope


def test_ranks_are_squared_differences_times_the_weight() -> None:
    model = {"w": np.array([[2.0, -3.0]]), "b": np.array([1.0])}
    found = ranks(model, {"w": np.array([[1.0, 1.0]])}, {"w": np.array([[3.0, 1.0]])})
    assert found["w"].tolist() == [[8.0, 0.0]]
    assert list(found) == ["w"]


def test_agreement_is_of_updates_and_begins_at_one_half() -> None:
    """Cosines of three unit vectors at 0, 60, 60 degrees... pairs .5, .5, 1: mean 2/3, z = 1/3."""
    a, b = np.array([1.0, 0.0]), np.array([0.5, np.sqrt(0.75)])
    assert agreement([a, b, 4 * b]) == pytest.approx(1 / 3)
    assert agreement([a, -a]) == 0
    assert agreement([a]) == 0
    assert agreement([a, 0 * a]) == 0
    assert pruned_share(0.5, 0.01, 0.05, 5) == pytest.approx(0.01 + 0.04 / 32)


def test_without_cutting_it_is_the_mean_of_the_others(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=3)
    history = toy.federation.history
    after = toy.unlearn(
        PruningClient(least=0.0, most=0.0, fine_tune_rounds=0), request(Scope.CLIENT), arrays
    )
    shares = history.weights(3, {1})
    step = named.weighted_sum((p, history.update(3, k)) for k, p in shares.items())
    expected = named.apply_update(history.arrays(3), step)
    np.testing.assert_allclose(after["layer.weight"], expected["layer.weight"], atol=1e-6)
    np.testing.assert_allclose(after["layer.bias"], expected["layer.bias"], atol=1e-6)


def test_the_exact_share_of_a_matrix_is_cut_and_nothing_else(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=3)
    toy.asked.clear()
    strategy = PruningClient(least=0.34, most=0.34, fine_tune_rounds=0)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert (after["layer.weight"] == 0).sum() == strategy.cut == 3
    assert (after["layer.bias"] != 0).all()
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()
    assert not toy.asked


def test_rounds_of_fine_tuning_follow_as_a_share_of_those_learned(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=4)
    toy.asked.clear()
    strategy = PruningClient(least=0.34, most=0.34, fine_tune_rounds=0.5)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert toy.federation.costs["unlearn"].client_rounds == 2 * 3
    assert (after["layer.weight"] != 0).all()  # what was cut is learned again


def test_a_leaver_missing_in_the_last_round_is_cut_out_of_the_model_in_force(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    draw = toy.federation.sample
    toy.federation.sample = lambda t, clients: tuple(c for c in draw(t, clients) if c != 1)
    arrays = toy.run(PruningClient(), arrays, rounds=1)
    after = toy.unlearn(
        PruningClient(least=0.12, most=0.12, fine_tune_rounds=0), request(Scope.CLIENT), arrays
    )
    same = after["layer.weight"] == arrays["layer.weight"]
    assert (~same).sum() == 1
    assert after["layer.weight"][~same] == 0


@pytest.mark.parametrize("options", [{"least": 0.2}, {"most": 1.1}, {"power": -1.0}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError):
        PruningClient(**options)

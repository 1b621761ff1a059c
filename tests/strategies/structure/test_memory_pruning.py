"""MemoryPruning and ParameterEstimation: which weights are reset, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.derivatives import gauss_newton_diagonal
from clients.local import Local
from clients.state import arrays_of, load_arrays
from clients.steps import Shard
from clients.steps.diagonal import diagonal
from clients.steps.train import train
from clients.steps.train_masked import train_masked
from strategies import holdings
from strategies.structure.memory_pruning import MemoryPruning, reset_idle
from strategies.structure.parameter_estimation import ParameterEstimation, information
from strategies.structure.random_reset import RandomReset
from tests.support.toy import TRAIN, ToyFederation, ToyModel, request
from tests.support.toy import shard as points
from unlearning import arrays as named
from unlearning.errors import FederationError
from unlearning.models.selection import largest_of_each, redrawn, smallest, weights
from unlearning.protocol import FREE
from unlearning.request import Scope


def local(data: Shard, extras: named.Arrays | None = None) -> Local:
    empty = data.take(torch.arange(0))
    return Local(data, empty, empty, fresh_model=lambda seed: nn.Identity(), extras=extras or {})


def test_norm_scales_and_buffers_are_never_chosen() -> None:
    model = {
        "conv.weight": np.zeros((2, 1)),
        "conv.bias": np.zeros(2),
        "bn.weight": np.ones(2),
        "bn.running_var": np.ones(2),
        "frozen.weight@state": np.ones((2, 2)),
    }
    assert list(weights(model)) == ["conv.weight", "conv.bias"]


def test_the_smallest_over_the_whole_model_are_taken_ties_by_place() -> None:
    found = smallest({"a": np.array([[5.0, 0.0]]), "b": np.array([0.0, 0.0, 9.0])}, 0.5)
    assert found["a"].tolist() == [[False, True]]
    assert found["b"].tolist() == [True, False, False]
    assert not any(mask.any() for mask in smallest({"a": np.zeros(3)}, 0.0).values())
    assert largest_of_each({"a": np.array([1.0, 1.0, 2.0, 0.0])}, 0.5)["a"].tolist() == [
        True, False, True, False,
    ]  # fmt: skip


def test_idle_weights_get_fresh_values() -> None:
    """Moves 0, 3, -1, 2; half of four are reset: the first and the third."""
    before, after = {"b": np.array([1.0, 1, 1, 1])}, {"b": np.array([1.0, 4, 0, 3])}
    found, count = reset_idle(before, after, {"b": np.full(4, 9.0)}, 0.5)
    assert found["b"].tolist() == [9.0, 4.0, 9.0, 3.0]
    assert count == 2


def test_fresh_values_are_those_of_the_initialiser_in_another_order() -> None:
    array = np.random.default_rng(0).normal(size=(6, 5))
    one, other = redrawn(array, [1, 2]), redrawn(array, [1, 3])
    assert sorted(one.ravel()) == sorted(array.ravel())
    assert one.tolist() != other.tolist()
    assert one.tolist() == redrawn(array, [1, 2]).tolist()


def test_with_nothing_to_reset_it_is_a_round_of_training_and_fails(tmp_path, monkeypatch) -> None:
    toy = ToyFederation(tmp_path / "a")
    arrays = toy.learn(rounds=3)
    twin = toy.branch(tmp_path / "b")
    with pytest.raises(FederationError, match="share = 0 of the weights is less than one of them"):
        twin.unlearn(MemoryPruning(share=0.0, fine_tune_rounds=0), request(Scope.CLIENT), arrays)
    monkeypatch.setattr(holdings, "refuse_idle", lambda *told: None)
    after = toy.branch(tmp_path / "d").unlearn(
        MemoryPruning(share=0.0, fine_tune_rounds=0), request(Scope.CLIENT), arrays
    )
    tuned = toy.branch(tmp_path / "c")
    seeds = [[0, 4, client, 1] for client in (0, 2, 3)]  # of an unlearning round
    expected = trained_by(tuned, arrays, seeds)
    assert named.digest(after) == named.digest(expected)


def trained_by(toy: ToyFederation, arrays: named.Arrays, seeds: list[list[int]]) -> named.Arrays:
    terms = []
    for seed in seeds:
        model = ToyModel(0)
        load_arrays(model, arrays)
        data = toy.shards[seed[2]]
        train(model, local(data), TRAIN, np.random.default_rng(seed))
        terms.append((len(data), named.delta(arrays, arrays_of(model))))
    return named.apply_update(arrays, named.weighted_mean(terms))


def test_with_everything_reset_it_is_a_fresh_model(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays, strategy = toy.learn(rounds=2), MemoryPruning(share=1.0, fine_tune_rounds=0)
    fresh = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert strategy.reset == sum(a.size for a in weights(arrays).values())
    assert sorted(fresh["layer.weight"].ravel()) == sorted(toy.initial["layer.weight"].ravel())


def test_rounds_of_fine_tuning_follow_as_a_share_of_those_learned(tmp_path) -> None:
    """A half of four rounds: what was reset moves on, by ordinary rounds of those who stay."""
    toy = ToyFederation(tmp_path / "a")
    arrays = toy.learn(rounds=4)
    strategy = MemoryPruning(share=1.0, fine_tune_rounds=0.5)
    after = toy.branch(tmp_path / "b").unlearn(strategy, request(Scope.CLIENT), arrays)
    twin = toy.branch(tmp_path / "c")
    only = MemoryPruning(share=1.0, fine_tune_rounds=0)
    expected = twin.unlearn(only, request(Scope.CLIENT), arrays)
    for number in (2, 3):
        expected = trained_by(twin, expected, [[0, 4 + number, client, 1] for client in (0, 2, 3)])
    assert named.digest(after) == named.digest(expected)
    assert strategy.reset == only.reset


def test_the_leavers_data_have_no_say(tmp_path) -> None:
    """At one and the same model, the answer does not change when the leaver's data do."""
    toy = ToyFederation(tmp_path / "a")
    arrays, found = toy.learn(rounds=2), set()
    for salt in (0.0, 5.0):
        twin = toy.branch(tmp_path / str(salt))
        twin.shards[1].features.add_(salt)
        found.add(named.digest(twin.unlearn(MemoryPruning(), request(Scope.CLIENT), arrays)))
    assert len(found) == 1


# Parameter estimation -------------------------------------------------------------------------


def test_information_is_half_the_squared_share() -> None:
    found = information({"w": np.array([3.0, 0, 2])}, {"w": np.array([4.0, 5, 2])})
    assert found["w"].tolist() == [0.28125, 0.0, 0.5]


def test_curvature_may_be_measured_on_a_share_of_the_examples() -> None:
    """All of them at 1, rounded up below; each keeps its sum over classes, as gradients cost."""
    model, data = nn.Linear(3, 3), points(0, 7)
    seen = replace(local(data), forget=data.take(torch.arange(3)))
    whole, part = (
        diagonal(model, seen, {"share": share}, np.random.default_rng(0)) for share in (1.0, 0.5)
    )
    assert [whole.examples_processed, part.examples_processed] == [3 * (7 + 3), 3 * (4 + 2)]
    plain = diagonal(model, seen, {}, np.random.default_rng(0))
    assert named.digest(whole.arrays) == named.digest(plain.arrays)
    assert named.digest(part.arrays) != named.digest(plain.arrays)
    assert part.num_examples == 10


def test_gauss_newton_of_a_linear_model_is_known() -> None:
    """For logits Wx: h_cj = mean p_c (1 - p_c) x_j^2."""
    torch.manual_seed(0)
    model, data = nn.Linear(3, 3), points(0, 7)
    found, classes = gauss_newton_diagonal(model, data)
    p = model(data.features).softmax(1).detach()
    spread = p * (1 - p)
    expected = spread.T @ data.features.square() / len(data)
    assert classes == 3
    torch.testing.assert_close(found["weight"], expected)
    torch.testing.assert_close(found["bias"], spread.mean(0))


def test_masked_training_moves_the_free_entries_alone() -> None:
    data = points(0, 12)
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    free = np.array([[True, False, False]] * 3)
    settings = {**TRAIN, "weight_decay": 0.1}
    extras = {f"{FREE}weight": free}
    train_masked(model, local(data, extras), settings, np.random.default_rng(0))
    moved = (model.weight != before).numpy()
    assert moved.tolist() == free.tolist()


def test_with_everything_free_it_is_training_bit_for_bit() -> None:
    found = []
    for step in (train, train_masked):
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
        extras = {f"{FREE}weight": np.ones((3, 3), bool), f"{FREE}bias": np.ones(3, bool)}
        step(model, local(points(0, 12), extras), TRAIN, np.random.default_rng(0))
        found.append(model.weight.detach().clone())
    assert torch.equal(*found)


def test_only_what_was_reset_moves_in_the_rounds_that_follow(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    strategy = ParameterEstimation(share=0.34)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert 0 < strategy.reset <= 3 + 1
    changed = sum(int((after[n] != arrays[n]).sum()) for n in named.parameters(arrays))
    assert changed == strategy.reset
    assert (1, "diagonal") in toy.asked
    assert (1, "train_masked") not in toy.asked


def test_a_random_reset_takes_its_share_by_chance_and_asks_nobody(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    toy.federation.recovery_rounds = 0
    strategy = RandomReset(share=0.5)
    toy.asked.clear()
    after = toy.unlearn(strategy, request("client"), arrays)
    changed = sum(int((after[n] != arrays[n]).sum()) for n in weights(arrays))
    assert strategy.reset == changed == 6  # of 9 weights and 3 biases
    assert not toy.asked
    fresh = toy.initial["layer.weight"]
    moved = after["layer.weight"] != arrays["layer.weight"]
    assert np.isin(after["layer.weight"][moved], fresh).all()
    none = toy.branch(tmp_path / "none")
    with pytest.raises(FederationError, match="RandomReset did nothing"):
        none.unlearn(RandomReset(share=0.0), request("client"), arrays)

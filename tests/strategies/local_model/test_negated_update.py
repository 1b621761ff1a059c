"""NegatedUpdate: the identities of a subtracted update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.local import Local
from clients.state import arrays_of, load_arrays
from clients.steps.train import train
from strategies.local_model.negated_update import NegatedUpdate, negated
from tests.support.toy import TRAIN, ToyFederation, ToyModel, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.request import Scope

LEAVER = 1


def update_of(toy: ToyFederation, arrays: Arrays, client: int, number: int) -> Arrays:
    """Return what a client's ordinary training adds, at the address of an unlearning round."""
    model, data = ToyModel(0), toy.shards[client]
    load_arrays(model, arrays)
    empty = data.take(torch.arange(0))
    local = Local(data, empty, empty, fresh_model=lambda seed: nn.Identity())
    train(model, local, TRAIN, np.random.default_rng([0, number, client, 1]))
    return named.delta(arrays, arrays_of(model))


@pytest.fixture
def learned(tmp_path) -> tuple[ToyFederation, Arrays]:
    toy = ToyFederation(tmp_path)
    return toy, toy.learn(rounds=3)


def test_alone_it_is_the_leavers_update_negated(learned) -> None:
    toy, arrays = learned
    update = update_of(toy, arrays, LEAVER, 4)
    strategy = NegatedUpdate(strength=2.0, trust=1e6)
    after = toy.unlearn(strategy, request(Scope.CLIENT, LEAVER), arrays)
    for name in named.parameters(arrays):
        np.testing.assert_allclose(after[name], arrays[name] - 2 * update[name], atol=1e-6)
    for name in ("running_mean", "num_batches_tracked"):
        assert after[name].tolist() == arrays[name].tolist()
    assert toy.asked[-1:] == [(LEAVER, "train_forgotten")]


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_regular_is_a_round_of_the_others_at_their_share(learned, strength) -> None:
    """The sum of w and p_k Delta_k over the others, less strength Delta_u; p over everyone."""
    toy, arrays = learned
    total = sum(toy.sizes.values())
    expected = negated(arrays, update_of(toy, arrays, LEAVER, 4), strength)
    for client in (0, 2, 3):
        part = named.scale(update_of(toy, arrays, client, 5), toy.sizes[client] / total)
        expected = named.apply_update(expected, part)
    strategy = NegatedUpdate(strength=strength, mode="regular", trust=1e6)
    after = toy.unlearn(strategy, request(Scope.CLIENT, LEAVER), arrays)
    for name in named.parameters(arrays):
        np.testing.assert_allclose(after[name], expected[name], atol=1e-6)


def test_minus_its_own_share_is_the_ordinary_round_with_the_leaver(learned) -> None:
    """With lambda = -1 in the paper's terms: the server goes along the update."""
    toy, arrays = learned
    total = sum(toy.sizes.values())
    strategy = NegatedUpdate(mode="regular", trust=1e6)
    strategy.strength = -toy.sizes[LEAVER] / total
    after = toy.unlearn(strategy, request(Scope.CLIENT, LEAVER), arrays)
    numbers = {0: 5, LEAVER: 4, 2: 5, 3: 5}
    mean = named.weighted_mean(
        (toy.sizes[c], update_of(toy, arrays, c, number)) for c, number in numbers.items()
    )
    expected = named.apply_update(arrays, mean)
    for name in named.parameters(arrays):
        np.testing.assert_allclose(after[name], expected[name], atol=1e-6)


def test_no_strength_is_no_step(learned) -> None:
    toy, arrays = learned
    with pytest.raises(FederationError, match="every weight is as it was"):
        toy.unlearn(NegatedUpdate(strength=0.0), request(Scope.SAMPLE, LEAVER), arrays)


def test_a_leaver_moves_the_model_only_so_far(learned) -> None:
    toy, arrays = learned
    after = toy.unlearn(NegatedUpdate(strength=1e6), request(Scope.CLIENT, LEAVER), arrays)
    moved = named.norm(named.delta(arrays, after))
    assert moved == pytest.approx(named.norm(named.delta(toy.initial, arrays)), rel=1e-5)


def test_samples_are_trained_on_alone(learned) -> None:
    toy, arrays = learned
    toy.unlearn(NegatedUpdate(), request(Scope.SAMPLE, LEAVER), arrays)
    assert toy.seen[-1] == (LEAVER, "train_forgotten", 3)


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"mode": "both"}, {"trust": -1.0}])
def test_options_have_ranges(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        NegatedUpdate(**options)

"""Fused: which entries the adapter has, and that nothing else ever moves."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.structure.fused import Fused, layers_of, masks_of, most_moved, sparse_masks
from tests.support.toy import ToyFederation, request
from unlearning.errors import ConfigError, FederationError
from unlearning.request import Scope


def test_a_layer_is_weight_and_bias_and_norms_are_none() -> None:
    model = {
        "a.weight": np.zeros((2, 2)),
        "a.bias": np.zeros(2),
        "norm.weight": np.ones(2),
        "norm.bias": np.ones(2),
        "b.weight": np.zeros((1, 2)),
    }
    layers = layers_of(model)
    assert layers == {"a": ("a.weight", "a.bias"), "b": ("b.weight",)}
    moved = {"a.weight": 1.0, "a.bias": 1.0, "b.weight": 1.5}
    assert most_moved(moved, layers, 0.5) == ("a",)
    assert most_moved(moved, layers, 0.0) == ("a",)
    assert most_moved(moved, layers, 1.0) == ("a", "b")


def test_masks_have_the_density_they_say() -> None:
    masks = sparse_masks({"w": np.zeros((10, 10))}, ["w"], 0.05, [0, 1])
    assert masks["w"].sum() == 5
    assert sparse_masks({"w": np.zeros((2, 2))}, ["w"], 1.0, [0])["w"].all()


def test_without_rounds_nothing_is_done_and_it_says_so(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    with pytest.raises(FederationError, match="every weight is as it was"):
        toy.unlearn(Fused(adapter_rounds=0), request(Scope.CLIENT), arrays)


def test_only_the_adapter_moves_in_recovery_and_later_requests_too(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    for client in (1, 2):
        toy.federation.ledger.receive(request(Scope.CLIENT, client))
        after = toy.run(Fused(density=0.34), arrays, rounds=1)
        masks = masks_of(toy.federation.history)
        if client == 1:
            first = masks
        assert {n: m.tolist() for n, m in masks.items()} == {
            n: m.tolist() for n, m in first.items()
        }
        for name, array in arrays.items():
            free = masks.get(name, np.zeros(array.shape, bool))
            assert (after[name] == array)[~free].all()
        assert (after["layer.weight"] != arrays["layer.weight"]).any()


@pytest.mark.parametrize("options", [{"density": 0.0}, {"layers": 2.0}, {"adapter_rounds": -1}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Fused(**options)

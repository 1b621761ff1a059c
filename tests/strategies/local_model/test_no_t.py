"""NoT: what is negated, what is not, and statistics that fit again afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import arrays_of
from clients.steps import Local, Shard, find
from strategies.local_model.no_t import NoT, layers_to_negate
from strategies.local_model.statistics import has_statistics, with_statistics
from strategies.negation import negate
from tests.support.toy import ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.protocol import Reply
from unlearning.request import Request, Scope

CNN = {
    "conv1.weight": np.array([[[[1.5]]], [[[-2.0]]]], np.float32),
    "conv1.bias": np.array([0.0, -3.0], np.float32),
    "bn1.weight": np.array([1.0, 1.0], np.float32),
    "bn1.running_mean": np.array([5.0, 6.0], np.float32),
    "bn1.num_batches_tracked": np.array(7),
    "fc.weight": np.array([[1.0, -4.0]], np.float32),
    "fc.bias": np.array([2.0], np.float32),
}


# What is negated ---------------------------------------------------------------------------------


def test_golden_negation():
    after = negate(CNN, ["conv1.weight"])
    assert after["conv1.weight"].ravel().tolist() == [-1.5, 2.0]
    assert list(after) == list(CNN)
    assert named.mismatch(CNN, after) is None


def test_only_the_listed_arrays_change():
    after = negate(CNN, ["conv1.weight", "fc.bias"])
    changed = {name for name in CNN if not np.array_equal(after[name], CNN[name])}
    assert changed == {"conv1.weight", "fc.bias"}


def test_negating_twice_is_the_identity_bit_for_bit():
    names = ["conv1.weight", "conv1.bias"]
    assert named.digest(negate(negate(CNN, names), names)) == named.digest(CNN)


@pytest.mark.parametrize("name", ["bn1.running_mean", "bn1.num_batches_tracked", "nothing"])
def test_what_is_no_parameter_has_no_negative(name):
    with pytest.raises(ValueError, match=name):
        negate(CNN, [name])


@pytest.mark.parametrize(
    ("layers", "include_bias", "expected"),
    [
        ("", False, ("conv1.weight",)),
        ("", True, ("conv1.weight", "conv1.bias")),
        ("fc", False, ("fc.weight",)),
        ("fc , conv1", True, ("fc.weight", "fc.bias", "conv1.weight", "conv1.bias")),
        ("bn1", False, ("bn1.weight",)),
        ("conv1.bias", False, ("conv1.bias",)),
        ("fc, fc.weight", False, ("fc.weight",)),
    ],
)
def test_layers_by_name(layers, include_bias, expected):
    assert layers_to_negate(CNN, layers, include_bias=include_bias) == expected


def test_a_token_or_a_norm_in_front_is_not_the_first_layer():
    vit = {
        "class_token": np.ones((1, 1, 4), np.float32),
        "norm.weight": np.ones(4, np.float32),
        "patches.weight": np.ones((4, 3), np.float32),
    }
    assert layers_to_negate(vit) == ("patches.weight",)


def test_a_model_that_is_one_layer_by_itself():
    bare = {"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}
    assert layers_to_negate(bare) == ("weight",)
    assert layers_to_negate(bare, include_bias=True) == ("weight", "bias")


@pytest.mark.parametrize("layers", ["conv", "bn1.running_mean", "conv2, fc"])
def test_an_unknown_layer_is_an_error_that_names_the_known_ones(layers):
    with pytest.raises(ConfigError, match=r"unknown layer .*known: conv1, bn1, fc"):
        layers_to_negate(CNN, layers)


def test_a_model_without_a_matrix_asks_for_a_name():
    with pytest.raises(ConfigError, match=r"name arrays .*there are: scale"):
        layers_to_negate({"scale": np.ones(3, np.float32)})


def test_a_negative_number_of_rounds_is_refused():
    with pytest.raises(ConfigError, match="fine_tune_rounds"):
        NoT(fine_tune_rounds=-1)


# Statistics --------------------------------------------------------------------------------------


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2, momentum=0.1)

    def forward(self, x):
        return self.norm(self.layer(x))


def taken_again(model, data, batch_size=4):
    local = Local(data, shard(1, 5), shard(2, 5), ToyModel)
    settings = {"batch_size": batch_size, "max_steps": 1}
    return find("statistics")(model, local, settings, np.random.default_rng(0))


def test_statistics_are_those_of_the_retained_data():
    """One batch of all the data: mean and unbiased variance of what the layer gives out."""
    data, model = shard(0, 9), Normed()
    with torch.no_grad():
        model.norm.running_mean += 100
        model.norm.num_batches_tracked += 9
        expected = model.layer(data.features)
    before = arrays_of(model)
    outcome = taken_again(model, data, batch_size=9)
    after = arrays_of(model)
    np.testing.assert_allclose(after["norm.running_mean"], expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(after["norm.running_var"], expected.var(0), rtol=1e-5)
    assert (outcome.num_examples, outcome.examples_processed) == (9, 9)
    for name in ("layer.weight", "layer.bias", "norm.weight"):
        np.testing.assert_array_equal(after[name], before[name])


def test_all_batches_weigh_alike_and_the_layers_stay_as_they_were():
    data, model = shard(0, 8), Normed()
    taken_again(model, data, batch_size=4)
    with torch.no_grad():
        expected = model.layer(data.features).mean(0)
    np.testing.assert_allclose(model.norm.running_mean, expected, atol=1e-6)
    assert model.norm.momentum == 0.1


def test_a_single_example_has_no_variance():
    data, model = shard(0, 5), Normed()
    outcome = taken_again(model, data, batch_size=4)
    assert outcome.examples_processed == 4
    alone = Normed()
    assert taken_again(alone, shard(0, 1)).examples_processed == 0
    assert torch.isfinite(alone.norm.running_var).all()
    empty = Shard(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert taken_again(Normed(), empty).num_examples == 0


def test_buffers_are_averaged_by_examples_and_parameters_are_the_servers():
    """(3 * 1 + 1 * 5) / 4 = 2; the counter is that of the last client."""

    def reply(client, count, mean, batches):
        arrays = {
            "w": np.full(2, 99.0, np.float32),
            "bn.running_mean": np.array([mean], np.float32),
            "bn.num_batches_tracked": np.array(batches),
        }
        return Reply(client, count, arrays)

    model = reply(0, 0, 0.0, 0).arrays | {"w": np.array([1.0, 2.0], np.float32)}
    after = with_statistics(model, [reply(0, 3, 1.0, 4), reply(1, 1, 5.0, 6)])
    assert after["w"].tolist() == [1.0, 2.0]
    assert after["bn.running_mean"].tolist() == [2.0]
    assert after["bn.num_batches_tracked"] == 6
    assert named.mismatch(model, after) is None


def test_which_models_keep_statistics():
    assert has_statistics(CNN)
    assert not has_statistics({name: CNN[name] for name in CNN if "running" not in name})


# In a federation ---------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path):
    return ToyFederation(tmp_path)


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_weights_are_negated_and_statistics_taken_without_the_leaver(toy, scope):
    before = toy.learn()
    toy.asked.clear()
    asked = request(scope)
    after = toy.unlearn(NoT(fine_tune_rounds=0), asked, before)
    np.testing.assert_array_equal(after["layer.weight"], -before["layer.weight"])
    np.testing.assert_array_equal(after["layer.bias"], before["layer.bias"])
    assert not np.array_equal(after["running_mean"], before["running_mean"])
    there = [client for client in range(4) if client not in asked.leavers]
    assert toy.asked == [(client, "statistics") for client in there]


def test_a_model_without_statistics_is_edited_without_a_message(toy):
    before = toy.learn()
    plain = named.parameters(before)
    strategy = NoT(fine_tune_rounds=0)
    strategy.join(toy.federation)
    after, rounds = strategy.prepare(request("client"), toy.federation.history, plain)
    assert rounds == 0
    assert named.digest(negate(after, ["layer.weight"])) == named.digest(plain)


def test_fine_tuning_rounds_train_the_others(toy):
    before = toy.learn()
    toy.asked.clear()
    after = toy.unlearn(NoT(fine_tune_rounds=2), request("client"), before)
    assert [step for _, step in toy.asked] == ["statistics"] * 3 + ["train"] * 6
    assert {client for client, _ in toy.asked} == {0, 2, 3}
    assert not np.array_equal(after["layer.weight"], -before["layer.weight"])


def test_a_client_without_data_left_does_not_take_part(toy):
    toy.shards[2] = toy.shards[2].take(toy.shards[2].labels == 2)
    before = toy.learn()
    after = toy.unlearn(NoT(fine_tune_rounds=1), Request(Scope.CLASS, classes=(2,)), before)
    assert (2, "statistics", 0) in toy.seen
    assert named.is_finite(after)


def test_a_client_that_never_took_part_changes_nothing(tmp_path):
    toy = ToyFederation(tmp_path, late={1: 99})
    before = toy.learn()
    assert named.digest(toy.unlearn(NoT(), request("client"), before)) == named.digest(before)


# Asked again -------------------------------------------------------------------------------------

TWO = {
    "one.weight": np.full((2, 2), 0.5, np.float32),
    "one.bias": np.ones(2, np.float32),
    "two.weight": np.full((3, 2), 0.25, np.float32),
    "two.bias": np.ones(3, np.float32),
}


def asked_of(toy, strategy, arrays, which):
    """Return what a strategy's server makes of a request, its notes taken over."""
    strategy.join(toy.federation)
    strategy.request = request("client", which)
    after, _ = strategy.prepare(strategy.request, toy.federation.history, arrays)
    if strategy.rewritten is not None:
        toy.federation.history.adopt(strategy.rewritten)
        strategy.discard()
    return after


def test_a_second_request_leaves_negated_what_stands_negated(toy):
    toy.federation.history.start(TWO)
    once = asked_of(toy, NoT(), TWO, 1)
    assert named.digest(once) == named.digest(negate(TWO, ["one.weight"]))
    assert named.digest(asked_of(toy, NoT(), once, 2)) == named.digest(once)


def test_where_rounds_were_learned_in_between_the_next_layer_is_negated(toy):
    toy.federation.history.start(TWO)
    once = asked_of(toy, NoT(include_bias=True), TWO, 1)
    learned = named.apply_update(once, named.scale(TWO, 0.1))
    twice = asked_of(toy, NoT(include_bias=True), learned, 2)
    assert named.digest(twice) == named.digest(negate(learned, ["two.weight", "two.bias"]))


@pytest.mark.parametrize("layers", ["one", "one, two"])
def test_a_layer_that_is_named_is_turned_again_with_a_warning(toy, layers, caplog):
    toy.federation.history.start(TWO)
    once = asked_of(toy, NoT(layers=layers), TWO, 1)
    assert not caplog.records
    learned = named.apply_update(once, named.scale(TWO, 0.1))
    asked_of(toy, NoT(layers=layers), learned, 2)
    assert "may bring back" in caplog.text


def test_a_model_trained_again_since_is_negated_anew(toy):
    """What another strategy put in the place of a negated layer does not stand negated."""
    toy.federation.history.start(TWO)
    asked_of(toy, NoT(), TWO, 1)
    after = asked_of(toy, NoT(), TWO, 2)
    assert named.digest(after) != named.digest(TWO)

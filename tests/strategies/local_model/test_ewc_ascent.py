"""EwcAscent: what matters to whom, the elastic ascent, and where it ends."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.derivatives import mean_gradient, mean_loss, mean_squared_gradient
from clients.participant import arrays_of
from clients.state import parameters_of
from clients.steps import Local, Shard, find
from clients.steps.elastic_ascend import _step
from strategies.local_model.ewc_ascent import EwcAscent, normalise
from tests.support.toy import ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError
from unlearning.protocol import Reply
from unlearning.request import Request, Scope

SETTINGS = {
    "ascent_rate": 0.1,
    "ascent_steps": 20,
    "batch_size": 4,
    "clip": 1.0,
    "penalty": 1.0,
    "stop_loss": 100.0,
}
EVEN = {"layer.weight": np.ones((3, 3), np.float32), "layer.bias": np.ones(3, np.float32)}


def ascended(settings=None, *, diagonal=None, forget=None, held_out=None):
    """Return a fresh model after the step, and the outcome."""
    model = ToyModel(1)
    local = Local(
        shard(0, 10),
        shard(3, 12) if forget is None else forget,
        shard(4, 6) if held_out is None else held_out,
        ToyModel,
        extras=EVEN if diagonal is None else diagonal,
    )
    step = find("elastic_ascend")
    outcome = step(model, local, {**SETTINGS, **(settings or {})}, np.random.default_rng(0))
    return model, outcome


def nothing():
    return shard(0, 0)


def moved(model):
    """Return by how much each parameter moved from the fresh model."""
    return named.parameters(named.delta(arrays_of(ToyModel(1)), arrays_of(model)))


# What matters ------------------------------------------------------------------------------------


def test_golden_diagonal():
    """With all weights 0, p = 1/3 each, and the gradient on the bias is p - onehot(y).

    Of three examples with label 0 and one with label 1: entry 0 is (3 * 4/9 + 1/9) / 4 = 13/36,
    entry 1 is (3 * 1/9 + 4/9) / 4 = 7/36, entry 2 is 1/9.
    """
    model = ToyModel(0)
    with torch.no_grad():
        for w in model.parameters():
            w.zero_()
    data = Shard(torch.randn(4, 3), torch.tensor([0, 0, 1, 0]))
    found = mean_squared_gradient(model, data)["layer.bias"]
    np.testing.assert_allclose(found, [13 / 36, 7 / 36, 1 / 9], rtol=1e-6)


def test_the_diagonal_is_the_mean_over_single_examples_in_any_chunks(monkeypatch):
    model, data = ToyModel(0), shard(0, 7)
    expected = {name: torch.zeros_like(w) for name, w in parameters_of(model).items()}
    for i in range(7):
        one = data.take(torch.tensor([i]))
        for name, g in mean_gradient(model, one, nn.functional.cross_entropy)[0].items():
            expected[name] += g.square() / 7
    monkeypatch.setattr("clients.derivatives._GRADIENT_VALUES", 3 * 12)
    for name, found in mean_squared_gradient(model, data).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-9)


def test_a_tensor_under_two_names_and_one_out_of_reach():
    model = ToyModel(0)
    model.twin, model.unused = model.layer.bias, nn.Parameter(torch.ones(2))
    found = mean_squared_gradient(model, shard(0, 5))
    assert set(found) == {"twin", "unused", "layer.weight"}  # the bias goes by its first name
    assert not found["unused"].any()


def test_the_step_answers_for_the_retained_data_or_some_of_them():
    local = Local(shard(0, 9), shard(1, 4), shard(2, 3), ToyModel)
    model, step = ToyModel(0), find("fisher")
    before = arrays_of(model)
    whole = step(model, local, {"fisher_examples": 0}, np.random.default_rng(0))
    assert (whole.num_examples, whole.examples_processed) == (9, 9)
    expected = mean_squared_gradient(model, local.retain)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, expected[name])
    some = step(model, local, {"fisher_examples": 4}, np.random.default_rng(0))
    assert (some.num_examples, some.examples_processed) == (4, 4)
    assert named.digest(some.arrays) != named.digest(whole.arrays)
    more = step(model, local, {"fisher_examples": 99}, np.random.default_rng(0))
    assert named.digest(more.arrays) == named.digest(whole.arrays)
    assert named.digest(arrays_of(model)) == named.digest(before)
    empty = step(model, replace(local, retain=nothing()), {}, np.random.default_rng(0))
    assert (empty.num_examples, empty.arrays) == (0, {})


def test_golden_normalisation():
    """(1, -2, 0) and (3) count as (1, 0, 0, 3), mean 1; then none is below 0.1."""
    found = normalise({"w": np.array([1.0, -2.0, 0.0]), "b": np.array([3.0])}, 0.1)
    np.testing.assert_allclose(found["w"], [1.0, 0.1, 0.1])
    np.testing.assert_allclose(found["b"], [3.0])
    doubled = normalise({"w": np.array([2.0, 0.0, 0.0]), "b": np.array([6.0])}, 0.1)
    assert named.digest(doubled) == named.digest(found)


def test_where_nothing_matters_everything_matters_alike():
    found = normalise({"w": np.zeros((2, 2)), "b": np.zeros(1)}, 0.0)
    assert all((array == 1).all() for array in found.values())
    assert found["w"].shape == (2, 2)


# The ascent --------------------------------------------------------------------------------------


def test_golden_step():
    """W = 1 + (0.5 * 2) / (1 + 0.5 * 3 * 2) = 1.25 for eta 0.5, gradient 2, penalty 3, F 2."""
    w = torch.tensor([1.0])
    w.grad = torch.tensor([2.0])
    start, pull = {"w": w.clone()}, {"w": torch.tensor([2.0])}
    _step({"w": w}, start, pull, rate=0.5, penalty=3.0)
    assert w.tolist() == [1.25]


def test_the_penalty_has_no_gradient_at_the_start():
    w = torch.tensor([1.7, -0.3])
    start = {"w": w.clone()}
    _step({"w": w}, start, {"w": torch.tensor([5.0, 9.0])}, rate=0.5, penalty=1e6)
    assert torch.equal(w, start["w"])


def test_the_loss_on_the_forget_set_rises_and_what_matters_stays():
    """Throughout, penalty * F_i * |w_i - w0_i| is at most |gradient_i|, and so at most the clip."""
    diagonal = {name: np.array(array) for name, array in EVEN.items()}
    diagonal["layer.weight"][0] = 50.0
    for penalty in (0.5, 5.0, 1e6):
        model, outcome = ascended({"penalty": penalty}, diagonal=diagonal)
        assert outcome.metrics["loss-after"] > outcome.metrics["loss-before"]
        for name, step in moved(model).items():
            # Single precision rounds the last place of a weight, not of its tiny step.
            assert (penalty * diagonal[name] * (np.abs(step) - 1e-7) <= 1.0).all()


def test_a_stronger_penalty_holds_back_more():
    far, near = (ascended({"penalty": p}) for p in (0.1, 3.0))
    assert named.norm(moved(far[0])) > 1.5 * named.norm(moved(near[0]))
    assert far[1].metrics["loss-after"] > near[1].metrics["loss-after"]


def test_entries_that_matter_more_move_less():
    diagonal = {name: np.array(array) for name, array in EVEN.items()}
    even, _ = ascended()
    diagonal["layer.bias"] *= 1000.0
    uneven, _ = ascended(diagonal=diagonal)
    ratio = np.abs(moved(uneven)["layer.bias"]) / np.abs(moved(even)["layer.bias"])
    assert (ratio < 0.05).all()


def test_the_automatic_penalty_is_set_after_five_steps():
    """Its gradient is then as long as that of the loss: penalty * |F (w - w0)| = |gradient|."""
    options = {"penalty": 0.0, "clip": 1e9}
    assert ascended({**options, "ascent_steps": 5})[1].metrics["penalty"] == 0
    five, _ = ascended({**options, "ascent_steps": 5, "batch_size": 12})
    _, six = ascended({**options, "ascent_steps": 6, "batch_size": 12})
    gradient, _ = mean_gradient(five, shard(3, 12), nn.functional.cross_entropy)
    length = math.sqrt(sum(float(g.double().square().sum()) for g in gradient.values()))
    expected = length / named.norm(moved(five))
    assert six.metrics["penalty"] == pytest.approx(expected, rel=1e-4)


def test_no_step_is_longer_than_the_clip_allows():
    model, _ = ascended({"ascent_steps": 1, "clip": 0.01, "penalty": 1e-9})
    assert named.norm(moved(model)) == pytest.approx(0.1 * 0.01, rel=1e-4)


def test_statistics_stay_and_work_is_counted():
    """12 to look at the loss; then per step a batch of 4 and a look: 3 * (4 + 12)."""
    model, outcome = ascended({"ascent_steps": 3})
    assert not model.running_mean.any()
    assert outcome.metrics["steps"] == 3
    assert (outcome.num_examples, outcome.examples_processed) == (12, 12 + 3 * (4 + 12))


def test_the_ascent_ends_where_the_loss_is_reached():
    _, outcome = ascended({"stop_loss": 1.5, "ascent_steps": 500, "penalty": 1e-6})
    assert 1.5 <= outcome.metrics["loss-after"] < 1.7
    again, same = ascended(
        {"stop_loss": 1.5, "ascent_steps": outcome.metrics["steps"], "penalty": 1e-6}
    )
    assert same.metrics["loss-after"] == outcome.metrics["loss-after"]
    assert mean_loss(again, shard(3, 12)) == pytest.approx(same.metrics["loss-after"])


def test_as_if_unseen_is_the_loss_on_held_out_data_or_a_blind_guess():
    automatic = {"stop_loss": 0.0, "ascent_steps": 1}
    held_out = mean_loss(ToyModel(1), shard(4, 6))
    assert ascended(automatic)[1].metrics["stop-loss"] == pytest.approx(held_out)
    for settings, data in (({"forget_class": True}, None), ({}, nothing())):
        _, outcome = ascended({**automatic, **settings}, held_out=data)
        assert outcome.metrics["stop-loss"] == pytest.approx(math.log(3))


def test_a_loss_that_is_high_already_takes_no_step():
    model, outcome = ascended({"stop_loss": 1e-3})
    assert outcome.metrics["steps"] == 0
    assert named.digest(arrays_of(model)) == named.digest(arrays_of(ToyModel(1)))


def test_without_a_forget_set_there_is_nothing_to_do():
    model, outcome = ascended(forget=nothing())
    assert outcome.num_examples == 0
    assert named.digest(arrays_of(model)) == named.digest(arrays_of(ToyModel(1)))


@pytest.mark.parametrize("diagonal", [{}, {"layer.bias": np.ones(3)}, {**EVEN, "layer.bias": 1}])
def test_a_diagonal_that_fits_another_model_is_refused(diagonal):
    with pytest.raises(FederationError, match="fits another model"):
        ascended(diagonal={name: np.asarray(array) for name, array in diagonal.items()})


# In a federation ---------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path):
    return ToyFederation(tmp_path)


def serve(toy, asked, **options):
    """Learn and unlearn; return the models before and after."""
    before = toy.learn()
    toy.asked.clear()
    strategy = EwcAscent(**{"ascent_rate": 0.3, "stop_loss": 2.0, **options})
    return before, toy.unlearn(strategy, asked, before)


def loss_on(arrays, data):
    model = ToyModel(0)
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return mean_loss(model, data)


@pytest.mark.parametrize(
    ("scope", "holders"), [("client", [1]), ("sample", [1]), ("class", [0, 1, 2, 3])]
)
def test_the_remaining_say_what_matters_and_the_holders_ascend(toy, scope, holders):
    asked = request(scope, 1)
    before, after = serve(toy, asked, penalty=0.01)
    there = [client for client in range(4) if client not in asked.leavers]
    assert toy.asked == [
        *((client, "fisher") for client in there),
        *((client, "elastic_ascend") for client in holders),
    ]
    gone = toy.shards[1]
    if scope == "sample":
        gone = gone.take(torch.tensor([0, 2, 5]))
    if scope == "class":
        gone = gone.take(gone.labels == 2)
    assert loss_on(after, gone) > loss_on(before, gone) + 0.2
    np.testing.assert_array_equal(after["running_mean"], before["running_mean"])
    assert after["num_batches_tracked"] == before["num_batches_tracked"]


def test_only_a_class_ends_at_a_blind_guess(toy):
    for scope, expected in (("client", False), ("sample", False), ("class", True)):
        strategy, _ = prepared(toy, request(scope, 1))
        assert strategy.instruct(2)[1].settings["forget_class"] is expected


def test_a_class_is_climbed_to_a_blind_guess(tmp_path):
    toy = ToyFederation(tmp_path, clients=2)
    _, after = serve(toy, request("class"), stop_loss=0.0, ascent_steps=200, penalty=1e-3)
    gone = [s.take(s.labels == 2) for s in toy.shards.values()]
    both = Shard(torch.cat([s.features for s in gone]), torch.cat([s.labels for s in gone]))
    assert loss_on(after, both) == pytest.approx(math.log(3), abs=0.25)


def prepared(toy, asked, **options):
    before = toy.learn()
    strategy = EwcAscent(**options)
    strategy.join(toy.federation)
    strategy.prepare(asked, toy.federation.history, before)
    return strategy, before


def diagonal(value):
    return {name: np.full_like(array, value) for name, array in EVEN.items()}


def test_golden_diagonal_of_the_federation(toy):
    """(6 * 1 + 2 * 5) / 8 = 2 everywhere but in one entry: normalised to 1, that one to 0.5.

    The odd entry is (6 * 1 + 2 * 1) / 8 = 1; the mean of eleven 2s and one 1 is 23/12.
    """
    strategy, before = prepared(toy, request("client", 1))
    other = diagonal(5.0)
    other["layer.bias"][0] = 1.0
    same = strategy.combine(1, before, [Reply(0, 6, diagonal(1.0)), Reply(2, 2, other)])
    assert same is before
    sent = strategy.instruct(2)[1].extras
    np.testing.assert_allclose(sent["layer.weight"], np.full((3, 3), 2 * 12 / 23), rtol=1e-6)
    np.testing.assert_allclose(sent["layer.bias"], np.array([1, 2, 2]) * 12 / 23, rtol=1e-6)


def test_golden_mean_of_two_holders(toy):
    """Moved by 0.1 on 3 examples and by -0.3 on 1: (0.3 - 0.3) / 4 = 0. Buffers are not heard."""
    strategy, before = prepared(toy, request("client", 1), trust=10.0)
    replies = [
        Reply(c, n, {k: a + a.dtype.type(x) for k, a in before.items()}, {"steps": 3})
        for c, n, x in ((1, 3, 0.1), (2, 1, -0.3))
    ]
    after = strategy.combine(2, before, replies)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, atol=1e-6)
    np.testing.assert_array_equal(after["running_mean"], before["running_mean"])
    assert named.mismatch(before, after) is None


def test_a_malicious_holder_moves_the_model_no_farther_than_it_may(toy):
    strategy, before = prepared(toy, request("client", 1), trust=0.5)
    wild = {name: array + array.dtype.type(7) for name, array in before.items()}
    after = strategy.combine(2, before, [Reply(1, 5, wild)])
    travelled = named.norm(named.delta(toy.federation.history.initial, before))
    step = named.norm(named.delta(before, after))
    assert step == pytest.approx(0.5 * travelled, rel=1e-5)


def test_diagonals_that_do_not_fit_are_left_out_and_without_any_it_fails(toy, caplog):
    strategy, before = prepared(toy, request("client", 1))
    odd = Reply(0, 6, {"layer.bias": np.ones(3, np.float32)})
    with caplog.at_level(logging.WARNING, "fedunlearn"):
        strategy.combine(1, before, [odd, Reply(2, 2, diagonal(5.0))])
    assert "client 0 was quarantined" in caplog.text
    assert (strategy.instruct(2)[1].extras["layer.bias"] == 1).all()
    with pytest.raises(FederationError, match="no remaining client sent a Fisher diagonal"):
        strategy.combine(1, before, [odd])


def test_an_ascent_that_ended_before_it_began_is_said(toy, caplog):
    with caplog.at_level(logging.WARNING, "fedunlearn"):
        before, after = serve(toy, request("client", 1), stop_loss=1e-3)
    assert "client 1: the loss on its forget set" in caplog.text
    assert "nothing was unlearned there; set stop_loss higher" in caplog.text
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6)


def test_the_diagonal_is_dropped_in_the_end(toy):
    strategy = EwcAscent()
    toy.unlearn(strategy, request("class"), toy.learn())
    assert strategy._fisher == {}


def test_a_holder_that_does_not_answer_fails_the_request_in_words(toy):
    def lost(arrays):
        raise RuntimeError("gone")

    before = toy.learn()
    toy.faults[1] = lost
    with pytest.raises(FederationError, match=r"0 of 1 clients .*client 1: .*gone"):
        toy.unlearn(EwcAscent(), request("client", 1), before)


def test_a_client_that_holds_only_the_class_has_nothing_that_matters(toy):
    toy.shards[2] = toy.shards[2].take(toy.shards[2].labels == 2)
    before = toy.learn()
    toy.seen.clear()
    toy.unlearn(EwcAscent(), Request(Scope.CLASS, classes=(2,)), before)
    mine = [(step, count) for client, step, count in toy.seen if client == 2]
    assert mine == [("fisher", 0), ("elastic_ascend", len(toy.shards[2]))]


def test_a_client_that_never_took_part_changes_nothing(tmp_path):
    toy = ToyFederation(tmp_path, late={1: 99})
    before, after = serve(toy, request("client", 1))
    assert named.digest(after) == named.digest(before)
    assert toy.asked == []


@pytest.mark.parametrize(
    "options",
    [{"ascent_rate": 0}, {"ascent_steps": 0}, {"penalty": -1}, {"fisher_floor": -1}, {"trust": -1}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        EwcAscent(**options)

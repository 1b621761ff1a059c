"""MoDe: how far the model drifts, who trains what, and whose labels guide."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import arrays_of
from clients.steps import Local, Shard, find
from clients.steps.guide import _labels
from strategies.base import UnlearningStrategy
from strategies.local_model.mo_de import MoDe, degrade
from tests.support.toy import ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError
from unlearning.request import Request, Scope

SETTINGS = {"local_epochs": 3, "batch_size": 4, "learning_rate": 0.3}


def local(retain, forget, teacher):
    return Local(retain, forget, shard(0, 0), ToyModel, extras=arrays_of(teacher))


def guided(retain, forget, teacher, seed=0):
    """Return the model that the step makes of a fresh one, and its outcome."""
    model = ToyModel(1)
    step = find("guide")
    outcome = step(model, local(retain, forget, teacher), SETTINGS, np.random.default_rng(seed))
    return model, outcome


def sure_of(label):
    """Return a model that answers the same to everything."""
    model = ToyModel(2)
    with torch.no_grad():
        model.layer.bias.copy_(torch.nn.functional.one_hot(torch.tensor(label), 3) * 50.0)
    return model


# Erasure -----------------------------------------------------------------------------------------


def test_golden_degradation():
    """0.75 * (4, -8) + 0.25 * (0, 4) = (3, -5); statistics and counters are those of the model."""
    model = {
        "w": np.array([4.0, -8.0], np.float32),
        "bn.running_var": np.array([2.0], np.float32),
        "bn.num_batches_tracked": np.array(3),
    }
    other = {
        "w": np.array([0.0, 4.0], np.float32),
        "bn.running_var": np.array([9.0], np.float32),
        "bn.num_batches_tracked": np.array(8),
    }
    after = degrade(model, other, 0.75)
    assert after["w"].tolist() == [3.0, -5.0]
    assert after["bn.running_var"].tolist() == [2.0]
    assert after["bn.num_batches_tracked"] == 3
    assert named.mismatch(model, after) is None


def test_with_the_second_model_frozen_the_rest_decays_geometrically():
    """R steps with v frozen give lambda^R w + (1 - lambda^R) v."""
    random = np.random.default_rng(0)
    start, v = ({"w": random.normal(size=7)} for _ in range(2))
    w = start
    for _ in range(6):
        w = degrade(w, v, 0.9)
    np.testing.assert_allclose(w["w"], 0.9**6 * start["w"] + (1 - 0.9**6) * v["w"], rtol=1e-12)


def test_the_share_that_stays_may_be_all_or_nothing():
    w, v = {"w": np.array([1.0, 2.0])}, {"w": np.array([3.0, 5.0])}
    assert degrade(w, v, 1.0)["w"].tolist() == [1.0, 2.0]
    assert degrade(w, v, 0.0)["w"].tolist() == [3.0, 5.0]


# The step ----------------------------------------------------------------------------------------


def test_the_forget_set_is_learned_under_the_labels_of_the_teacher():
    data = shard(0, 12)
    model, outcome = guided(shard(1, 0), data, sure_of(1))
    assert (outcome.num_examples, outcome.examples_processed) == (12, 3 * 12 + 12)
    with torch.no_grad():
        before, after = ToyModel(1)(data.features), model.eval()(data.features)
    assert after.softmax(1)[:, 1].mean() > before.softmax(1)[:, 1].mean() + 0.2


def test_no_label_of_the_forget_set_is_looked_at():
    data = shard(0, 12)
    lies = Shard(data.features, (data.labels + 1) % 3)
    answers = [arrays_of(guided(shard(1, 8), forget, ToyModel(5))[0]) for forget in (data, lies)]
    assert named.digest(answers[0]) == named.digest(answers[1])


def test_without_a_forget_set_the_step_is_training():
    kept = shard(1, 10)
    model, outcome = guided(kept, shard(0, 0), sure_of(1))
    plain = ToyModel(1)
    data = local(kept, shard(0, 0), plain)
    expected = find("train")(plain, data, SETTINGS, np.random.default_rng(0))
    assert named.digest(arrays_of(model)) == named.digest(arrays_of(plain))
    assert outcome == expected


def test_retained_data_keep_their_labels():
    kept = shard(1, 40)
    model, _ = guided(kept, shard(0, 4), sure_of(1))
    with torch.no_grad():
        right = (model.eval()(kept.features).argmax(1) == kept.labels).double().mean()
    assert right > 0.8


def test_labels_come_in_chunks(monkeypatch):
    whole, _ = guided(shard(1, 8), shard(0, 12), ToyModel(5))
    monkeypatch.setattr("clients.steps.guide._CHUNK", 5)
    pieces, _ = guided(shard(1, 8), shard(0, 12), ToyModel(5))
    assert named.digest(arrays_of(whole)) == named.digest(arrays_of(pieces))


def test_the_teacher_answers_as_in_use_not_as_in_training():
    data, model = shard(0, 50), nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9))
    expected = model.eval()(data.features).argmax(1)
    found = _labels(model.train(), arrays_of(model), data.features)
    assert found.tolist() == expected.tolist()


def test_a_teacher_of_another_architecture_is_refused():
    data = Local(shard(0, 2), shard(1, 2), shard(2, 2), ToyModel, extras={"w": np.zeros(1)})
    with pytest.raises(FederationError, match="teacher and model differ in array"):
        find("guide")(ToyModel(0), data, SETTINGS, np.random.default_rng(0))


# In a federation ---------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path):
    return ToyFederation(tmp_path)


def phases(toy, rounds):
    """Return the (client, step) pairs asked in each of so many rounds, taken from the notes."""
    found, start = [], 0
    for size in rounds:
        found.append(toy.asked[start : start + size])
        start += size
    assert start == len(toy.asked)
    return found


def test_who_works_on_what_when_a_client_leaves(toy):
    before = toy.learn()
    toy.asked.clear()
    toy.unlearn(MoDe(erasure_rounds=2, guidance_rounds=1), request("client", 1), before)
    first, second, statistics, guidance = phases(toy, [3, 3, 3, 4])
    assert first == second == [(0, "train"), (2, "train"), (3, "train")]
    assert statistics == [(0, "statistics"), (2, "statistics"), (3, "statistics")]
    assert guidance == [(0, "train"), (1, "guide"), (2, "train"), (3, "train")]


def test_owners_of_a_class_stay_and_guide(toy):
    before = toy.learn()
    toy.asked.clear()
    toy.unlearn(MoDe(erasure_rounds=1, guidance_rounds=1), request("class"), before)
    _, _, guidance = phases(toy, [4, 4, 4])
    assert guidance == [(client, "guide") for client in range(4)]


@pytest.mark.parametrize("scope", ["client", "class"])
def test_only_the_clients_of_the_round_work_and_the_leaver_in_guidance(tmp_path, scope):
    toy = ToyFederation(tmp_path, fraction=0.5)
    before = toy.learn()
    toy.asked.clear()
    asked = request(scope, 1)
    toy.unlearn(MoDe(erasure_rounds=1, guidance_rounds=3), asked, before)
    drawn = [toy.federation.sample(4 + r, tuple(range(4))) for r in range(1, 6)]
    help_wanted = [set(), set(), *[asked.leavers] * 3]
    assert [client for client, _ in toy.asked] == [
        client
        for clients, extra in zip(drawn, help_wanted, strict=True)
        for client in sorted({*clients, *extra})
    ]


def test_holders_are_asked_only_if_wanted(toy):
    before = toy.learn()
    toy.asked.clear()
    strategy = MoDe(erasure_rounds=1, guidance_rounds=2, ask_holders=False)
    toy.unlearn(strategy, request("client", 1), before)
    assert {client for client, _ in toy.asked} == {0, 2, 3}
    assert "guide" not in {step for _, step in toy.asked}


def test_the_second_model_learns_from_the_start_without_the_forgotten(toy, tmp_path):
    """After one round of erasure, (w - lambda w0) / (1 - lambda) is FedAvg's first round.

    The batches are drawn afresh: full batches make them the same whatever the draw.
    """
    toy.federation.train = {"local_epochs": 1, "batch_size": 1000, "learning_rate": 0.5}
    before = toy.learn()
    strategy = MoDe(momentum=0.5, erasure_rounds=1, guidance_rounds=0)
    after = toy.unlearn(strategy, request("client", 1), before)
    second = 2 * after["layer.weight"] - before["layer.weight"]
    fresh = ToyFederation(tmp_path / "fresh")
    fresh.federation.train = toy.federation.train
    fresh.late[1] = 99
    fresh._delay_joining()
    expected = fresh.run(UnlearningStrategy(), rounds=1)["layer.weight"]
    np.testing.assert_allclose(second, expected, atol=1e-6)


def test_the_second_model_is_dropped_in_the_end(toy):
    before = toy.learn()
    for guidance_rounds in (0, 1):
        strategy = MoDe(erasure_rounds=1, guidance_rounds=guidance_rounds)
        toy.branch(toy.home / str(guidance_rounds)).unlearn(strategy, request("class"), before)
        assert strategy._degradation == {}


def test_a_model_without_statistics_needs_no_round_for_them(toy):
    plain = named.parameters(toy.learn())
    strategy = MoDe(erasure_rounds=3, guidance_rounds=4)
    strategy.join(toy.federation)
    _, rounds = strategy.prepare(request("client"), toy.federation.history, plain)
    assert rounds == 7


def test_a_leaver_that_does_not_answer_is_left_out(toy):
    def lost(arrays):
        raise RuntimeError("gone")

    before = toy.learn()
    toy.faults[1] = lost
    after = toy.unlearn(MoDe(erasure_rounds=1, guidance_rounds=1), request("client", 1), before)
    assert named.is_finite(after)
    assert 1 in toy.federation.roster.lost


def test_a_client_that_holds_only_the_class_helps_in_guidance_alone(toy):
    toy.shards[2] = toy.shards[2].take(toy.shards[2].labels == 2)
    before = toy.learn()
    toy.seen.clear()
    toy.unlearn(MoDe(erasure_rounds=1, guidance_rounds=1), request("class"), before)
    size = len(toy.shards[2])
    mine = [(step, count) for client, step, count in toy.seen if client == 2]
    assert mine == [("train", 0), ("statistics", 0), ("guide", size)]


def test_the_class_is_forgotten_and_the_others_are_not(toy):
    before = toy.learn(8)
    after = toy.unlearn(MoDe(momentum=0.7), Request(Scope.CLASS, classes=(2,)), before)
    model = ToyModel(0)
    data = shard(9, 300)

    def accuracy(arrays, chosen):
        model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
        with torch.no_grad():
            right = model.eval()(data.features).argmax(1) == data.labels
        return float(right[chosen].double().mean())

    gone = data.labels == 2
    assert accuracy(before, gone) > 0.8
    assert accuracy(after, gone) < 0.3
    assert accuracy(after, ~gone) > accuracy(before, ~gone) - 0.1


def test_a_client_that_never_took_part_changes_nothing(tmp_path):
    toy = ToyFederation(tmp_path, late={1: 99})
    before = toy.learn()
    assert named.digest(toy.unlearn(MoDe(), request("client"), before)) == named.digest(before)


@pytest.mark.parametrize(
    "options", [{"momentum": 1.5}, {"erasure_rounds": 0}, {"guidance_rounds": -1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MoDe(**options)

"""Synthetic examples that clients make and keep, and unlearning on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

from clients.steps import Local, Shard
from clients.steps.rehearse import rehearse
from clients.steps.synthetic import mismatch, synthetic
from experiments.app import client_app
from experiments.config.loading import from_mapping
from experiments.federation.conduct import Conductor
from experiments.federation.course import Course
from experiments.federation.founding import keepsakes
from experiments.federation.grids import LocalGrid
from experiments.federation.task import Scenario, task
from strategies.global_model.contribution_subtraction import ContributionSubtraction
from strategies.global_model.fine_tune import FineTune
from strategies.local_model.quick_drop import QuickDrop
from tests.support.toy import FEATURES, ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

MAKE = {"share": 0.2, "image_rate": 0.1, "matching_steps": 0, "matching_batch": 256}
REHEARSE = {
    "share": 0.2,
    "mix": 0.0,
    "clip": 0.0,
    "local_epochs": 1,
    "batch_size": 256,
    "learning_rate": 0.5,
    "max_steps": 1,
}
EMPTY = shard(0, 0)


def local(retain: Shard, forget: Shard = EMPTY, kept: Shard | None = None) -> Local:
    arrays = {} if kept is None else {"features": kept.features, "labels": kept.labels}
    return Local(
        retain=retain,
        forget=forget,
        held_out=EMPTY,
        fresh_model=ToyModel,
        kept={"synthetic": {n: a.numpy() for n, a in arrays.items()}} if arrays else {},
    )


def made(model: nn.Module, there: Local, **settings: float) -> Shard:
    arrays = synthetic(model, there, {**MAKE, **settings}, np.random.default_rng(0)).arrays
    assert arrays is not None
    return Shard(*(torch.from_numpy(arrays[name]) for name in ("features", "labels")))


def labelled(*labels: int, value: float = 0.0) -> Shard:
    x = torch.full((len(labels), FEATURES), value) + torch.arange(len(labels))[:, None]
    return Shard(x, torch.tensor(labels))


def gradient(model: nn.Module, data: Shard) -> list[torch.Tensor]:
    loss = functional.cross_entropy(model(data.features), data.labels)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def rows(data: Shard) -> set[tuple[float, ...]]:
    return {tuple(x) for x in data.features.tolist()}


# Making them ----------------------------------------------------------------------------------


def test_mismatch_is_one_minus_the_cosine_of_each_array():
    """(3, -4) and (4, -3): cosine 24 / 25. (1, 2) and (-2, -4): cosine -1. Sum 0.04 + 2."""
    left = [torch.tensor([3.0, -4.0]), torch.tensor([[1.0], [2.0]])]
    right = [torch.tensor([4.0, -3.0]), torch.tensor([[-2.0], [-4.0]])]
    assert float(mismatch(left, right)) == pytest.approx(2.04)
    assert float(mismatch(left, [10 * a for a in left])) == pytest.approx(0.0, abs=1e-6)


def test_a_set_begins_with_real_examples_of_each_class():
    """A fifth of 5, 6 and 1 examples, rounded up, is 1, 2 and 1."""
    data = labelled(*[0] * 5, *[2] * 6, 1)
    found = made(ToyModel(0), local(data))
    assert found.labels.tolist() == [0, 1, 2, 2]
    for label in (0, 1, 2):
        there = rows(data.take(data.labels == label))
        mine = rows(found.take(found.labels == label))
        assert mine <= there
        assert len(mine) == (found.labels == label).sum()


def test_a_set_is_kept_on_with_what_is_there():
    """Classes whose number still fits go on; others begin anew, and lost ones are left out."""
    data = labelled(*[0] * 5, *[1] * 5)
    kept = labelled(0, 1, 1, 2, value=50.0)
    found = made(ToyModel(0), local(data, kept=kept))
    assert found.labels.tolist() == [0, 1]
    assert found.features[0].tolist() == [50.0] * 3  # went on
    assert rows(found.take(found.labels == 1)) <= rows(data)  # two were kept, one is wanted


def test_without_data_nothing_is_made():
    outcome = synthetic(ToyModel(0), local(EMPTY), MAKE, np.random.default_rng(0))
    assert outcome.arrays == {}
    assert (outcome.num_examples, outcome.examples_processed) == (0, 0)


def test_a_step_is_the_slope_of_the_mismatch():
    """Against differences of the mismatch at every feature, in float64."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    raw = shard(1, 6)
    data = Shard(raw.features.double(), torch.zeros(6, dtype=torch.int64))
    kept = Shard(torch.tensor([[0.3, -0.8, 0.5], [-0.2, 0.1, 0.9]]).double(), torch.tensor([0, 0]))
    there = local(data, kept=kept)
    moved = made(model, there, matching_steps=1, share=0.3)

    def off(features: torch.Tensor) -> float:
        found = gradient(model, Shard(features, kept.labels))
        return float(mismatch(gradient(model, data), found))

    slope = torch.zeros_like(kept.features)
    for i in np.ndindex(2, 3):
        nudge = torch.zeros_like(slope)
        nudge[i] = 1e-6
        slope[i] = (off(kept.features + nudge) - off(kept.features - nudge)) / 2e-6
    assert slope.abs().max() > 1e-3
    torch.testing.assert_close(moved.features, kept.features - 0.1 * slope, rtol=1e-6, atol=1e-9)


def test_examples_come_to_match_and_the_model_stays():
    model, data = ToyModel(1), shard(2, 60)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = made(model, local(data), share=0.05)
    last = made(model, local(data), share=0.05, matching_steps=40)
    for label in (0, 1, 2):
        wanted = gradient(model, data.take(data.labels == label))
        offs = [
            float(mismatch(wanted, gradient(model, found.take(found.labels == label))))
            for found in (first, last)
        ]
        assert offs[1] < 0.5 * offs[0]
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())


def test_the_cost_of_matching_is_counted():
    """Classes of 5 and 7: batches of 5 and 6, and 1 + 2 examples three times; twice over."""
    settings = {**MAKE, "matching_steps": 2, "matching_batch": 6}
    there = local(labelled(*[0] * 5, *[1] * 7))
    outcome = synthetic(ToyModel(0), there, settings, np.random.default_rng(0))
    assert outcome.examples_processed == 2 * (5 + 6 + 3 * (1 + 2))


# Training on them -----------------------------------------------------------------------------


@pytest.mark.parametrize("ascend", [True, False])
def test_one_step_up_or_down_on_the_kept_examples(ascend):
    """W +- 0.5 g with g from the kept examples of the forgotten class, or of the others."""
    kept = labelled(0, 1, 2, 2, value=0.7)
    data = labelled(*[0] * 5, *[1] * 5, *[2] * 10)
    forget, retain = data.take(data.labels == 2), data.take(data.labels != 2)
    model, reference = ToyModel(3), ToyModel(3)
    chosen = kept.take((kept.labels == 2) == torch.tensor(ascend))
    expected = [
        w.detach() + (0.5 if ascend else -0.5) * g
        for w, g in zip(reference.parameters(), gradient(reference, chosen), strict=True)
    ]
    settings = {**REHEARSE, "ascend": ascend}
    outcome = rehearse(model, local(retain, forget, kept), settings, np.random.default_rng(0))
    torch.testing.assert_close([w.detach() for w in model.parameters()], expected)
    assert (outcome.num_examples, outcome.examples_processed) == (2, 2)


def test_real_examples_are_mixed_into_the_repair_alone():
    data = labelled(*[0] * 10, *[1] * 10)
    for ascend, processed in ((True, 3 * 4), (False, 3 * (4 + 6))):
        settings = {**REHEARSE, "ascend": ascend, "mix": 1.5, "local_epochs": 3}
        outcome = rehearse(ToyModel(0), local(data, data), settings, np.random.default_rng(0))
        assert (outcome.num_examples, outcome.examples_processed) == (4, processed)
    settings = {**REHEARSE, "ascend": False, "mix": 50.0}
    outcome = rehearse(ToyModel(0), local(data), settings, np.random.default_rng(0))
    assert outcome.examples_processed == 4 + 20  # no more than there are


def test_nothing_to_forget_weighs_nothing():
    settings = {**REHEARSE, "ascend": True}
    kept = labelled(0, 1)
    outcome = rehearse(
        ToyModel(0), local(labelled(0, 1), EMPTY, kept), settings, np.random.default_rng(0)
    )
    assert (outcome.num_examples, outcome.examples_processed) == (0, 0)


def test_the_gradient_is_clipped():
    model, data = ToyModel(0), labelled(*[0] * 5, value=30.0)
    before = [w.detach().clone() for w in model.parameters()]
    settings = {**REHEARSE, "ascend": True, "clip": 0.1}
    rehearse(model, local(EMPTY, data), settings, np.random.default_rng(0))
    moved = [w.detach() - b for w, b in zip(model.parameters(), before, strict=True)]
    assert float(torch.cat([m.flatten() for m in moved]).norm()) <= 0.5 * 0.1 * 1.001


# Clients that keep them -----------------------------------------------------------------------


def kept_files(toy: ToyFederation) -> dict[int, dict[str, np.ndarray]]:
    found = sorted(toy.home.glob("client-*/synthetic.safetensors"))
    return {int(path.parent.name.removeprefix("client-")): load_file(path) for path in found}


def keeping(home, **settings: object) -> ToyFederation:
    return ToyFederation(home, keepsakes=QuickDrop().keepsakes(), **settings)  # type: ignore[arg-type]


def test_clients_make_sets_while_they_train_and_train_as_ever(tmp_path):
    toy, plain = keeping(tmp_path / "a"), ToyFederation(tmp_path / "b")
    assert named.digest(toy.learn()) == named.digest(plain.learn())
    files = kept_files(toy)
    assert sorted(files) == [0, 1, 2, 3]
    assert not kept_files(plain)
    for client, arrays in files.items():
        labels, counts = toy.shards[client].labels.unique(return_counts=True)
        assert arrays["labels"].tolist() == [
            int(y) for y, n in zip(labels, counts, strict=True) for _ in range(-(-int(n) // 20))
        ]
    work = [f.federation.costs["learn"].examples for f in (toy, plain)]
    assert work[0] > work[1]


def test_a_set_is_made_with_the_model_as_it_was_sent(tmp_path):
    """And with randomness of its own: [seed, round, client, 0, place among what is made]."""
    toy = keeping(tmp_path)
    toy.learn(1)
    settings = toy.federation.keepsakes["synthetic"]
    for client in (0, 3):
        generator = np.random.default_rng([0, 1, client, 0, 1])
        outcome = synthetic(ToyModel(0), local(toy.shards[client]), settings, generator)
        assert named.digest(outcome.arrays) == named.digest(kept_files(toy)[client])


def test_sets_grow_from_round_to_round(tmp_path):
    toy = keeping(tmp_path)
    toy.learn(1)
    first = kept_files(toy)[2]["features"]
    toy.run(QuickDrop(), rounds=1)
    second = kept_files(toy)[2]["features"]
    assert first.shape == second.shape
    assert 0 < np.abs(first - second).max() < 0.5


def test_a_leaver_deletes_its_set_and_the_others_keep_theirs(tmp_path):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    toy.federation.ledger.receive(request(Scope.CLIENT))
    toy.federation.recovery_rounds = 0
    toy.run(QuickDrop(), arrays, rounds=0)
    assert sorted(kept_files(toy)) == [0, 2, 3]


def test_sets_of_a_forgotten_class_are_gone_and_made_anew_without_it(tmp_path):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    assert any(2 in kept["labels"] for kept in kept_files(toy).values())
    toy.federation.ledger.receive(request(Scope.CLASS))
    toy.federation.recovery_rounds = 0
    arrays = toy.run(QuickDrop(), arrays, rounds=0)
    assert not kept_files(toy)
    toy.run(QuickDrop(), arrays, rounds=1)
    files = kept_files(toy)
    assert sorted(files) == [0, 1, 2, 3]
    assert not any(2 in kept["labels"] for kept in files.values())


def test_sets_that_a_failed_request_left_behind_are_not_used(tmp_path):
    """The data stay out of training even if the unlearning failed: so do the synthetic ones."""
    toy = keeping(tmp_path)
    arrays = toy.learn()
    asked = request(Scope.CLASS)
    toy.federation.ledger.receive(asked)
    toy.faults |= dict.fromkeys(range(4), lambda arrays: [a * np.nan for a in arrays])
    toy.run(QuickDrop(), arrays, rounds=0)
    assert toy.federation.ledger.state(asked.id) == "failed"
    assert any(2 in kept["labels"] for kept in kept_files(toy).values())
    toy.faults.clear()
    toy.run(QuickDrop(), arrays, rounds=1)
    assert not any(2 in kept["labels"] for kept in kept_files(toy).values())


# The strategy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "first"), [(Scope.CLIENT, [1]), (Scope.CLASS, [0, 1, 2, 3])])
def test_holders_climb_then_the_others_repair(tmp_path, scope, first):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    toy.asked.clear()
    after = toy.unlearn(QuickDrop(repair_rounds=2), request(scope), arrays)
    others = [0, 2, 3] if scope is Scope.CLIENT else [0, 1, 2, 3]
    assert toy.asked == [(client, "rehearse") for client in [*first, *others, *others]]
    assert toy.federation.costs["unlearn"].examples > 0
    assert named.digest(after) != named.digest(arrays)


@pytest.mark.parametrize("scope", [Scope.CLIENT, Scope.CLASS])
def test_the_loss_on_the_forget_set_rises(tmp_path, scope):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    after = toy.unlearn(QuickDrop(repair_rounds=0, ascent_rate=0.5), request(scope), arrays)
    data = toy.shards[1]
    forget = data if scope is Scope.CLIENT else data.take(data.labels == 2)

    def loss(model: named.Arrays) -> float:
        weight, bias = (torch.from_numpy(model[f"layer.{n}"]) for n in ("weight", "bias"))
        return float(functional.cross_entropy(forget.features @ weight.T + bias, forget.labels))

    assert loss(after) > loss(arrays) + 0.05


def test_a_hostile_leaver_moves_the_model_no_farther_than_learning_did(tmp_path):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    reach = named.norm(named.delta(toy.initial, arrays))
    toy.faults[1] = lambda sent: [a + a.dtype.type(100) for a in sent]
    after = toy.unlearn(QuickDrop(repair_rounds=0, trust=0.5), request(Scope.CLIENT), arrays)
    assert named.norm(named.delta(arrays, after)) == pytest.approx(0.5 * reach, rel=1e-4)


def test_what_is_forgotten_already_is_not_climbed_again(tmp_path):
    toy = keeping(tmp_path)
    arrays = toy.learn()
    asked = request(Scope.CLASS)
    toy.federation.ledger.receive(asked)
    arrays = toy.run(QuickDrop(), arrays, rounds=0)
    toy.asked.clear()
    after = toy.unlearn(QuickDrop(), replace(asked, id="again"), arrays)
    assert named.digest(after) == named.digest(arrays)
    assert not toy.asked
    other = Request(Scope.CLASS, classes=(0,))
    assert named.digest(toy.unlearn(QuickDrop(), other, arrays)) != named.digest(arrays)


def test_two_strategies_may_not_want_the_same_made_in_two_ways():
    assert keepsakes([QuickDrop(), QuickDrop(ascent_rate=1.0)]) == QuickDrop().keepsakes()
    with pytest.raises(ConfigError, match=r"'synthetic' with .*'share': 0\.5.*0\.05.*separate"):
        keepsakes([QuickDrop(), QuickDrop(share=0.5)])


def test_a_comparison_has_clients_keep_what_its_strategies_need(tmp_path, monkeypatch):
    """Sets are made in the common rounds, and cost nobody but the strategy that needs them."""
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    config = from_mapping(
        {
            "data": {"clients": 3, "limit": 90, "public": 0.2},
            "model": {"hidden": 8},
            "rounds": 2,
            "recovery_rounds": 1,
            "strategies": ["quick-drop", "contribution-subtraction"],
            "requests": [{"scope": "client", "clients": [1]}],
        }
    )
    course = Course.of_comparison(config, lambda tick: None)
    course.check()
    folder = course.claim(tmp_path / "run")
    data = task(Scenario.of(config))
    conductor = Conductor(config, data, folder, Ledger(), course.observer, lambda: False)
    strategies = [FineTune(), QuickDrop(), ContributionSubtraction()]
    chosen = {type(strategy).__name__: strategy for strategy in strategies}
    original, *parties = conductor.compare(LocalGrid(client_app, 3), chosen)
    tuned, dropped, subtracted = (party.costs for party in parties)
    # Matching was paid for in learning, and is on the bill of the one strategy that needs it.
    assert original.costs["learn"].examples == 2 * 57  # two rounds over the clients' own examples
    assert dropped["prepare"].examples > 0
    assert not tuned["prepare"].examples
    assert not subtracted["prepare"].examples
    assert dropped["unlearn"].examples > 0
    assert dropped["recover"].examples > tuned["recover"].examples
    assert subtracted["unlearn"].examples == 5 * 18  # five passes of the server over its examples
    assert subtracted["unlearn"].bytes_up == 0
    assert subtracted["recover"].examples == tuned["recover"].examples
    assert not (folder.path / "clients").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"share": 0.0},
        {"image_rate": -1.0},
        {"matching_steps": -1},
        {"matching_batch": 0},
        {"ascent_rounds": 0},
        {"ascent_rate": 0.0},
        {"repair_rounds": -1},
        {"repair_rate": 0.0},
        {"local_epochs": 0},
        {"batch_size": 0},
        {"mix": -1.0},
        {"clip": -1.0},
        {"trust": -1.0},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        QuickDrop(**options)

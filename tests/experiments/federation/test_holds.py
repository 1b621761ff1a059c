"""What is held loses nothing: the model, the history, the request, and its data stay out."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from strategies.local_model.gradient_ascent import GradientAscent
from strategies.robustness import Robust
from tests.support.toy import ToyFederation, request
from unlearning.arrays import digest
from unlearning.errors import RequestError
from unlearning.fulfil import Inspection
from unlearning.request import Request, Scope

SAMPLES = Request(Scope.SAMPLE, samples={1: (0, 2, 5)}, id="s")


class Strict:
    """Holds what it is told to, refuses what it is told to."""

    duplicates = False

    def __init__(self, *reasons: str, refuses: bool = False):
        self.reasons, self.refuses, self.seen = reasons, refuses, []

    def check(self, asked: Request) -> None:
        if self.refuses:
            raise RequestError("never trained on")

    def inspect(self, asked, guarantee, before, after):
        self.seen.append(digest(after))
        return Inspection(after, self.reasons, {"looked": True})


@pytest.fixture
def toy(tmp_path):
    return ToyFederation(tmp_path / "learn")


def served(toy, strategy, *asked, rounds=0, arrays=None):
    for one in asked:
        toy.federation.ledger.receive(one)
    return toy.run(strategy, arrays, rounds=rounds)


def test_a_held_answer_leaves_everything_as_it_was(toy):
    arrays = toy.learn()
    toy.federation.guard = guard = Strict("a class falls", "a trigger wakes up")
    history = toy.federation.history
    kept = {t: history.participants(t) for t in history.rounds}
    found = served(toy, Retrain(), SAMPLES, arrays=arrays)
    assert digest(found) == digest(arrays)
    assert toy.federation.edited == -1  # no unlearning has changed the model
    assert toy.federation.completed == 4  # nor did recovery go on
    assert guard.seen
    assert guard.seen != [digest(arrays)]
    assert {t: history.participants(t) for t in history.rounds} == kept
    assert history.update(1, 1)  # nothing was purged
    ledger = toy.federation.ledger
    assert ledger.state("s") == "held"
    held = ledger.held()["s"].facts
    assert held["reason"] == "a class falls; a trigger wakes up"
    assert held["looked"] is True
    assert [one.id for one in ledger.waiting()] == ["s"]
    assert ledger.due(99) == []


def test_held_data_are_not_trained_on(toy):
    arrays = toy.learn()
    toy.federation.guard = Strict("no")
    served(toy, FineTune(), SAMPLES, arrays=arrays)
    toy.seen.clear()
    toy.run(FineTune(), arrays, rounds=2)
    trained = {count for client, step, count in toy.seen if client == 1 and step == "train"}
    assert trained == {toy.sizes[1] - 3}


def test_a_held_leaver_is_not_asked_any_more(toy):
    arrays = toy.learn()
    toy.federation.guard = Strict("no")
    served(toy, FineTune(), request("client", 1), arrays=arrays)
    toy.asked.clear()
    toy.run(FineTune(), arrays, rounds=2)
    assert 1 not in {client for client, _ in toy.asked}


def test_a_released_request_is_served_whatever_the_guard_says(toy):
    arrays = toy.learn()
    toy.federation.guard = Strict("no")
    served(toy, Retrain(), SAMPLES, arrays=arrays)
    toy.federation.ledger.add("s", "released", released_by="operator")
    found = toy.run(Retrain(), arrays, rounds=0)
    assert digest(found) != digest(arrays)
    assert toy.federation.ledger.state("s") == "fulfilled"
    assert toy.federation.ledger.held() == {}


def test_what_comes_after_a_hold_is_served(toy):
    arrays = toy.learn()
    toy.federation.guard = Strict("no")
    served(toy, Retrain(), SAMPLES, arrays=arrays)
    toy.federation.guard = None
    other = Request(Scope.CLIENT, clients=(2,), id="c")
    served(toy, Retrain(), other, arrays=arrays)
    assert toy.federation.ledger.state("c") == "fulfilled"
    assert toy.federation.ledger.state("s") == "held"


def test_a_larger_request_forgets_what_a_held_one_named(toy):
    """The data of the held request are in the model still: they are part of the forget set."""
    arrays = toy.learn()
    toy.federation.guard = Strict("no")
    served(toy, GradientAscent(), SAMPLES, arrays=arrays)
    toy.federation.guard = None
    toy.seen.clear()
    served(toy, GradientAscent(), Request(Scope.CLIENT, clients=(1,), id="c"), arrays=arrays)
    assert (1, "ascend", toy.sizes[1]) in toy.seen


def test_a_request_that_the_guard_refuses_costs_no_work(toy):
    arrays = toy.learn()
    toy.federation.guard = Strict(refuses=True)
    toy.asked.clear()
    toy.federation.recovery_rounds = 0
    found = served(toy, Retrain(), SAMPLES, arrays=arrays)
    assert toy.asked == []
    assert digest(found) == digest(arrays)
    assert toy.federation.ledger.state("s") == "refused"
    assert toy.federation.ledger.events("s")[-1].facts["reason"] == "never trained on"


# --- together -------------------------------------------------------------------------------------


def test_too_few_requests_wait_and_their_data_stay_out(toy):
    arrays = toy.learn()
    toy.federation.batch = 2
    toy.seen.clear()
    found = served(toy, FineTune(), SAMPLES, arrays=arrays)
    assert digest(found) == digest(arrays)
    ledger = toy.federation.ledger
    assert ledger.state("s") == "held"
    assert "until 2 requests" in ledger.held()["s"].facts["reason"]
    toy.run(FineTune(), arrays, rounds=1)
    assert (1, "train", toy.sizes[1] - 3) in toy.seen
    assert [event.event for event in ledger.events("s")] == ["received", "held"]


def test_data_that_wait_stay_out_from_the_next_round_on(toy):
    toy.federation.batch = 2
    served(toy, FineTune(), SAMPLES, rounds=2)
    trained = [count for client, step, count in toy.seen if client == 1]
    assert trained == [toy.sizes[1] - 3] * 2


def test_enough_requests_are_served_together(toy):
    arrays = toy.learn()
    toy.federation.batch = 2
    served(toy, Retrain(), SAMPLES, arrays=arrays)
    served(toy, Retrain(), Request(Scope.CLIENT, clients=(2,), id="c"), arrays=arrays)
    assert [toy.federation.ledger.state(name) for name in "sc"] == ["fulfilled", "fulfilled"]


def test_a_released_one_does_not_wait_for_others(toy):
    arrays = toy.learn()
    toy.federation.batch = 2
    served(toy, Retrain(), SAMPLES, arrays=arrays)
    toy.federation.ledger.add("s", "released")
    toy.run(Retrain(), arrays, rounds=0)
    assert toy.federation.ledger.state("s") == "fulfilled"


# --- hostile clients ------------------------------------------------------------------------------


def far(arrays):
    return [a + 100 if a.dtype.kind == "f" else a for a in arrays]


@pytest.mark.parametrize("how", ["median", "trimmed-mean", "norm-bound"])
def test_a_hostile_client_moves_a_guarded_recovery_less(toy, tmp_path, how):
    robust = toy.federation.robust = Robust(how, trim=0.3)
    arrays = toy.learn(4)
    moved = {}
    for name, guard in (("off", None), (how, robust)):
        twin = toy.branch(tmp_path / name)
        twin.federation.robust = guard
        twin.federation.length_factor = 0.0  # this defence is looked at alone
        twin.faults[3] = far
        twin.federation.ledger.receive(SAMPLES)
        found = twin.run(FineTune(), arrays, rounds=0)
        moved[name] = float(np.abs(found["layer.weight"] - arrays["layer.weight"]).max())
    assert moved["off"] > 20
    assert moved[how] < 5


def test_learning_is_left_as_it_is(toy, tmp_path):
    plain = toy.branch(tmp_path / "plain").learn()
    twin = toy.branch(tmp_path / "robust")
    twin.federation.robust = Robust("median")
    assert digest(twin.learn()) == digest(plain)


# --- copies ---------------------------------------------------------------------------------------


def test_copies_of_the_forgotten_are_found_and_told(toy):
    toy.shards[2].features[4:6] = toy.shards[1].features[[0, 5]]
    toy.shards[2].labels[4:6] = toy.shards[1].labels[[0, 5]]
    arrays = toy.learn()
    guard = toy.federation.guard = Strict()
    guard.duplicates = True
    served(toy, FineTune(), SAMPLES, arrays=arrays)
    facts = toy.federation.ledger.events("s")[-1].facts
    assert facts["duplicates"] == {"samples": 3, "copies": 2, "clients": [2], "unanswered": []}


def test_a_leaver_hashes_but_is_not_trained(toy):
    arrays = toy.learn()
    guard = toy.federation.guard = Strict()
    guard.duplicates = True
    toy.asked.clear()
    served(toy, FineTune(), Request(Scope.CLIENT, clients=(1,), id="c"), arrays=arrays)
    assert [step for client, step in toy.asked if client == 1] == ["fingerprints"]
    told = toy.federation.ledger.events("c")[-1].facts["duplicates"]
    assert told == {"samples": toy.sizes[1], "copies": 0, "clients": [], "unanswered": []}

"""What clients hold of a request; one for which nothing was done is not fulfilled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from experiments.runs.risks import residual_risks
from strategies import holdings, registry
from strategies.base import UnlearningStrategy
from strategies.global_model.fine_tune import FineTune
from tests.support.toy import ToyFederation, request
from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

LEAVER, SCOPES = 1, frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
NOTHING = Request(Scope.SAMPLE, clients=(LEAVER,), classes=(7,))


def test_copies_are_counted(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, clients=3)
    toy.shards[2] = toy.shards[0]
    leaving = Request(Scope.SAMPLE, samples={0: (1, 2)})
    crew = toy.federation.roster
    assert crew is not None
    found = holdings.overlap(toy.federation, crew, leaving, frozenset())
    assert (found["samples"], found["copies"], found["clients"]) == (2, 2, [2])


@pytest.mark.parametrize("owners", [(), (0,), (0, 2)])
def test_who_withdraws_values_says_what_it_holds(tmp_path: Path, owners: tuple[int, ...]) -> None:
    """Its rows are forgotten as they were and stay without the values: each counts once."""
    toy = ToyFederation(tmp_path, clients=3)
    crew = toy.federation.roster
    assert crew is not None
    asked = Request(Scope.FEATURE, clients=owners, features=(1,))
    found = holdings.overlap(toy.federation, crew, asked, frozenset())
    assert found["unanswered"] == []
    assert found["samples"] == sum(toy.sizes[k] for k in owners or range(3))
    assert found["copies"] == 0
    with pytest.raises(FederationError, match=f"why, and {found['samples']} examples are to be"):
        holdings.refuse_idle(toy.federation, crew, asked, frozenset(), "why")


def end(
    toy: ToyFederation, strategy: UnlearningStrategy, asked: Request
) -> tuple[str, dict[str, object]]:
    """Return how a request ends after two rounds of learning, and what the ledger says of it."""
    toy.federation.recovery_rounds = 1
    arrays = toy.learn_without_serving(2)
    toy.federation.ledger.receive(asked)
    toy.run(strategy, arrays, rounds=0)
    told = toy.federation.ledger.events(asked.id)[-1]
    return told.event, dict(told.facts)


class Idle(UnlearningStrategy):
    """Gives the model back."""

    scopes = SCOPES

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return dict(arrays), 0


class Counting(Idle):
    """Moves what is no weight, and nothing else."""

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return {**arrays, "running_mean": arrays["running_mean"] + 1}, 0


class Training(Idle):
    """Says itself that it did nothing of what it is for, whatever else moved the model."""

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return arrays, 1

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        self.idle = "no weight was selected"
        return super().combine(server_round, arrays, replies)


@pytest.mark.parametrize("cls", [Idle, Counting, Training])
@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_request_for_which_nothing_was_done_fails(
    cls: type[UnlearningStrategy], scope: Scope, tmp_path: Path
) -> None:
    toy = ToyFederation(tmp_path)
    event, facts = end(toy, cls(), request(scope, LEAVER))
    assert event == "failed"
    assert f"{cls.__name__} did nothing" in str(facts["reason"])
    assert "examples are to be forgotten" in str(facts["reason"])
    assert "another strategy" in str(facts["reason"])


@pytest.mark.parametrize("cls", [Idle, Counting, Training])
def test_where_nothing_is_held_there_is_nothing_to_do(
    cls: type[UnlearningStrategy], tmp_path: Path
) -> None:
    event, facts = end(ToyFederation(tmp_path), cls(), NOTHING)
    assert event == "fulfilled"
    assert facts["deletion"]["examples"] == 0  # type: ignore[index]
    assert not residual_risks(facts)


def test_an_owner_that_does_not_say_what_it_holds_counts_as_holding_it(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)

    def away(answer: list[Array]) -> list[Array]:
        if toy.asked[-1] == (LEAVER, "fingerprints"):
            raise OSError("away")
        return answer

    toy.faults[LEAVER] = away
    event, facts = end(toy, Idle(), request(Scope.CLIENT, LEAVER))
    assert event == "failed"
    assert f"client {LEAVER} is silent" in str(facts["reason"])


class Exact(Idle):
    """Exact: learning again may come to the same model."""

    guarantee = Guarantee.EXACT


class Settled(Idle):
    """Knows why the model is an answer."""

    why = "it was done before"

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        self.settled = self.why
        return arrays, 0


@pytest.mark.parametrize(("cls", "said"), [(FineTune, True), (Settled, True), (Exact, False)])
def test_who_may_leave_the_model_as_it_is_and_what_is_said_of_it(
    cls: type[UnlearningStrategy], said: bool, tmp_path: Path
) -> None:
    event, facts = end(ToyFederation(tmp_path), cls(), request(Scope.CLIENT, LEAVER))
    assert event == "fulfilled"
    assert facts["unchanged"] == (Settled.why if cls is Settled else True)
    assert any("no weight was changed" in risk for risk in residual_risks(facts)) is said


@pytest.mark.parametrize(
    ("alias", "options", "why"),
    [
        ("dampening", {"threshold": 0.3}, "selects no weight"),
        ("dampening", {"threshold": 0.1}, "1 of 4 clients"),
        ("parameter-estimation", {"share": 0.01}, "selects no weight"),
        ("memory-pruning", {"share": 0.01}, "less than one"),
        ("ewc-ascent", {"ascent_rate": 1e-12}, "every weight is as it was"),
        ("quick-drop", {"ascent_rate": 1e-12}, "no owner moved"),
        ("negated-update", {"strength": 0.0}, "every weight is as it was"),
    ],
)
def test_options_that_select_nothing_end_the_request(
    alias: str, options: dict[str, float], why: str, tmp_path: Path
) -> None:
    cls = registry.strategies()[alias]
    strategy = registry.make(alias, options)
    asked = request(next(s for s in (Scope.CLIENT, Scope.CLASS, Scope.TASK) if s in cls.scopes))
    toy = ToyFederation(tmp_path, keepsakes=strategy.keepsakes())
    event, facts = end(toy, strategy, asked)
    assert event == "failed"
    assert why in str(facts["reason"])


class IdleOnFeatures(Idle):
    """Gives the model back, whatever value is to be forgotten."""

    scopes = frozenset({Scope.FEATURE})


@pytest.mark.parametrize("clients", [(), (LEAVER,)])
def test_a_feature_for_which_nothing_was_done_is_not_fulfilled(
    tmp_path: Path, clients: tuple[int, ...]
) -> None:
    """Its examples are both forgotten and kept: counted twice they were taken for a lie."""
    asked = Request(Scope.FEATURE, features=(1,), clients=clients, id="r")
    event, facts = end(ToyFederation(tmp_path, clients=3), IdleOnFeatures(), asked)
    assert event == "failed"
    assert "examples are to be forgotten" in str(facts["reason"])
    assert "silent" not in str(facts["reason"])

"""What no request may do to a federation, whatever the strategy: end it, or be served by halves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies import registry
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.global_model.fine_tune import FineTune
from tests.support.everyone import Learned, everyone, learned_once, made
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError, HistoryError
from unlearning.fulfil import Inspection
from unlearning.models import parts
from unlearning.records.history import History
from unlearning.request import Request, Scope

ALONE, EMPTY, LEAVER, CLASS = 0, 2, 1, 2


def held(toy: ToyFederation, client: int, keep: torch.Tensor) -> None:
    """Let a client hold only some of its examples."""
    assert toy.federation.roster is not None
    toy.shards[client] = toy.shards[client].take(keep)
    toy.sizes[client] = toy.federation.roster.declared[client] = len(keep)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Learned]:
    """Return what makes a federation of which a client is empty and nobody holds one class."""

    def prepare(toy: ToyFederation) -> None:
        for client, shard in toy.shards.items():
            there = torch.nonzero(shard.labels != CLASS).ravel()
            held(toy, client, there[:0] if client == EMPTY else there)

    return learned_once(tmp_path_factory.mktemp("learned"), 1, rounds=4, prepare=prepare)


def nothing_held(toy: ToyFederation) -> list[Request]:
    return [
        Request(Scope.CLIENT, clients=(EMPTY,)),
        Request(Scope.CLASS, classes=(CLASS,)),
        Request(Scope.SAMPLE, clients=(LEAVER,), classes=(CLASS,)),
    ]


def in_a_row(toy: ToyFederation) -> list[Request]:
    """Everything of a client one by one, a class, a leaver, and the same again."""
    everything = Request(Scope.SAMPLE, samples={LEAVER: tuple(range(toy.sizes[LEAVER]))})
    return [
        everything,
        Request(Scope.CLASS, classes=(0,)),
        Request(Scope.CLIENT, clients=(LEAVER,)),
        Request(Scope.CLASS, classes=(0,)),
        Request(Scope.CLIENT, clients=(3,)),
    ]


@pytest.mark.parametrize("wanted", [nothing_held, in_a_row])
@pytest.mark.parametrize(("cls", "model"), list(everyone()))
def test_requests_are_fulfilled_whatever_their_owners_hold(
    cls: type[UnlearningStrategy],
    model: str | None,
    wanted: Callable[[ToyFederation], list[Request]],
    learned: Callable[..., Learned],
    tmp_path: Path,
) -> None:
    toy, arrays = learned(cls, model)
    asked = [one for one in wanted(toy) if one.scope in cls.scopes]
    twin, strategy = toy.branch(tmp_path), made(cls)
    gone: set[int] = set()
    for one in asked:
        twin.federation.ledger.receive(one)
        arrays = twin.run(strategy, arrays, rounds=0)
        told = twin.federation.ledger.events(one.id)[-1]
        assert not [c for kind, c in twin.grid.pushed if kind == "query.delete" and c in gone]
        twin.grid.pushed.clear()
        assert (told.event, told.facts.get("reason")) == ("fulfilled", None)
        deletion = told.facts["deletion"]
        assert deletion["examples"] == sum(  # type: ignore[index]
            left(twin, one, client) for client in one.owners(twin.sizes) if client not in gone
        )
        gone |= one.leavers
        if wanted is nothing_held:
            assert deletion["examples"] == 0  # type: ignore[index]
    assert named.is_finite(arrays)
    if model in ("ridge", "k-means", "svm", "local-forests") and wanted is in_a_row:
        assert LEAVER not in parts.clients(arrays)


def left(toy: ToyFederation, asked: Request, client: int) -> int:
    """Return how many of a client's examples a request names."""
    gone, labels = asked.omission(client), toy.shards[client].labels.tolist()
    return sum(
        gone.everything or i in gone.samples or label in gone.classes
        for i, label in enumerate(labels)
    )


# One request never ends the run ---------------------------------------------------------------


class Raises(FineTune):
    """A strategy that fails in a way of the test's choice."""

    fault: Callable[[Arrays], object]

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return type(self).fault(arrays), 0  # type: ignore[return-value]


def wrong_shape(arrays: Arrays) -> object:
    return {**arrays, "layer.bias": np.zeros((7, 7), np.float32)}


def not_a_number(arrays: Arrays) -> object:
    return {**arrays, "layer.bias": np.full(3, np.nan, np.float32)}


def raising(error: Exception) -> Callable[[Arrays], object]:
    def fault(arrays: Arrays) -> object:
        raise error

    return fault


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (wrong_shape, r"layer\.bias"),
        (not_a_number, "not finite"),
        (lambda arrays: None, "no mapping of names"),
        (raising(ZeroDivisionError("oh")), "ZeroDivisionError: oh"),
        (raising(HistoryError("a file is damaged")), "a file is damaged"),
        (raising(FederationError("not separable")), "not separable"),
    ],
)
def test_a_request_that_fails_ends_itself_and_can_be_asked_again(
    tmp_path: Path, fault: Callable[[Arrays], object], reason: str
) -> None:
    toy = ToyFederation(tmp_path)
    broken = type("Broken", (Raises,), {"fault": staticmethod(fault)})
    ledger = toy.federation.ledger
    ledger.receive(Request(Scope.CLIENT, clients=(LEAVER,), at_round=1, id="first"))
    arrays = toy.run(broken(), rounds=3)
    told = ledger.events("first")
    assert [event.event for event in told] == ["received", "started", "failed"]
    assert re.search(reason, str(told[-1].facts["reason"]))
    assert toy.federation.completed == 3
    assert [c for c, step in toy.asked if step == "train"].count(LEAVER) == 1
    assert toy.federation.roster is not None
    assert LEAVER not in toy.federation.roster.clients

    ledger.receive(Request(Scope.CLIENT, clients=(LEAVER,), id="again"))
    retrain = registry.make("retrain", {})
    toy.run(retrain, arrays, rounds=0)
    assert ledger.state("again") == "fulfilled"
    assert toy.federation.history.first_round(Request(Scope.CLIENT, clients=(LEAVER,))) is None


def test_asked_again_the_model_is_taken_to_rest_on_the_data_still(tmp_path: Path) -> None:
    """Else the second request would find that all is forgotten, and do nothing."""
    toy = ToyFederation(tmp_path)
    broken = type("Broken", (Raises,), {"fault": staticmethod(not_a_number)})
    toy.federation.ledger.receive(Request(Scope.SAMPLE, samples={LEAVER: (0, 1)}, id="first"))
    arrays = toy.run(broken(), toy.learn_without_serving(2), rounds=0)
    again = Request(Scope.SAMPLE, samples={LEAVER: (0, 1)}, id="again")
    after = toy.unlearn(registry.make("retrain", {}), again, arrays)
    assert named.digest(after) != named.digest(arrays)


def test_a_run_that_is_cancelled_ends(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)
    broken = type("Broken", (Raises,), {"fault": staticmethod(raising(InterruptedError("stop")))})
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(LEAVER,), id="r"))
    with pytest.raises(InterruptedError):
        toy.run(broken(), toy.learn_without_serving(1), rounds=0)
    assert "when the run goes on" in str(toy.federation.ledger.events("r")[-1].facts["reason"])


def test_copies_are_looked_for_after_somebody_left(tmp_path: Path) -> None:
    """Who has left has nothing to say any more, and no message goes there."""
    toy = ToyFederation(tmp_path)

    class Watch:
        duplicates = True

        def check(self, request: Request) -> None: ...

        def inspect(self, request: Request, guarantee: object, before: Arrays, after: Arrays):  # type: ignore[no-untyped-def]
            return Inspection(after)

    toy.federation.guard = Watch()  # type: ignore[assignment]
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(LEAVER,), id="client"))
    toy.federation.ledger.receive(Request(Scope.CLASS, classes=(CLASS,), id="class"))
    toy.run(FineTune(), toy.learn_without_serving(1), rounds=0)
    assert [toy.federation.ledger.state(one) for one in ("client", "class")] == ["fulfilled"] * 2


def test_a_constructor_that_forgets_its_base_is_named() -> None:
    class Forgetful(FineTune):
        def __init__(self) -> None:
            self.own = 1

    with pytest.raises(ConfigError, match=r"Forgetful does not call super\(\)\.__init__\(\)"):
        Forgetful().join(Federation())

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from strategies import serving
from strategies.federation import Federation
from strategies.roster import Roster
from tests.support.toy import ToyFederation
from unlearning.errors import HistoryError
from unlearning.records.history import History
from unlearning.request import Forgotten, Request, Scope

NODES = {0: 10, 1: 11, 2: 12}
MODEL = {"w": np.zeros(1, np.float32)}
FIRST = Request(Scope.CLIENT, clients=(1,), id="first")


def seen(*clients: int) -> History:
    """Return a history of one round in which some clients took part."""
    history = History(keep=())
    history.start(MODEL)
    with history.record(1, MODEL) as entry:
        for client in clients:
            entry.note(client, 4)
    return history


def roster() -> Roster:
    return Roster(None, NODES)  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch", "count"), [(1, 2), (2, 2), (3, 0)])
def test_what_can_be_served_now(batch: int, count: int) -> None:
    federation, crew = Federation(batch=batch), roster()
    for client in (1, 2):
        federation.ledger.receive(Request(Scope.CLIENT, clients=(client,)))
    assert len(serving.ready(federation, crew)) == count
    assert len(federation.ledger.held()) == (0 if count else 2)
    assert crew.clients == ((0, 1, 2) if count else (0,))


def asked(place: int, client: int | None = None) -> Request:
    if client is None:
        return Request(Scope.CLASS, classes=(place,), id=f"r{place}", asked_by="eve")
    return Request(Scope.SAMPLE, samples={client: (place,)}, id=f"r{place}")


@pytest.mark.parametrize("client", [1, None])
def test_one_asker_begins_no_more_than_its_rate(client: int | None) -> None:
    """A burst of five: two are served, three wait without their data, nobody else does."""
    federation, crew = Federation(rate=2, window_s=60.0), roster()
    ledger = federation.ledger
    for place in range(5):
        ledger.receive(asked(place, client))
    ledger.receive(Request(Scope.CLIENT, clients=(2,), id="other"))
    assert serving.has_work(federation)
    assert [one.id for one in serving.ready(federation, crew)] == ["r0", "r1", "other"]
    held = ledger.held()
    assert sorted(held) == ["r2", "r3", "r4"]
    assert "guard.max_requests" in str(held["r4"].facts["reason"])
    assert [one.id for one in federation.forgotten.requests] == ["r2", "r3", "r4"]
    assert len(serving.outstanding(federation)) == 6  # nothing is lost


def test_the_window_moves_on_and_the_operator_may_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    federation, crew = Federation(rate=1, window_s=60.0), roster()
    ledger = federation.ledger
    for place in range(3):
        ledger.receive(asked(place, 1))
    first, *_ = serving.ready(federation, crew)
    ledger.add(first.id, "started")
    ledger.add(first.id, "fulfilled")
    assert not serving.has_work(federation)  # whoever waits for requests does not spin
    assert serving.ready(federation, crew) == []
    ledger.add("r2", "released", released_by="operator")
    assert [one.id for one in serving.ready(federation, crew)] == ["r2"]
    later = serving.now() + timedelta(seconds=61)
    monkeypatch.setattr(serving, "now", lambda: later)
    assert [one.id for one in serving.ready(federation, crew)] == ["r1", "r2"]


def test_a_batch_that_is_not_full_is_no_work() -> None:
    federation, crew = Federation(batch=2), roster()
    federation.ledger.receive(asked(0, 1))
    assert serving.has_work(federation)  # it is still to be held
    assert serving.ready(federation, crew) == []
    assert not serving.has_work(federation)
    federation.ledger.receive(asked(1, 2))
    assert len(serving.ready(federation, crew)) == 2


def test_whom_the_model_rests_on() -> None:
    nobody = Forgotten()
    assert serving.is_concerned(FIRST, seen(0, 1), nobody, NODES)
    assert not serving.is_concerned(FIRST, seen(0), nobody, NODES)
    assert not serving.is_concerned(FIRST, seen(0, 1), Forgotten((FIRST,)), NODES)


def test_a_held_request_is_not_forgotten_yet() -> None:
    again = Request(Scope.CLIENT, clients=(1,), id="again")
    both = Forgotten((FIRST, again))
    assert serving.forgotten_before(both, again, frozenset()).requests == (FIRST,)
    assert serving.forgotten_before(both, again, frozenset({"first"})).requests == ()
    assert serving.forgotten_before(both, Request(Scope.CLASS, classes=(1,)), frozenset()) is both


def test_leaving_hides_the_client_whatever_comes_after() -> None:
    federation, crew = Federation(completed=1), roster()
    with pytest.raises(HistoryError, match="1 rounds were learned but none is recorded"):
        serving.leave(federation, crew, FIRST, History(), frozenset())
    assert crew.clients == (0, 2)
    assert federation.forgotten.clients == {1}


def test_the_owners_of_a_model_that_is_no_network_stay_known() -> None:
    history = seen(0, 1, 2)
    clean = history.fork(None, durable=False)
    clean.truncate(0)
    serving.keep_participants(clean, FIRST, history)
    assert list(clean.participants(1)) == [0, 2]


def test_owners_delete(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, clients=3)
    leaving = Request(Scope.SAMPLE, samples={0: (1, 2)})
    crew = toy.federation.roster
    assert crew is not None
    assert serving.dismiss(toy.federation, crew, leaving)["acknowledged"] == [0]

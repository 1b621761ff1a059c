from __future__ import annotations

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

from __future__ import annotations

import numpy as np
import pytest

from strategies import starting
from strategies.federation import Federation
from strategies.roster import Roster
from unlearning.arrays import Arrays
from unlearning.request import Request, Scope

MODEL = {"w": np.zeros(1, np.float32)}


def asked(*clients: int, recovery_rounds: int = 2) -> Federation:
    """Return a federation after three rounds in which some clients want to be forgotten."""
    crew = Roster(None, {0: 10, 1: 11, 2: 12})  # type: ignore[arg-type]
    federation = Federation(roster=crew, completed=3, recovery_rounds=recovery_rounds)
    for client in clients:
        federation.ledger.receive(Request(Scope.CLIENT, clients=(client,), id=f"r{client}"))
    return federation


def fulfilled(federation: Federation, name: str) -> None:
    for event in ("started", "unlearned", "fulfilled"):
        federation.ledger.add(name, event)


@pytest.mark.parametrize("recovery_rounds", [0, 2])
def test_what_is_open_after_the_last_round_is_served_and_recovered_from(
    recovery_rounds: int,
) -> None:
    federation, done = asked(1, recovery_rounds=recovery_rounds), []

    def serve(arrays: Arrays) -> Arrays:
        assert federation.owed == recovery_rounds
        fulfilled(federation, "r1")
        return {"w": arrays["w"] + 1}

    def learn(arrays: Arrays, rounds: int) -> Arrays:
        done.append(rounds)
        assert (federation.goal, federation.owed) == (3 + rounds, 0)
        return {"w": arrays["w"] + 10}

    found = starting.serve_rest(federation, MODEL, serve, learn)
    assert found["w"] == (11 if recovery_rounds else 1)
    assert done == [recovery_rounds] * bool(recovery_rounds)


def test_what_stays_held_ends_it_without_recovery() -> None:
    found = starting.serve_rest(asked(1), MODEL, lambda arrays: arrays, lambda arrays, rounds: {})
    assert found is MODEL


def test_beginning_takes_up_the_ledger() -> None:
    federation = asked(1)
    fulfilled(federation, "r1")
    federation.failed = frozenset({"r2"})
    crew = starting.begin(federation, None, lambda: pytest.fail("it has learned"), 4, 9.0)  # type: ignore[arg-type]
    assert crew.clients == (0, 2)
    assert (federation.goal, federation.timeout_s, federation.failed) == (7, 9.0, frozenset())


def test_a_federation_that_has_learned_nothing_begins_with_the_initial_model() -> None:
    federation = asked()
    federation.completed = 0
    starting.begin(federation, None, lambda: MODEL, 4, 9.0)  # type: ignore[arg-type]
    assert federation.history.initial["w"] == 0

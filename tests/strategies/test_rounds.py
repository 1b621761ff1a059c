from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from experiments.federation.grids import LocalGrid
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.rounds import Rounds, recorded
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Forgotten, Request, Scope

MODEL = {"w": np.zeros(1, np.float32)}
LEAVER = Request(Scope.CLIENT, clients=(1,))


def roster() -> Roster:
    return Roster(LocalGrid(ClientApp(), 0), {0: 10, 1: 11})


def mean(server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
    return {"w": np.mean([reply.arrays["w"] for reply in replies], axis=0)}


def test_a_learning_round_asks_whom_the_strategy_names() -> None:
    rounds = Rounds("Mine", MODEL)
    assert rounds.asks_nobody
    sent = rounds.learn(
        Federation(completed=3), roster(), lambda number: {number - 4: Instruction()}, {}
    )
    assert [message.metadata.dst_node_id for message in sent] == [10]
    assert not rounds.asks_nobody


def test_nobody_to_ask_is_said() -> None:
    with pytest.raises(FederationError, match="no client is left to learn from"):
        Rounds("Mine", MODEL).learn(Federation(), roster(), lambda number: {}, {})


@pytest.mark.parametrize(("loss", "rests"), [(1.04, True), (1.06, False)])
def test_recovery_ends_within_its_tolerance(loss: float, rests: bool) -> None:
    federation = Federation(tolerance=0.05, before=1.0, forgotten=Forgotten((LEAVER,)))
    rounds = Rounds("Mine", MODEL, losses={0: (loss, 4)})
    assert rounds.is_at_rest(federation) is rests
    federation.ledger.receive(LEAVER)  # what is still to be served keeps it going
    assert not rounds.is_at_rest(federation)


def test_a_round_at_rest_changes_nothing() -> None:
    federation = Federation(tolerance=0.05, before=1.0)
    rounds = Rounds("Mine", MODEL, losses={0: (1.0, 4)})
    assert list(rounds.learn(federation, roster(), lambda number: {0: Instruction()}, {})) == []
    assert rounds.learned(federation, [], recorded) is MODEL  # type: ignore[arg-type]
    assert federation.completed == 0


def test_an_unlearning_round_of_nobody_is_the_hook_alone() -> None:
    found = Rounds("Mine", MODEL).unlearn(
        Federation(),
        roster(),
        1,
        lambda number: {},
        lambda number, arrays, replies: {"w": arrays["w"] + 1},
        keepsakes={},
        request=LEAVER,
        held=frozenset(),
    )
    assert found["w"] == 1


def test_what_is_learned_is_recorded_and_a_bad_model_is_not() -> None:
    history = History()
    history.start(MODEL)
    reply = Reply(0, 4, {"w": np.ones(1, np.float32)}, update={"w": np.ones(1, np.float32)})
    kept: list[Arrays] = []
    found = recorded(history, 1, MODEL, [reply], mean, who="Mine", like=MODEL, kept=kept.append)
    assert found["w"] == 1
    assert kept == [found]
    assert history.participants(1) == {0: 4}
    with pytest.raises(FederationError, match="Mine returned a model whose"):
        recorded(history, 2, MODEL, [reply], mean, who="Mine", like={"v": MODEL["w"]})
    assert history.rounds == (1,)

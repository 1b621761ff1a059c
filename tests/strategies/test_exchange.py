from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from experiments.federation.grids import LocalGrid
from strategies.exchange import (
    RECOVER,
    UNLEARN,
    Exchange,
    check_model,
    faded,
    mean_measures,
    missing,
    omissions,
)
from strategies.federation import Federation
from strategies.roster import Roster
from tests.support.toy import ToyFederation
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply, Wire
from unlearning.request import Forgotten, Request, Scope


def exchange(federation: Federation | None = None, **how: object) -> Exchange:
    """Return one with clients 0 and 1 about a model of one number."""
    grid = LocalGrid(ClientApp(), 0)  # Flower wants an identity before it makes messages
    roster = Roster(grid, {0: 10, 1: 11}, {0: 4, 1: 6})
    asked = {1: Instruction(), 0: Instruction()}
    model = {"w": np.zeros(1, np.float32)}
    return Exchange(federation or Federation(seed=5), roster, asked, model, **how)  # type: ignore[arg-type]


def mean(server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
    return {"w": np.mean([reply.arrays["w"] for reply in replies], axis=0)}


def reply(client: int, value: float) -> Reply:
    return Reply(client, 4, {"w": np.full(1, value, np.float32)})


def config(found: Exchange, key: str) -> list[object]:
    return [json.loads(str(message.content["config"][key])) for message in found.messages()]  # type: ignore[call-overload,index]


def test_messages_go_out_by_client_with_an_address_for_their_randomness() -> None:
    found = exchange(number=3)
    assert [message.metadata.dst_node_id for message in found.messages()] == [10, 11]
    assert config(found, Wire.SEED) == [[5, 3, 0], [5, 3, 1]]


def test_unlearning_and_replays_have_addresses_of_their_own() -> None:
    found = exchange(Federation(seed=5, completed=7), number=3, phase=UNLEARN)
    found.asked = {0: Instruction(), 1: Instruction(seed_round=2)}
    assert config(found, Wire.SEED) == [[5, 10, 0, 1], [5, 2, 1]]


def test_recovery_has_settings_of_its_own() -> None:
    federation = Federation(train={"a": 1, "b": 1}, recovery={"b": 2})
    assert config(exchange(federation), Wire.SETTINGS)[0] == {"a": 1, "b": 1}
    assert config(exchange(federation, phase=RECOVER), Wire.SETTINGS)[0] == {"a": 1, "b": 2}


def test_a_hook_combines_what_is_there() -> None:
    found = exchange()
    assert found.combine(mean, iter([reply(0, 1.0), reply(1, 3.0)]))["w"] == [2.0]


def test_too_few_valid_replies() -> None:
    found = exchange(Federation(min_replies=0.6))
    found.roster.lost[1] = "quarantined: a value is not finite"
    with pytest.raises(FederationError, match=r"1 of 2 clients .*client 1: quarantined"):
        found.combine(mean, iter([reply(0, 1.0)]))


def test_a_hook_may_not_make_a_model_that_is_not_finite() -> None:
    with pytest.raises(FederationError, match=r"round 3 is not finite .* step of Wild"):
        exchange(number=3, who="Wild").combine(mean, iter([reply(0, np.inf)]))
    check_model({"w": np.ones(1)}, None, "the model", "Tame")


@pytest.mark.parametrize("model", [None, [np.ones(1)], {"w": 1.0}, {"w": np.array(["a"])}])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(FederationError, match=r"the model that Odd made is no mapping"):
        check_model(model, None, "the model", "Odd")  # type: ignore[arg-type]


def test_numbers_that_numpy_made_of_arrays_without_axes_are_arrays() -> None:
    model = {"w": np.ones(2), "gain": np.float32(2) * np.array(1, np.float32)}
    found = check_model(model, None, "the model", "Own")
    assert isinstance(found["gain"], np.ndarray)
    assert found["gain"].shape == ()
    assert found["gain"] == 2
    whole = {"w": np.ones(2)}
    assert check_model(whole, None, "the model", "Own") is whole


def test_where_nobody_holds_any_data_the_model_stays() -> None:
    found = exchange()
    found.roster.lost = dict.fromkeys(found.asked, "holds no data any more")
    assert found.combine(mean, iter(())) is found.arrays
    found.roster.lost = {**found.roster.lost, 1: "no reply within 1 s"}
    with pytest.raises(FederationError, match="0 of 2"):
        found.combine(mean, iter(()))


def test_replies_are_read_checked_and_metered(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, clients=2)
    toy.faults[1] = lambda arrays: [a[None] for a in arrays]
    roster = toy.federation.roster
    assert roster is not None
    found = Exchange(toy.federation, roster, dict.fromkeys((0, 1), Instruction()), toy.initial, 1)
    assert [one.client for one in found.ask()] == [0]
    assert missing(roster.lost).keys() == found.losses.keys() ^ {0, 1} == {1}
    assert toy.federation.costs["learn"].client_rounds == 2


@pytest.mark.parametrize(("held", "gone"), [((), [0, 1]), (("first",), [])])
def test_what_a_held_request_named_is_being_forgotten_now(
    held: tuple[str, ...], gone: object
) -> None:
    first = Request(Scope.SAMPLE, samples={0: (0, 1)}, id="first")
    again = Request(Scope.SAMPLE, samples={0: (0, 1, 2)}, id="again")
    found = omissions(Forgotten((first, again)), 0, again, frozenset(held))
    named = [json.loads(found[key])["samples"] for key in (Wire.OMIT, Wire.FORGET)]
    assert named == [gone, [0, 1, 2]]


def test_nobody_measured_anything() -> None:
    assert mean_measures([]) is None


def test_the_learning_rate_fades_from_round_to_round() -> None:
    settings = {"learning_rate": 0.8, "rate_decay": 0.5, "batch_size": 4}
    assert faded(settings, 1) == {"learning_rate": 0.8, "batch_size": 4}
    assert faded(settings, 3) == {"learning_rate": pytest.approx(0.2), "batch_size": 4}
    assert faded({"learning_rate": 0.8, "rate_decay": 1.0}, 9) == {"learning_rate": 0.8}


@pytest.mark.parametrize(
    ("number", "phase", "original"), [(2, "learn", None), (2, RECOVER, None), (5, UNLEARN, 2)]
)
def test_learning_and_replaying_have_the_rate_of_their_round(
    number: int, phase: str, original: int | None
) -> None:
    """Halved every round: .4 in the second, and again where that is replayed."""
    train = {"learning_rate": 0.8, "rate_decay": 0.5}
    made = exchange(Federation(train=train, recovery=train), number=number, phase=phase)
    made.asked = {0: Instruction(seed_round=original)}
    (message,) = made.messages()
    sent = json.loads(str(message.content["config"][Wire.SETTINGS]))
    assert sent["learning_rate"] == pytest.approx(0.4)
    assert "rate_decay" not in sent

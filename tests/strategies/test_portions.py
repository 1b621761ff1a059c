"""Models made for groups of clients: a message carries the parts of its client and no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import Participant
from clients.sequenced import Sequenced
from clients.sharded import Sharded as Network
from clients.sharded_tree import ShardedTree
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.global_model.sequences import Sequences
from strategies.global_model.sharded import Sharded
from strategies.wire import num_bytes, to_record
from tests.support.taskworld import PARITY, World, clients_without
from tests.support.toy import CLASSES, FEATURES, ToyFederation, ToyModel, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.models.portions import needed, parts_of
from unlearning.models.sequences import groups_in
from unlearning.models.shards import members, shard_of
from unlearning.protocol import Wire
from unlearning.records.blobs import decode, encode
from unlearning.records.history import History
from unlearning.request import Scope
from unlearning.weighing import TRUNK, part_of

CLIENTS, ROUNDS = 8, 6
PAIRS = "left", "right", "parity"


def in_shards(seed: int) -> nn.Module:
    return Network([ToyModel(10 * seed + s) for s in range(4)])


def in_a_tree(seed: int, rounds: tuple[int, ...] = (2, 2, 2)) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        row = [nn.Linear(FEATURES, CLASSES) for _ in range(7)]
    return ShardedTree([row[:4], row[4:6], row[6:]], rounds)


def in_sequences(seed: int, groups: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = nn.Linear(FEATURES, CLASSES)
    return Sequenced(base, groups, groups, 2)


KINDS: dict[str, tuple[Callable[[int], nn.Module], type[UnlearningStrategy]]] = {
    "shards": (in_shards, Sharded),
    "tree": (in_a_tree, Sharded),
    "sequences": (in_sequences, Sequences),
}
# The same with fewer rounds to train everything in: a part begins, goes on and is left behind.
SHORT: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "shards": (in_shards, 3),
    "tree": (partial(in_a_tree, rounds=(1, 2, 1)), 4),
    "sequences": (partial(in_sequences, groups=2), 4),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("tests.support.toy.ToyModel", KINDS[request.param][0])
    return str(request.param)


def federation(home: Path, **settings: object) -> ToyFederation:
    return ToyFederation(home, clients=CLIENTS, remember=False, **settings)  # type: ignore[arg-type]


@pytest.fixture
def travelled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str], list[str]]]:
    """Return what will be noted of every message: client, names down, names up."""
    seen: list[tuple[int, list[str], list[str]]] = []
    fit = Participant.fit

    def noted(self, parameters, config):  # type: ignore[no-untyped-def]
        answer = fit(self, parameters, config)
        names = json.loads(config[Wire.NAMES]), json.loads(answer[2][Wire.NAMES])
        seen.append((self.client, *names))
        return answer

    monkeypatch.setattr(Participant, "fit", noted)
    return seen


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all of the model travel, both ways."""
    monkeypatch.setattr("strategies.outgoing.needed", lambda arrays, group: tuple(arrays))
    monkeypatch.setattr("clients.participant.travelling", lambda arrays, sent, rests: arrays)


def states(
    home: Path, strategy: UnlearningStrategy, rounds: int, **settings: object
) -> Iterator[str]:
    """Yield the digests of a federation that learns, forgets a client and recovers."""
    toy = federation(home, **settings)
    arrays = toy.learn(rounds)
    yield named.digest(arrays)
    history = toy.federation.history
    for t in history.rounds:
        yield named.digest(history.arrays(t))
        for client in history.participants(t):
            yield named.digest(history.update(t, client))
            yield json.dumps(history.norms(t, client))
    toy.federation.ledger.receive(request(Scope.CLIENT))
    yield named.digest(toy.run(strategy, arrays, rounds=0))
    yield named.digest(toy.federation.history.contribution(0))


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_models_and_histories_are_those_of_whole_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fraction: float
) -> None:
    made, (network, rounds) = KINDS[kind][1], SHORT[kind]
    monkeypatch.setattr("tests.support.toy.ToyModel", network)
    parts = list(states(tmp_path / "a", made(), rounds, fraction=fraction))
    whole(monkeypatch)
    assert parts == list(states(tmp_path / "b", made(), rounds, fraction=fraction))


def test_a_client_of_a_shard_sees_its_own_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    travelled: list[tuple[int, list[str], list[str]]],
) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", in_shards)
    toy = federation(tmp_path)
    arrays = toy.learn(3)
    for client, down, up in travelled:
        own = [name for name in arrays if part_of(name) == str(shard_of(client, 4))]
        assert down == up == own
    record = to_record(arrays)
    each = [num_bytes({n: record[n] for n in needed(arrays, group)}) for group in range(4)]
    expected = sum(3 * len(group) * each[s] for s, group in members(range(CLIENTS), 4).items())
    cost = toy.federation.costs["learn"]
    assert cost.bytes_down == cost.bytes_up == expected
    assert expected == 3 * CLIENTS * num_bytes(record) // 4


def test_of_a_tree_one_node_comes_and_its_children_where_it_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    travelled: list[tuple[int, list[str], list[str]]],
) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", in_a_tree)
    federation(tmp_path).learn(ROUNDS + 1)
    for place, (client, down, up) in enumerate(travelled):
        round_, leaf = place // CLIENTS, shard_of(client, 4)
        level = min(round_ // 2, 2)
        node = f"{level}-{leaf >> level}"
        weights = {part_of(name) for name in down if name.endswith("weight")}
        children = {f"{level - 1}-{2 * (leaf >> level) + side}" for side in (0, 1)}
        begins = level > 0 and round_ == 2 * level
        assert weights == {node} | (children if begins else set())
        assert {part_of(name) for name in up} == {node}


def test_of_sequences_up_come_the_modules_that_were_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    travelled: list[tuple[int, list[str], list[str]]],
) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", in_sequences)
    toy = federation(tmp_path)
    arrays = toy.learn(ROUNDS)
    for place, (client, down, up) in enumerate(travelled):
        stage, group = place // CLIENTS // 2, shard_of(client, 3)
        mine = {f"{j}-{stage}" for j in range(3) if (group - j) % 3 <= stage}
        assert {part_of(name) for name in up} == mine
        weights = {part_of(name) for name in down if ".net." in name}
        assert mine <= weights
        assert TRUNK in {part_of(name) for name in down}
        assert all((group - int(part[0])) % 3 <= stage + 1 for part in weights)
    cost, all_of_it = toy.federation.costs["learn"], num_bytes(to_record(arrays))
    assert cost.bytes_up < cost.bytes_down < ROUNDS * CLIENTS * all_of_it


def test_who_keeps_a_model_is_sent_the_whole(
    tmp_path: Path, kind: str, travelled: list[tuple[int, list[str], list[str]]]
) -> None:
    toy = ToyFederation(tmp_path, clients=CLIENTS, remember=True)
    arrays = toy.learn(1)
    assert all(down == list(arrays) and len(up) < len(down) for _, down, up in travelled)


# Heads ----------------------------------------------------------------------------------------


def own(client: int, gone: str = "") -> set[str]:
    """Return the parts of a client of digit pairs: the trunk, two tasks of three."""
    tasks = {PAIRS[client % 3], PAIRS[(client + 1) % 3]}
    return {TRUNK} | tasks - {gone}


def test_a_client_sees_the_heads_of_its_own_tasks_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    travelled: list[tuple[int, list[str], list[str]]],
) -> None:
    """Until a task is forgotten: then its head travels to nobody. No bit of a model changes."""
    same = clients_without(0, ())
    world = World(tmp_path / "a", app=same)
    assert len(travelled) == 12
    for client, down, up in travelled:
        assert {part_of(name) for name in down} == own(client)
        assert up == down
    travelled.clear()
    world.federation.ledger.receive(PARITY)
    forgotten = world.run(Retrain(), world.learned, 0)
    assert travelled
    for client, down, _ in travelled:
        assert {part_of(name) for name in down} == own(client, gone="parity")
    whole(monkeypatch)
    twin = World(tmp_path / "b", app=same)
    twin.federation.ledger.receive(PARITY)
    assert named.digest(twin.learned) == named.digest(world.learned)
    assert named.digest(twin.run(Retrain(), twin.learned, 0)) == named.digest(forgotten)


def test_nobody_moves_the_head_of_a_task_it_did_not_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = Participant.fit

    def greedy(self, parameters, config):  # type: ignore[no-untyped-def]
        arrays, count, metrics = fit(self, parameters, config)
        if self.client == 3:  # of left and right
            metrics["examples-of/parity"] = 9.0
        return arrays, count, metrics

    monkeypatch.setattr(Participant, "fit", greedy)
    world = World(tmp_path, app=clients_without(0, ()))
    assert 3 not in world.federation.history.participants(1)
    assert "it claims to train part 'parity', which is other clients'" in caplog.text


def test_who_says_nothing_of_its_tasks_is_sent_all_heads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    travelled: list[tuple[int, list[str], list[str]]],
) -> None:
    properties = Participant.get_properties

    def silent(self, config):  # type: ignore[no-untyped-def]
        return {k: v for k, v in properties(self, config).items() if k != Wire.TASKS}

    monkeypatch.setattr(Participant, "get_properties", silent)
    World(tmp_path, app=clients_without(0, ()))
    assert all({part_of(name) for name in down} == {TRUNK, *PAIRS} for _, down, _ in travelled)


# What a client may not do ---------------------------------------------------------------------


def test_nobody_moves_a_part_of_others(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Client 3 says that its answer rests on its examples in every part, and moves all of them."""
    toy = federation(tmp_path)
    fit = Participant.fit

    def greedy(self, parameters, config):  # type: ignore[no-untyped-def]
        arrays, count, metrics = fit(self, parameters, config)
        if self.client == 3:
            arrays = [a + 1 for a in toy.initial.values()]
            metrics = {k: v for k, v in metrics.items() if not k.startswith("examples-of/")}
            metrics[Wire.NAMES] = json.dumps(list(toy.initial))
        return arrays, count, metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Participant, "fit", greedy)
        toy.learn(1)
    assert 3 not in toy.federation.history.participants(1)
    assert "client 3 is left out: quarantined: it claims to train part" in caplog.text


def test_what_was_trained_must_come_back(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    toy = federation(tmp_path)
    fit = Participant.fit

    def lazy(self, parameters, config):  # type: ignore[no-untyped-def]
        arrays, count, metrics = fit(self, parameters, config)
        if self.client == 3:
            names = json.loads(metrics[Wire.NAMES])
            arrays, metrics[Wire.NAMES] = arrays[1:], json.dumps(names[1:])
        return arrays, count, metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Participant, "fit", lazy)
        toy.learn(1)
    assert 3 not in toy.federation.history.participants(1)
    assert "is missing" in caplog.text


def test_a_part_that_did_not_come_is_not_trained(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cut too much off: every client says so, and nothing is made of nothing."""
    monkeypatch.setattr(
        "strategies.outgoing.needed",
        lambda arrays, group: tuple(n for n, a in arrays.items() if a.dtype.kind != "f"),
    )
    with pytest.raises(FederationError, match=r"was not sent|differ in array 'base"):
        federation(tmp_path).learn(1)


def test_parts_are_told_by_names_and_public_ids_alone(kind: str) -> None:
    arrays = ToyFederation(Path("unused"), clients=CLIENTS).initial
    for group in range(groups_in(list(arrays))):
        wanted = {part_of(name) for name in needed(arrays, group)}
        if kind == "shards":
            assert wanted == parts_of(list(arrays), group) == {str(group)}
        else:
            weights = {part_of(n) for n in needed(arrays, group) if arrays[n].dtype.kind == "f"}
            assert weights & parts_of(list(arrays), group)
    assert needed({"w": np.zeros(2)}, 0) == ("w",)


# The history ----------------------------------------------------------------------------------


def test_an_update_is_stored_without_the_parts_that_it_did_not_touch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", in_shards)
    toy = federation(tmp_path / "a", history=History(tmp_path / "h", keep={"updates"}))
    arrays = toy.learn(2)
    history = toy.federation.history
    sizes = {blob.path: blob.size for blob in history.store.select("kind = 'update'")}
    update = history.update(2, 3)
    assert list(update) == list(arrays)
    own = {n: a for n, a in update.items() if part_of(n) == str(shard_of(3, 4))}
    assert all(not a.any() for n, a in update.items() if n not in own and a.dtype.kind == "f")
    assert len(set(sizes.values())) <= 2
    assert max(sizes.values()) < len(encode(update))
    history.close()
    with History.open(tmp_path / "h") as again:
        assert named.digest(again.update(2, 3)) == named.digest(update)


@pytest.mark.parametrize("half", [False, True])
def test_what_may_be_zero_comes_back_bit_for_bit(half: bool) -> None:
    arrays: Arrays = {
        "shards.0.w": np.zeros((2, 3), np.float32),
        "shards.1.w": np.array([-0.0, 0.0]),
        "shards.2.w": np.array([0.0, 1.5]),
        "shards.3.n": np.array(0),
        "shards.3.e": np.zeros((0, 2), np.float16),
    }
    found = decode(encode(arrays, half=half, idle=list(arrays)))
    assert list(found) == list(arrays)
    assert named.digest(found) == named.digest(arrays)
    assert np.signbit(found["shards.1.w"][0])
    assert encode(arrays, half=half) == encode(arrays, half=half, idle=["shards.2.w"])
    nothing = {"a": np.zeros(3)}
    assert named.digest(decode(encode(nothing, idle=["a"]))) == named.digest(nothing)

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.client import NumPyClient

from clients import steps
from clients.app import make_client_app
from clients.local import Chosen
from clients.participant import Holdings, Participant, arrays_of, load_arrays
from clients.steps import Local, Outcome, Shard
from experiments.federation.grids import LocalGrid
from strategies.wire import to_arrays, to_content, to_record
from tests.support.toy import TRAIN, ToyFederation, ToyModel, shard
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.protocol import EVERY, Wire
from unlearning.records.memory import ClientMemory
from unlearning.request import Omission

SIZE = 12


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[Local]:
    """Return what steps get to see; every step answers with the model as it came."""
    seen: list[Local] = []

    def step(model, local, settings, generator) -> Outcome:  # type: ignore[no-untyped-def]
        seen.append(local)
        return Outcome(len(local.retain), 0)

    monkeypatch.setattr(steps, "find", lambda name: step)
    return seen


def data(size: int = SIZE) -> Shard:
    """Return examples that tell their own position: the first feature; labels 0, 1, 2, 0, ..."""
    x = torch.zeros(size, 3)
    x[:, 0] = torch.arange(size)
    return Shard(x, torch.arange(size) % 3)


def participant(home: Path | None, client: int = 4, train: Shard | None = None) -> Participant:
    held = Holdings(train or data(), shard(client, 6, salt=1), ToyModel, ToyModel(0))
    return Participant(client, held, ClientMemory(home, client))


def config(step: str = "train", **facts: object) -> dict[str, object]:
    """Return the config of a message that carries a fresh toy model."""
    plain = {
        Wire.STEP: step,
        Wire.SEED: [1, 2, 3],
        Wire.SERVER_ROUND: 5,
        Wire.NAMES: list(arrays_of(ToyModel(0))),
        Wire.SETTINGS: TRAIN,
        **facts,
    }
    return {k: v if isinstance(v, (str, int)) else json.dumps(v) for k, v in plain.items()}


def fit(member: Participant, model: Arrays | None = None, **facts: object):  # type: ignore[no-untyped-def]
    arrays = model or arrays_of(ToyModel(0))
    facts.setdefault(Wire.NAMES, list(arrays))
    answer, count, metrics = member.fit(list(arrays.values()), config(**facts))  # type: ignore[arg-type]
    names = json.loads(metrics.pop(Wire.NAMES))
    return dict(zip(names, answer, strict=True)), count, metrics


def positions(part: Shard) -> list[int]:
    return part.features[:, 0].int().tolist()


def omit(**what: object) -> dict[str, object]:
    return Omission(**{k: v if v is True else frozenset(v) for k, v in what.items()}).to_json()  # type: ignore[arg-type,call-overload]


def test_it_is_a_genuine_numpy_client() -> None:
    assert issubclass(Participant, NumPyClient)
    assert {"fit", "evaluate", "get_properties", "get_parameters"} <= vars(Participant).keys()


def test_it_says_who_it_is() -> None:
    assert participant(None).get_properties({}) == {Wire.CLIENT: 4, Wire.NUM_EXAMPLES: SIZE}


def test_fresh_parameters_depend_on_the_seed_alone() -> None:
    member = participant(None)
    one, two, other = (member.get_parameters({"seed": seed}) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


# What a step sees ---------------------------------------------------------------------------

SPLITS = {
    "nothing": ({}, {}, list(range(12)), []),
    "samples-now": ({}, {"samples": [0, 5]}, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11], [0, 5]),
    "samples-for-good": ({"samples": [0, 5]}, {}, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11], []),
    "both": ({"samples": [0, 5]}, {"samples": [5, 6]}, [1, 2, 3, 4, 7, 8, 9, 10, 11], [6]),
    "class-now": ({}, {"classes": [2]}, [0, 1, 3, 4, 6, 7, 9, 10], [2, 5, 8, 11]),
    "class-and-sample": ({"samples": [2, 3]}, {"classes": [2]}, [0, 1, 4, 6, 7, 9, 10], [5, 8, 11]),
    "class-for-good": ({"classes": [0, 1]}, {"samples": [2]}, [5, 8, 11], [2]),
    "everything-now": ({}, {"everything": True}, [], list(range(12))),
    "what-is-left": ({"classes": [1]}, {"everything": True}, [], [0, 2, 3, 5, 6, 8, 9, 11]),
    "everything-for-good": ({"everything": True}, {"samples": [1]}, [], []),
    "beyond-the-end": ({}, {"samples": [11, 12, 999]}, list(range(11)), [11]),
}


@pytest.mark.parametrize("case", SPLITS)
def test_forget_and_retain_are_told_apart(spied: list[Local], case: str) -> None:
    gone, asked, retain, forget = SPLITS[case]
    fit(participant(None), **{Wire.OMIT: omit(**gone), Wire.FORGET: omit(**asked)})
    assert positions(spied[0].retain) == retain
    assert positions(spied[0].forget) == forget
    assert len(spied[0].held_out) == 6
    assert spied[0].retain.labels.tolist() == [i % 3 for i in retain]


def test_positions_are_never_renumbered(spied: list[Local], tmp_path: Path) -> None:
    """After position 0 is gone, position 1 still names the same example."""
    member = participant(tmp_path)
    member.delete(Omission(samples=frozenset({0})))
    fit(member, **{Wire.FORGET: omit(samples=[1])})
    assert positions(spied[0].forget) == [1]
    assert positions(spied[0].retain) == list(range(2, 12))


def test_extras_reach_the_step_and_not_the_model(spied: list[Local]) -> None:
    sent = {f"{Wire.EXTRA}anchor": np.arange(3.0), **arrays_of(ToyModel(1))}
    answer, _, _ = fit(participant(None), sent)
    assert list(spied[0].extras) == ["anchor"]
    assert spied[0].extras["anchor"].tolist() == [0, 1, 2]
    assert named.digest(answer) == named.digest(arrays_of(ToyModel(1)))


def test_a_step_may_answer_with_arrays_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(model, local, settings, generator) -> Outcome:  # type: ignore[no-untyped-def]
        arrays = {"counts": np.bincount(local.retain.labels)}
        return Outcome(SIZE, 3, arrays=arrays, metrics={"radius": 0.5})

    monkeypatch.setattr(steps, "find", lambda name: counts)
    answer, count, metrics = fit(participant(None))
    assert answer["counts"].tolist() == [4, 4, 4]
    assert count == SIZE
    assert metrics == {"radius": 0.5, Wire.EXAMPLES_PROCESSED: 3}


def test_settings_and_randomness_reach_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draws(model, local, settings, generator) -> Outcome:  # type: ignore[no-untyped-def]
        drawn.append((dict(settings), generator.integers(2**62), float(torch.rand(1))))
        return Outcome(1, 0)

    monkeypatch.setattr(steps, "find", lambda name: draws)
    member = participant(None)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    for address in ([1, 2, 3], [1, 2, 3], [1, 3, 2], [1, 2, 3, 1]):
        fit(member, **{Wire.SEED: address})
    assert drawn[0] == drawn[1]
    assert len({row[1] for row in drawn}) == len({row[2] for row in drawn}) == 3
    assert drawn[0][0] == TRAIN
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(FederationError, match=r"unknown step 'tarin'; did you mean 'train'"):
        fit(participant(None), step="tarin")


def test_every_step_module_holds_a_step_of_its_name() -> None:
    assert {"train", "ascend"} <= set(steps.names())
    for name in steps.names():
        found = steps.find(name)
        assert found.__name__ == name
        assert list(inspect.signature(found).parameters) == [
            "model",
            "local",
            "settings",
            "generator",
        ]


def test_only_a_step_without_a_network_can_do_without_a_generator() -> None:
    """A network draws on its own, so all that a step of one does begins from one address."""
    idle = {name for name in steps.names() if not steps.draws(name)}
    assert "forest_counts" in idle
    assert "train" not in idle
    assert not any(steps.needs_model(name) for name in idle)


# Training -----------------------------------------------------------------------------------


def test_training_counts_what_it_did() -> None:
    """Two epochs over the ten examples that are left: 20 passes, weight 10."""
    _, count, metrics = fit(participant(None), **{Wire.FORGET: omit(samples=[0, 5])})
    assert count == 10
    assert metrics[Wire.EXAMPLES_PROCESSED] == 20


def test_max_steps_ends_training_early() -> None:
    settings = {**TRAIN, "max_steps": 1, "batch_size": 5}
    _, count, metrics = fit(participant(None), **{Wire.SETTINGS: settings})
    assert (count, metrics[Wire.EXAMPLES_PROCESSED]) == (SIZE, 5)


def test_forgotten_data_leave_no_trace_in_training(tmp_path: Path) -> None:
    """Trained without two examples = trained where they never were, bit for bit."""
    train = data()
    there = torch.tensor([i for i in range(SIZE) if i not in (0, 5)])
    never, _, _ = fit(participant(None, train=train.take(there)))
    gone = omit(samples=[0, 5])
    for facts in ({Wire.OMIT: gone}, {Wire.FORGET: gone}):
        answer, _, _ = fit(participant(None), **facts)
        assert named.digest(answer) == named.digest(never)
    member = participant(tmp_path)
    member.delete(Omission.from_json(gone))
    assert named.digest(fit(member)[0]) == named.digest(never)


def test_a_client_without_data_left_answers_with_weight_zero() -> None:
    model = arrays_of(ToyModel(1))
    answer, count, metrics = fit(participant(None), model, **{Wire.OMIT: omit(everything=True)})
    assert (count, metrics[Wire.EXAMPLES_PROCESSED]) == (0, 0)
    assert named.digest(answer) == named.digest(model)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="'learning_rate' is None"):
        fit(participant(None), **{Wire.SETTINGS: {"local_epochs": 1, "batch_size": 4}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer.weight": np.zeros((3, 4), np.float32)}, r"came with shape \(3, 4\)"),
        ({"more": np.zeros(1)}, "differ in array 'more'"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(change: Arrays, words: str) -> None:
    with pytest.raises(FederationError, match=words):
        fit(participant(None), arrays_of(ToyModel(0)) | change)


def test_loading_and_reading_a_model_are_exact_and_copies() -> None:
    model, arrays = ToyModel(0), arrays_of(ToyModel(1))
    load_arrays(model, arrays)
    read = arrays_of(model)
    assert named.digest(read) == named.digest(arrays)
    assert named.mismatch(arrays, read) is None
    read["layer.weight"][:] = 0
    assert named.digest(arrays_of(model)) == named.digest(arrays)


# Evaluation ---------------------------------------------------------------------------------


def test_evaluation_answers_for_each_split() -> None:
    """By hand: a model whose logits are the features says class 0 wherever position > 0."""
    model = arrays_of(ToyModel(0))
    model["layer.weight"] = np.eye(3, dtype=np.float32)
    model["layer.bias"] = np.zeros(3, np.float32)
    member = participant(None)

    def evaluate(split: str) -> tuple[float, int, float]:
        facts = config(split=split, **{Wire.FORGET: omit(samples=[3, 4])})  # type: ignore[arg-type]
        loss, count, metrics = member.evaluate(list(model.values()), facts)
        return loss, count, metrics["accuracy"]

    loss, count, accuracy = evaluate("forget")
    # Positions 3 (label 0: right) and 4 (label 1: wrong); logits (p, 0, 0).
    wanted = np.log(np.exp(3) + 2) - 3 + np.log(np.exp(4) + 2)
    assert loss == pytest.approx(wanted / 2, rel=1e-5)
    assert (count, accuracy) == (2, 0.5)
    # Of the ten others, 0, 6, 9 have label 0; at position 0 all logits are equal: class 0.
    assert evaluate("retain")[1:] == (10, 0.3)
    assert evaluate("held-out")[1] == 6
    with pytest.raises(FederationError, match="unknown split 'train'"):
        evaluate("train")


def test_of_fewer_than_ten_examples_only_that_they_are_few_is_told() -> None:
    """A sum over so few would tell of each; of none there is nothing to hide."""
    arrays = list(arrays_of(ToyModel(0)).values())
    asked = config(split=EVERY, **{Wire.FORGET: omit(samples=[3, 4])})  # type: ignore[arg-type]
    _, _, told = participant(None).evaluate(arrays, asked)
    assert (told["retain-examples"], told["retain-few"]) == (SIZE - 2, 0)
    assert 0 <= told["retain-right"] <= SIZE - 2
    for split in ("forget", "held_out"):  # two and six
        assert [told[f"{split}-{key}"] for key in ("examples", "right", "few")] == [0, 0, 1]
    _, _, told = participant(None).evaluate(arrays, config(split=EVERY))
    assert [told[f"forget-{key}"] for key in ("examples", "right", "few")] == [0, 0, 0]


def test_what_no_example_has_cannot_be_forgotten() -> None:
    with pytest.raises(FederationError, match="feature 3 is forgotten; an example has 3 values"):
        fit(participant(None), **{Wire.FORGET: omit(features=[3])})
    several = Shard(data().features, torch.zeros(SIZE, 2, dtype=torch.int64))
    with pytest.raises(FederationError, match="cannot forget a class; name a task"):
        fit(participant(None, train=several), **{Wire.FORGET: omit(classes=[0])})


def test_an_empty_split_answers_with_no_examples() -> None:
    arrays = list(arrays_of(ToyModel(0)).values())
    loss, count, metrics = participant(None).evaluate(arrays, config(split="forget"))
    assert (loss, count, metrics) == (0.0, 0, {"accuracy": 0.0})


def test_evaluation_leaves_the_statistics_alone() -> None:
    member, arrays = participant(None), arrays_of(ToyModel(0))
    member.evaluate(list(arrays.values()), config())
    assert named.digest(arrays_of(member.holdings.workbench)) == named.digest(arrays)


# Memory -------------------------------------------------------------------------------------


def test_tombstones_survive_a_restart(spied: list[Local], tmp_path: Path) -> None:
    participant(tmp_path).delete(Omission(samples=frozenset({1})))
    participant(tmp_path).delete(Omission(classes=frozenset({2})))
    fit(participant(tmp_path))
    assert positions(spied[0].retain) == [0, 3, 4, 6, 7, 9, 10]
    assert positions(spied[0].forget) == []


def test_the_server_cannot_talk_a_client_out_of_its_tombstones(
    spied: list[Local], tmp_path: Path
) -> None:
    member = participant(tmp_path)
    member.delete(Omission(everything=True))
    fit(member, **{Wire.OMIT: omit(), Wire.FORGET: omit(everything=True)})
    assert (len(spied[0].retain), len(spied[0].forget)) == (0, 0)


def test_what_is_there_is_worked_out_once_a_request_and_again_when_more_is_buried(
    spied: list[Local], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A level of a forest is a message; all of a request's ask for the same examples."""
    looks: list[Omission] = []
    look = Participant._left

    def left(self: Participant, omission: Omission) -> np.ndarray:
        looks.append(omission)
        return look(self, omission)

    monkeypatch.setattr(Participant, "_left", left)
    member, asked = participant(tmp_path), {Wire.FORGET: omit(samples=[3])}
    for _ in range(5):
        fit(member, **asked)
    assert len(looks) == 2  # what is there, and what of it goes
    participant(tmp_path).delete(Omission(samples=frozenset({5})))  # as in another process
    fit(member, **asked)
    fit(member, **{Wire.FORGET: omit(samples=[4])})
    fit(member)
    seen = [(positions(one.retain), positions(one.forget)) for one in spied[4:]]
    whole = set(range(SIZE))
    gone = [{3}, {3, 5}, {4, 5}, {5}]
    assert [set(retain) for retain, _ in seen] == [whole - one for one in gone]
    assert [forget for _, forget in seen] == [[3], [3], [4], []]


def test_each_client_remembers_for_itself(spied: list[Local], tmp_path: Path) -> None:
    participant(tmp_path, 1).delete(Omission(everything=True))
    fit(participant(tmp_path, 2))
    assert len(spied[0].retain) == SIZE


def test_deletion_is_acknowledged_once_per_example(tmp_path: Path) -> None:
    member = participant(tmp_path)
    receipts = [
        member.delete(omission)
        for omission in (
            Omission(samples=frozenset({0, 1})),
            Omission(samples=frozenset({1, 2})),
            Omission(samples=frozenset({1, 2})),
            Omission(everything=True),
        )
    ]
    assert [receipt["deleted-examples"] for receipt in receipts] == [2, 1, 0, 9]
    assert {receipt[Wire.CLIENT] for receipt in receipts} == {4}


def test_the_last_local_model_is_remembered(spied: list[Local], tmp_path: Path) -> None:
    member = participant(tmp_path)
    trained, _, _ = fit(member, **{Wire.REMEMBER: True, Wire.SERVER_ROUND: 7})
    assert spied[-1].remembered is None
    fit(participant(tmp_path), step="ascend", **{Wire.REMEMBER: True})
    remembered = spied[-1].remembered
    assert remembered is not None
    assert named.digest(remembered) == named.digest(trained)
    assert spied[-1].facts == {"round": 7}


def test_the_latest_training_is_what_is_remembered(spied: list[Local], tmp_path: Path) -> None:
    member = participant(tmp_path)
    for server_round in (1, 2):
        fit(
            member,
            arrays_of(ToyModel(server_round)),
            **{Wire.REMEMBER: True, Wire.SERVER_ROUND: server_round},
        )
    fit(member, arrays_of(ToyModel(3)), step="ascend", **{Wire.REMEMBER: True})
    fit(member, step="ascend", **{Wire.REMEMBER: True})
    remembered = spied[-1].remembered
    assert remembered is not None
    assert named.digest(remembered) == named.digest(arrays_of(ToyModel(2)))


def test_nothing_is_remembered_unless_asked(spied: list[Local], tmp_path: Path) -> None:
    member = participant(tmp_path)
    fit(member)
    assert not list(tmp_path.rglob("*.safetensors"))
    fit(member, **{Wire.REMEMBER: True})
    fit(member, step="ascend")
    assert spied[-1].remembered is None


def test_deleting_removes_the_last_local_model(spied: list[Local], tmp_path: Path) -> None:
    """Even for one sample: the model was trained on it."""
    member = participant(tmp_path)
    fit(member, **{Wire.REMEMBER: True})
    assert list(tmp_path.rglob("*.safetensors"))
    member.delete(Omission(samples=frozenset({0})))
    assert not list(tmp_path.rglob("*.safetensors"))
    fit(member, step="ascend", **{Wire.REMEMBER: True})
    assert spied[-1].remembered is None


# The app ------------------------------------------------------------------------------------


def test_the_app_speaks_all_four_kinds_of_message(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, clients=1)
    facts = {**toy.federation.client_config, Wire.FORGET: omit(samples=[0])}
    trains = {Wire.STEP: "train", Wire.SEED: [0, 1, 0], Wire.SERVER_ROUND: 1, Wire.SETTINGS: TRAIN}
    model = to_record(toy.initial)

    def ask(kind: str, config: dict[str, object]) -> RecordDict:
        message = Message(to_content(model, {}, config), 1000, kind)
        (reply,) = toy.grid.send_and_receive([message])
        return reply.content

    trained = ask("train", {**facts, **trains})
    assert named.mismatch(toy.initial, to_arrays(trained.array_records[Wire.ARRAYS])) is None
    metrics = dict(trained.metric_records[Wire.METRICS])
    assert (metrics[Wire.NUM_EXAMPLES], metrics[Wire.EXAMPLES_PROCESSED]) == (7, 14)
    assert metrics[Wire.CLIENT_SECONDS] > 0
    assert Wire.NAMES not in metrics

    measured = dict(ask("evaluate", {**facts, "split": "forget"}).metric_records[Wire.METRICS])
    assert measured[Wire.NUM_EXAMPLES] == 1
    assert {"loss", "accuracy"} < measured.keys()

    assert dict(ask("query", facts).config_records[Wire.CONFIG])[Wire.NUM_EXAMPLES] == 8
    receipt = ask("query.delete", facts).config_records[Wire.CONFIG]
    assert dict(receipt) == {Wire.CLIENT: 0, "named-examples": 1, "deleted-examples": 1}


def test_a_slow_client_is_cut_off() -> None:
    """Its own time limit frees the worker, whatever the server's deadline is."""

    class Sleepy(Participant):
        def fit(self, parameters, config):  # type: ignore[no-untyped-def]
            while True:
                pass

    app = make_client_app(lambda context, config: Sleepy(0, None, ClientMemory(None, 0)))  # type: ignore[arg-type]
    content = RecordDict({Wire.CONFIG: ConfigRecord({Wire.TIMEOUT: 0.05})})
    (reply,) = LocalGrid(app, 1).send_and_receive([Message(content, 1000, "train")])
    assert reply.has_error()
    assert "TimeoutError: client worked longer than 0.05 s" in str(reply.error.reason)


def test_a_metric_must_be_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def talks(model, local, settings, generator) -> Outcome:  # type: ignore[no-untyped-def]
        return Outcome(1, 0, metrics={"mood": "good"})  # type: ignore[dict-item]

    monkeypatch.setattr(steps, "find", lambda name: talks)
    toy = ToyFederation(tmp_path)
    with pytest.raises(FederationError, match="metric 'mood' is 'good'"):
        toy.learn(1)


def test_chosen_examples_are_copied_when_they_are_looked_at() -> None:
    whole = shard(0, 6)
    chosen = Chosen(whole, np.array([1, 4]))
    assert len(chosen) == 2
    assert "features" not in vars(chosen)
    assert torch.equal(chosen.features, whole.features[[1, 4]])
    assert torch.equal(chosen.labels, whole.labels[[1, 4]])
    assert chosen.features is chosen.features
    assert len(chosen.take(torch.tensor([0]))) == 1


def test_no_gradient_is_left_in_memory_after_a_step(tmp_path: Path) -> None:
    one = participant(tmp_path, train=shard(4, 6))
    one.fit(list(arrays_of(ToyModel(0)).values()), config())
    assert all(weight.grad is None for weight in one.holdings.workbench.parameters())

"""Forgetting a task: attribution (oracle 26), isolation (oracle 27), and whole federations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.multitask import MultiTask, only_tasks, without_tasks
from clients.steps import Local, Shard
from clients.steps.task_gradients import task_gradients
from clients.steps.train import train
from clients.tasktraining import train_tasks
from experiments.app import client_app
from experiments.federation.grids import LocalGrid
from experiments.federation.task import Scenario, task
from experiments.federation.task_judge import judge_of, task_accuracy
from experiments.models.networks import build, to_arrays
from strategies.federation import Federation
from strategies.global_model.retrain import Retrain
from strategies.registry import make
from strategies.roster import Roster
from strategies.structure.task_osd import conflict_free
from strategies.structure.task_restart import upper_layers
from strategies.structure.task_subtraction import TaskSubtraction, subtract_contribution
from tests.support.readings import initial_readings
from tests.support.taskworld import PARITY, World, config
from unlearning import arrays as named
from unlearning.errors import ConfigError, RequestError, UnsupportedRequestError
from unlearning.models.heads import task_of, trunk
from unlearning.protocol import Reply
from unlearning.records.memory import ClientMemory
from unlearning.request import Forgotten, Request, Scope

TASKS = {"left": 3, "right": 2}
TASKS_OF_PAIRS = ("left", "right", "parity")
ALIASES = ("head-drop", "task-subtraction", "task-osd", "task-negation", "task-restart")
SGD = {"local_epochs": 2, "batch_size": 4, "learning_rate": 0.2, "momentum": 0.9}


def net(isolated: str = "", seed: int = 0) -> MultiTask:
    settings = {"tasks": TASKS, "hidden": 6, "width": 4, "adapter": 3, "isolated": isolated}
    model = build("multi-task", (5,), 3, settings, seed)
    assert isinstance(model, MultiTask)
    return model


def data(size: int = 22) -> Shard:
    """Return examples of which a third has no left label and a fifth no right one."""
    generator = np.random.default_rng(3)
    x = torch.from_numpy(generator.normal(size=(size, 5)).astype(np.float32))
    y = np.stack([generator.integers(3, size=size), generator.integers(2, size=size)], axis=1)
    y[::3, 0], y[1::5, 1] = -1, -1
    return Shard(x, torch.from_numpy(y))


# Attribution --------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_parts_of_the_tasks_add_up_to_the_update(momentum: float) -> None:
    """Oracle 26: the sum over tasks is the update of the trunk, to the rounding of its dtype."""
    model = net().double()
    before = {n: a.astype(np.float64) for n, a in to_arrays(model).items()}
    shard = Shard(data().features.double(), data().labels)
    settings = {**SGD, "momentum": momentum}
    _, _, found = train_tasks(model, shard, settings, np.random.default_rng(0), attribute=True)
    assert found is not None
    assert set(found.updates) == {"left", "right"}
    after = to_arrays(model)
    for name in trunk(before):
        total = sum(part[name].numpy() for part in found.updates.values())
        np.testing.assert_allclose(total, after[name] - before[name], rtol=0, atol=1e-13)
        assert np.abs(found.updates["left"][name].numpy()).max() > 1e-3


def test_attribution_changes_no_bit_of_the_training() -> None:
    models = [net(), net()]
    for model, attribute in zip(models, (False, True), strict=True):
        train_tasks(model, data(), SGD, np.random.default_rng(0), attribute=attribute)
    assert named.digest(to_arrays(models[0])) == named.digest(to_arrays(models[1]))


def test_contributions_of_a_federation_add_up_to_what_the_trunk_learned(tmp_path: Path) -> None:
    """Over three rounds, with clients of unequal size that hold different tasks."""
    world = World(tmp_path)
    total: dict[str, np.ndarray] = {}
    for name in world.task.tasks:
        strategy = TaskSubtraction(alpha=1.0)
        request = Request(Scope.TASK, tasks=(name,))
        world.federation.forgotten = Forgotten()
        after = world.unlearn(strategy, request)
        for key in trunk(after):
            total[key] = total.get(key, 0.0) + (world.learned[key].astype(float) - after[key])
    for key, value in total.items():
        step = world.learned[key].astype(float) - world.initial[key]
        np.testing.assert_allclose(value, step, atol=3e-6)


def test_alpha_of_zero_leaves_the_trunk(tmp_path: Path) -> None:
    """Oracle 26, and the head is as before training."""
    world = World(tmp_path)
    after = world.unlearn(TaskSubtraction(alpha=0.0))
    for name, array in after.items():
        like = world.initial if task_of(name) == "parity" else world.learned
        np.testing.assert_array_equal(array, like[name])


def test_subtraction_by_hand() -> None:
    arrays = {"trunk.w": np.array([1.0, -2.0], np.float32), "heads.a.w": np.ones(1, np.float32)}
    after = subtract_contribution(arrays, {"trunk.w": np.array([2.0, 4.0])}, 0.5)
    assert after["trunk.w"].tolist() == [0, -4]
    assert after["trunk.w"].dtype == np.float32
    assert after["heads.a.w"] is arrays["heads.a.w"]


def test_lost_update_is_in_no_account() -> None:
    """The share that comes belongs to round 1; what is at hand was made in round 2 and lost."""
    kept = {"attribution-left": ({"done/w": np.ones(2), "last/w": np.ones(2)}, {"round": 2})}
    local = Local(data(), data(), data(), net, recall=kept.get)
    from clients.tasktraining import settled

    lost = settled(local, "left", {"share": 0.5, "share_round": 1})
    assert lost["done/w"].tolist() == [1, 1]
    counted = settled(local, "left", {"share": 0.5, "share_round": 2})
    assert counted["done/w"].tolist() == [1.5, 1.5]


def test_foreign_arrays_are_not_subtracted() -> None:
    arrays = {"trunk.w": np.ones(2, np.float32), "heads.parity.w": np.ones(1, np.float32)}
    strategy = TaskSubtraction(alpha=1.0)
    strategy.join(Federation())
    strategy.federation.roster = Roster(LocalGrid(client_app, 2), {0: 1000, 1: 1001}, {})
    replies = [
        Reply(0, 1, {"trunk.w": np.ones(2)}),
        Reply(1, 1, {"trunk.w": np.ones(3)}),
    ]
    assert strategy.combine(1, arrays, replies)["trunk.w"].tolist() == [0, 0]


# Isolation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("per_client", [1, 2, 3])
def test_deleting_an_isolated_task_is_retraining_bit_for_bit(
    tmp_path: Path, per_client: int
) -> None:
    """Also where some clients hold nothing but the task, and leave with it. Oracle 27."""
    chosen = config(
        data={**config().data.model_dump(exclude_none=True), "tasks_per_client": per_client},
        model={"name": "multi-task", "hidden": 16, "width": 8, "isolated": "parity"},
    )
    world = World(tmp_path, chosen)
    deleted = world.unlearn(make("isolated-adapters", {}))
    retrained = world.unlearn(Retrain(from_scratch=True))
    assert named.digest(deleted) == named.digest(retrained)
    assert named.digest(deleted) != named.digest(world.learned)
    for name, array in deleted.items():
        if task_of(name) != "parity":
            np.testing.assert_array_equal(array, world.learned[name])


def test_isolated_task_leaves_no_gradient_in_the_trunk() -> None:
    model = net("left,right")
    before = named.digest(trunk(to_arrays(model)))
    outcome = train(model, Local(data(), data(), data(), net), SGD, np.random.default_rng(0))
    assert named.digest(trunk(to_arrays(model))) == before
    assert outcome.metrics["examples-of/"] == 0
    model(data().features).sum().backward()
    assert all(w.grad is None for w in model.trunk.parameters())


def test_what_is_not_isolated_or_partial_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(UnsupportedRequestError, match=r"trained the trunk.*model\.isolated"):
        world.unlearn(make("isolated-adapters", {}))
    isolated = config(model={"name": "multi-task", "isolated": "parity"}, rounds=1)
    other = World(tmp_path / "isolated", isolated)
    with pytest.raises(UnsupportedRequestError, match="rests on the other clients"):
        other.unlearn(
            make("isolated-adapters", {}), Request(Scope.TASK, clients=(0,), tasks=("parity",))
        )


# The other strategies -----------------------------------------------------------------------


def test_direction_without_conflict() -> None:
    """G = (1, 1), A = [(1, 0)] twice: d = (0, 1) brought to the length of g."""
    rows = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    found = conflict_free(np.array([1.0, 1.0]), rows)
    assert found is not None
    np.testing.assert_allclose(found, [0, np.sqrt(2)], atol=1e-12)
    assert conflict_free(np.array([1.0, 0.0]), rows) is None
    alone = conflict_free(np.array([1.0, 2.0]), np.zeros((0, 2)))
    assert alone is not None
    np.testing.assert_allclose(alone, [1, 2])


def test_gradients_are_those_of_each_task() -> None:
    model, shard = net(), data()
    forget = only_tasks(shard, ("left", "right"), ("right",))
    retain = without_tasks(shard, ("left", "right"), ("right",))
    found = task_gradients(model, Local(retain, forget, retain, net), {}, np.random.default_rng(0))
    assert found.arrays is not None
    assert {key.split("/")[0] + "/" + key.split("/")[1] for key in found.arrays} == {
        "retain/left",
        "forget/right",
    }
    assert found.metrics["examples-of/forget/right"] == len(forget)
    there = shard.labels[:, 0] >= 0
    logits = model.heads["left"](model.trunk(shard.features[there]))
    loss = torch.nn.functional.cross_entropy(logits, shard.labels[there, 0])
    weight = next(model.trunk.parameters())
    (expected,) = torch.autograd.grad(loss, weight)
    name = next(iter(dict(model.trunk.named_parameters())))
    np.testing.assert_allclose(found.arrays[f"retain/left/trunk.{name}"], expected, atol=1e-6)


def test_upper_layers_take_what_stands_behind_their_weight() -> None:
    """Biases and buffers of normalisation belong to the layer before them, heads to none."""
    w, b = np.zeros((2, 2)), np.zeros(2)
    net = {
        "trunk.0.bias": b,
        "trunk.1.weight": w,
        "trunk.2.running_mean": b,
        "trunk.3.weight": w,
        "trunk.3.bias": b,
        "heads.a.weight": w,
        "isolated.b.0.weight": w,
    }
    assert upper_layers(net, 1) == ("trunk.3.weight", "trunk.3.bias")
    assert upper_layers(net, 2) == tuple(net)[1:5]
    assert upper_layers(net, 3) == tuple(net)[:5]


@pytest.mark.parametrize("layers", [1, 2])
def test_restart_brings_back_the_first_values_of_the_upper_layers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    world = World(tmp_path)
    readings = initial_readings(monkeypatch)
    after = world.unlearn(make("task-restart", {"layers": layers}))
    assert len(readings) == 2  # for the head and for the layers, not for every array
    for name, array in after.items():
        anew = name.startswith("trunk.3") or (layers == 2 and name.startswith("trunk."))
        like = world.initial if anew or task_of(name) == "parity" else world.learned
        np.testing.assert_array_equal(array, like[name])
        if anew:
            assert not np.array_equal(array, world.learned[name])


@pytest.mark.parametrize(
    "alias", ["head-drop", "task-subtraction", "task-osd", "task-negation", "task-restart"]
)
def test_full_request_drops_the_head_and_keeps_the_others(tmp_path: Path, alias: str) -> None:
    world = World(tmp_path)
    options = {"task-osd": {"unlearning_rounds": 2}}.get(alias, {})
    after = world.unlearn(make(alias, options))
    assert named.mismatch(world.learned, after) is None
    for name, array in after.items():
        if task_of(name) == "parity":
            np.testing.assert_array_equal(array, world.initial[name])
        elif task_of(name):
            np.testing.assert_array_equal(array, world.learned[name])
    moved = named.digest(trunk(after)) != named.digest(trunk(world.learned))
    assert moved == (alias != "head-drop")


def test_a_partial_request_leaves_a_head_drop_nothing_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(UnsupportedRequestError, match="the head rests on the other clients too"):
        world.unlearn(make("head-drop", {}), Request(Scope.TASK, clients=(1,), tasks=("parity",)))


@pytest.mark.parametrize("alias", ["task-subtraction", "task-osd", "task-negation", "task-restart"])
def test_partial_request_keeps_the_head(tmp_path: Path, alias: str) -> None:
    """Client 1 holds right and parity; client 2, who holds parity too, keeps it."""
    world = World(tmp_path)
    options = {"task-osd": {"unlearning_rounds": 2}}.get(alias, {})
    request = Request(Scope.TASK, clients=(1,), tasks=("parity",))
    after = world.unlearn(make(alias, options), request)
    for name, array in after.items():
        if task_of(name) == "parity":
            np.testing.assert_array_equal(array, world.learned[name])


def test_partial_subtraction_takes_one_clients_part_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    steps = []
    for request in (
        Request(Scope.TASK, clients=(1,), tasks=("parity",)),
        Request(Scope.TASK, clients=(2,), tasks=("parity",)),
        PARITY,
    ):
        world.federation.forgotten = Forgotten()
        after = world.unlearn(TaskSubtraction(alpha=1.0), request)
        steps.append(world.learned["trunk.1.weight"].astype(float) - after["trunk.1.weight"])
    assert np.abs(steps[0] - steps[2]).max() > 1e-4
    holders = [k for k in world.task.clients if (world.task.task_labels(k)[0][:, 2] >= 0).any()]
    assert holders == [1, 2]
    np.testing.assert_allclose(steps[0] + steps[1], steps[2], atol=1e-6)


def test_retraining_never_sees_the_task(tmp_path: Path) -> None:
    world = World(tmp_path)
    after = world.unlearn(Retrain(from_scratch=True))
    for name, array in after.items():
        if task_of(name) == "parity":
            np.testing.assert_array_equal(array, world.initial[name])
        elif not name.startswith("trunk.3.bias"):
            assert not np.array_equal(array, world.initial[name])


def test_second_task_can_be_forgotten_after_the_first(tmp_path: Path) -> None:
    """What clients keep of other tasks survives the deletion of one."""
    world = World(tmp_path)
    strategy = TaskSubtraction(alpha=0.5)
    for name in ("parity", "right"):
        world.federation.ledger.receive(Request(Scope.TASK, tasks=(name,), id=name))
    after = world.run(strategy, world.learned, 0)
    assert named.is_finite(after)
    assert [world.federation.ledger.state(n) for n in ("parity", "right")] == ["fulfilled"] * 2
    left = {path.stem for path in tmp_path.glob("client-*/*.safetensors")}
    assert left == {"attribution-left"}


def test_learning_without_notes_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.federation.attribute = False
    with pytest.raises(ConfigError, match="noted what each task did"):
        world.unlearn(TaskSubtraction())


# The task and its judge ---------------------------------------------------------------------


def test_clients_hold_their_tasks_and_requests_are_checked() -> None:
    found = task(Scenario.of(config()))
    assert found.tasks == {"left": 10, "right": 10, "parity": 2}
    held = [(found.task_labels(k)[0] >= 0).any(axis=0).tolist() for k in found.clients]
    assert held[:3] == [[True, True, False], [False, True, True], [True, False, True]] or held[
        :3
    ] == [[True, True, False], [False, True, True], [True, False, True]]
    assert found.facts().tasks == ("left", "right", "parity")
    for request, reason in (
        (Request(Scope.TASK, tasks=("middle",)), "unknown task"),
        (Request(Scope.CLASS, classes=(1,)), "a label means another thing"),
        (Request(Scope.SAMPLE, clients=(1,), classes=(1,)), "ask for a task"),
        (Request(Scope.TASK, clients=(0,), tasks=("parity",)), "client 0 holds no example"),
        (Request(Scope.TASK, clients=(1, 2), tasks=("parity",)), "nobody else holds"),
        (Request(Scope.TASK, tasks=("left", "right", "parity")), "no example to train on"),
    ):
        with pytest.raises(RequestError, match=reason):
            found.check(request)
    found.check(PARITY)


def test_judge_counts_labels(tmp_path: Path) -> None:
    world = World(tmp_path)
    outputs = judge_of(world.task, [PARITY]).outputs(world.learned)
    labels = {k: world.task.task_labels(k) for k in world.task.clients}
    parity = sum(int((train[:, 2] >= 0).sum()) for train, _ in labels.values())
    everything = sum(int((train >= 0).sum()) for train, _ in labels.values())
    assert len(outputs.forget) == parity
    assert len(outputs.retain) == everything - parity
    assert len(outputs.held_out) == sum(int((h[:, 2] >= 0).sum()) for _, h in labels.values())
    assert len(outputs.test) == 2 * len(world.task.test_set().y)
    np.testing.assert_allclose(outputs.test.probabilities.sum(axis=1), 1, atol=1e-5)
    each = task_accuracy(world.task, world.learned)
    hits = outputs.test.probabilities.argmax(axis=1) == outputs.test.labels
    assert hits.mean() == pytest.approx((each["left"] + each["right"]) / 2)


def test_model_without_tasks_learns_the_first(tmp_path: Path) -> None:
    plain = config(model={"name": "mlp"}, data={"name": "digit-pairs", "clients": 3})
    found = task(Scenario.of(plain))
    assert not found.tasks
    assert found.num_classes == 10
    with pytest.raises(ConfigError, match="tasks_per_client = 2"):
        task(Scenario.of(config(model={"name": "mlp"})))


@pytest.mark.parametrize("isolated", ["", "parity", "all"])
def test_attributions_of_all_clients_add_up_to_the_movement_of_the_trunk(
    tmp_path: Path, isolated: str
) -> None:
    """Some clients hold isolated tasks alone: the trunk's mean is then taken without them."""
    chosen = config(
        rounds=4,
        model={"name": "multi-task", "hidden": 16, "width": 8, "isolated": isolated},
        data={"name": "digit-pairs", "clients": 6, "limit": 240, "tasks_per_client": 1},
        train={"batch_size": 16, "learning_rate": 0.1, "momentum": 0.5, "fraction": 0.6},
    )
    world = World(tmp_path, chosen)
    history = world.federation.history
    last = {k: t for t in history.rounds for k in history.participants(t)}
    moved = {name: np.zeros(a.shape) for name, a in trunk(world.initial).items()}
    for client, t in last.items():
        share = history.weights(t, part="").get(client, 0.0)
        for name in TASKS_OF_PAIRS:
            found = ClientMemory(tmp_path, client).recall(f"attribution-{name}")
            for key, array in found[0].items() if found else ():
                kind, _, weight = key.partition("/")
                fresh = kind == "last" and found is not None and found[1]["round"] == t
                moved[weight] += array * (1 if kind == "done" else share * fresh)
    for name, total in moved.items():
        want = world.learned[name].astype(float) - world.initial[name]
        np.testing.assert_allclose(total, want, rtol=1e-5, atol=1e-6)
    for t in history.rounds:
        shares = history.weights(t, part="")
        assert not shares or sum(shares.values()) == pytest.approx(1)

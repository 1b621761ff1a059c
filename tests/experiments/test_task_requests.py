"""What a request for a task takes out, and what it leaves in: shown on clients without the labels.

The oracle is a federation whose clients never had what is to be forgotten.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.federation.task_judge import judge_of
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.registry import make
from tests.support.taskworld import PARITY, World, clients_without, config
from unlearning import arrays as named
from unlearning.models.heads import task_of
from unlearning.request import Forgotten, Request, Scope

# Clients 1 and 2 of four hold parity, the last of the three tasks.
PARTIAL = Request(Scope.TASK, clients=(1,), tasks=("parity",))
COLUMN, HOLDERS = 2, (1, 2)
OWNERS = {"partial": (1,), "full": HOLDERS}
REQUESTS = {"partial": PARTIAL, "full": PARITY}
ALIASES = (
    "fine-tune",
    "head-drop",
    "task-subtraction",
    "task-osd",
    "task-negation",
    "task-restart",
)


@pytest.mark.parametrize("kind", ["partial", "full"])
def test_retraining_is_learning_of_those_who_never_had_the_labels(
    tmp_path: Path, kind: str
) -> None:
    world = World(tmp_path / "all")
    never = World(tmp_path / "never", app=clients_without(COLUMN, OWNERS[kind]))
    retrained = world.unlearn(Retrain(from_scratch=True), REQUESTS[kind])
    assert named.digest(retrained) == named.digest(never.learned)
    assert named.digest(retrained) != named.digest(world.learned)


def test_retraining_after_a_partial_request_keeps_the_others_examples_of_the_task(
    tmp_path: Path,
) -> None:
    """The head of the task is learned on, by client 2, and the trunk with it."""
    world = World(tmp_path / "all")
    nobody = World(tmp_path / "nobody", app=clients_without(COLUMN, HOLDERS))
    retrained = world.unlearn(Retrain(from_scratch=True), PARTIAL)
    for name in ("heads.parity.weight", "trunk.1.weight"):
        assert np.abs(retrained[name] - nobody.learned[name]).max() > 1e-4, name


@pytest.mark.parametrize("kind", ["partial", "full"])
@pytest.mark.parametrize("alias", ALIASES)
def test_recovery_learns_from_exactly_what_is_left(tmp_path: Path, alias: str, kind: str) -> None:
    """After any strategy, a round is that of clients who never had what is forgotten."""
    world = World(tmp_path / "all")
    never = World(tmp_path / "never", app=clients_without(COLUMN, OWNERS[kind]))
    options = {"task-osd": {"unlearning_rounds": 2, "project": False}}.get(alias, {})
    strategy = make(alias, options)
    if (alias, kind) == ("head-drop", "partial"):
        pytest.skip("a partial request leaves it nothing to do")
    after = world.unlearn(strategy, REQUESTS[kind])
    world.federation.forgotten = Forgotten((REQUESTS[kind],))
    world.federation.ledger.receive(REQUESTS[kind])
    for event in ("started", "fulfilled"):
        world.federation.ledger.add(REQUESTS[kind].id, event)
    recovered = world.run(strategy, after, 1)
    expected = never.run(UnlearningStrategy(), after, 1)
    assert named.digest(recovered) == named.digest(expected)


def test_partial_descent_spares_the_same_task_of_the_others(tmp_path: Path) -> None:
    """The others' gradient of the task is one of the rows that the direction must not oppose."""
    world = World(tmp_path)
    strategy = make("task-osd", {"unlearning_rounds": 1, "unlearning_rate": 0.1})
    seen: dict[str, set[str]] = {}
    combine = strategy.combine

    def watched(server_round: int, arrays: dict, replies: object) -> dict:  # type: ignore[type-arg]
        answers = list(replies)  # type: ignore[call-overload]
        for reply in answers:
            parts = {"/".join(name.split("/")[:2]) for name in reply.arrays}
            seen[reply.client] = parts
        return combine(server_round, arrays, answers)

    strategy.combine = watched  # type: ignore[method-assign]
    world.unlearn(strategy, PARTIAL)
    assert seen[1] == {"retain/right", "forget/parity"}
    assert seen[2] == {"retain/left", "retain/parity"}


def test_judge_of_a_partial_request_counts_the_owners_labels_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    outputs = judge_of(world.task, [PARTIAL]).outputs(world.learned)
    labels = {k: world.task.task_labels(k) for k in world.task.clients}
    everything = sum(int((train >= 0).sum()) for train, _ in labels.values())
    owned = int((labels[1][0][:, COLUMN] >= 0).sum())
    assert len(outputs.forget) == owned
    assert len(outputs.retain) == everything - owned
    assert len(outputs.held_out) == int((labels[1][1][:, COLUMN] >= 0).sum())
    assert len(outputs.test) == 3 * len(world.task.test_set().y)


# Isolated adapters on real data -----------------------------------------------------------------


@pytest.mark.parametrize("isolated", ["parity", "parity,left", "all"])
def test_deletion_changes_no_bit_of_what_the_other_tasks_answer(
    tmp_path: Path, isolated: str
) -> None:
    model = {"name": "multi-task", "hidden": 16, "width": 8, "isolated": isolated}
    world = World(tmp_path, config(model=model))
    deleted = world.unlearn(make("isolated-adapters", {}))
    retrained = world.unlearn(Retrain(from_scratch=True))
    x = world.task.test_set().x
    before, after, again = (world.task.predict(a, x) for a in (world.learned, deleted, retrained))
    np.testing.assert_array_equal(after[:, :20], before[:, :20])
    np.testing.assert_array_equal(after, again)
    assert (after[:, 20:] != before[:, 20:]).any()


def test_two_isolated_tasks_go_one_after_the_other(tmp_path: Path) -> None:
    """And recovery afterwards is, bit for bit, that of the retrained federation."""
    model = {"name": "multi-task", "hidden": 16, "width": 8, "isolated": "parity,left"}
    learned = {}
    for alias, options in (("isolated-adapters", {}), ("retrain", {"from_scratch": True})):
        world = World(tmp_path / alias, config(model=model))
        for name in ("parity", "left"):
            world.federation.ledger.receive(Request(Scope.TASK, tasks=(name,), id=name))
        learned[alias] = world.run(make(alias, options), world.learned, 0)
        states = [world.federation.ledger.state(name) for name in ("parity", "left")]
        assert states == ["fulfilled"] * 2
        for name, array in learned[alias].items():
            if task_of(name) in ("parity", "left"):
                np.testing.assert_array_equal(array, world.initial[name])
    assert named.digest(learned["isolated-adapters"]) == named.digest(learned["retrain"])

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from clients.together import Together
from experiments.config.loading import Config, load
from experiments.federation.grids import LocalGrid, StackedGrid
from experiments.federation.launch import compare
from experiments.federation.participants import chosen_grid
from experiments.federation.task import Scenario, task
from experiments.runs.results import read_results
from strategies.roster import Roster
from tests.support.toy import ToyFederation, ToyGrid
from tests.support.undrawn import undrawn
from unlearning import arrays as named

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "experiments" / "configs"
PUBLIC = {"app", "client", "clientapp", "serverapp", "serverapp.strategy", "simulation"}


def app() -> ClientApp:
    """Return an app that says where it runs, counts its calls, and breaks when asked to train."""
    made = ClientApp()

    @made.query()
    def query(message: Message, context: Context) -> Message:
        context.state["calls"] = ConfigRecord({"n": calls(context) + 1})
        facts = {"n": calls(context), **context.node_config}
        return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        raise OSError("no disk")

    return made


def calls(context: Context) -> int:
    record = context.state.get("calls", ConfigRecord({"n": 0}))
    return int(str(record["n"]))  # type: ignore[call-overload,index]


def facts(reply: Message) -> dict[str, object]:
    return dict(reply.content["facts"])


def ask(node: int, kind: str = "query") -> Message:
    return Message(RecordDict(), node, kind)


def test_it_is_a_flower_grid_with_a_partition_per_node() -> None:
    grid = LocalGrid(app(), 3)
    assert isinstance(grid, Grid)
    nodes = list(grid.get_node_ids())
    assert len(set(nodes)) == 3
    replies = list(grid.send_and_receive(map(ask, nodes), timeout=1))
    assert [facts(r)["partition-id"] for r in replies] == [0, 1, 2]
    assert {facts(r)["num-partitions"] for r in replies} == {3}
    assert [r.metadata.src_node_id for r in replies] == nodes


def test_nodes_keep_their_own_state() -> None:
    grid = LocalGrid(app(), 2)
    one, two = grid.get_node_ids()
    replies = list(grid.send_and_receive(map(ask, [one, one, two])))
    assert [facts(r)["n"] for r in replies] == [1, 2, 1]


def test_an_error_becomes_an_error_reply() -> None:
    grid = LocalGrid(app(), 1)
    (node,) = grid.get_node_ids()
    message = ask(node, "train")
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error()
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert "OSError: no disk" in str(reply.error.reason)


def test_an_interrupt_is_no_reply() -> None:
    made = ClientApp()

    @made.query()
    def query(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalGrid(made, 1).send_and_receive([ask(1000)])


def test_a_message_is_answered_when_its_reply_is_asked_for() -> None:
    # Of many answers that are large models no more than one waits to be read.
    grid = LocalGrid(app(), 3)
    ids = list(grid.push_messages(map(ask, grid.get_node_ids())))
    for expected in ids:  # in the order they were sent in, however they are asked for
        (reply,) = grid.pull_messages(reversed(ids))
        assert reply.metadata.reply_to_message_id == expected


def test_replies_are_handed_out_once_and_by_id() -> None:
    grid = LocalGrid(app(), 2)
    ids = list(grid.push_messages(map(ask, grid.get_node_ids())))
    assert len(set(ids)) == 2
    (reply,) = grid.pull_messages(ids[1:])
    assert reply.metadata.reply_to_message_id == ids[1]
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages(ids)] == ids[:1]
    assert list(grid.pull_messages([*ids, "unknown"])) == []


def test_create_message_and_run() -> None:
    grid = LocalGrid(app(), 1)
    grid.set_run(grid.run)
    message = grid.create_message(RecordDict(), "query", 1000, "7", ttl=5.0)
    assert message.metadata.dst_node_id == 1000
    assert (message.metadata.group_id, message.metadata.ttl) == ("7", 5.0)


def test_two_federations_of_one_process_do_not_meet(tmp_path: Path) -> None:
    """The audit runs hundreds side by side; each is as if it were alone."""
    alone = named.digest(ToyFederation(tmp_path / "a", seed=1).learn(2))
    one, two = ToyFederation(tmp_path / "b", seed=1), ToyFederation(tmp_path / "c", seed=2)
    assert named.digest(two.learn(2)) != alone
    assert named.digest(one.learn(2)) == alone


def test_the_model_is_the_same_whatever_the_grid_and_the_window(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)
    digests = set()
    for window in (1, 2, 99):
        twin = toy.branch(tmp_path / str(window), grid=ToyGrid(toy.app, 4))
        roster = twin.federation.roster
        twin.federation.roster = Roster(twin.grid, roster.nodes, roster.declared, window=window)
        digests.add(named.digest(twin.learn(2)))
    assert len(digests) == 1


# Private corners of Flower --------------------------------------------------------------------


def private_imports(source: str) -> list[str]:
    """Return the modules of Flower that a file imports at run time and that are not public."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    known = {f"flwr.{name}" for name in PUBLIC}
    return [name for name in modules if name.startswith("flwr.") and name not in known]


def test_private_imports_are_told_apart() -> None:
    source = """
import flwr.app, numpy
from flwr.serverapp.strategy import FedAvg
import flwr.supercore
if TYPE_CHECKING:
    from flwr.supercore.run import Run
def late():
    from flwr.server.grid import InMemoryGrid
"""
    assert private_imports(source) == ["flwr.supercore", "flwr.server.grid"]


def test_private_corners_of_flower_are_touched_in_few_files() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("strategies", "clients", "unlearning", "experiments")
        for path in (ROOT / package).rglob("*.py")
        if "flwr" in (source := path.read_text()) and private_imports(source)
    }
    assert found == {
        "experiments/deployment/warm.py",  # tied to the versions it names
        "experiments/federation/grids.py",
        "experiments/federation/simulation.py",  # its engine, whose public shell is deprecated
    }


class _Spied(Together):
    """Notes how many messages came at a time."""

    def answers(self, pairs):  # type: ignore[no-untyped-def]
        self.reasons[f"{len(pairs)} at a time"] += 1
        return super().answers(pairs)


def digits(*changes: str) -> Config:
    return load(
        CONFIGS / "digits_client.toml",
        ["rounds=3", "recovery_rounds=1", "data.clients=6", "data.limit=200", *changes],
    )


@pytest.mark.parametrize(
    "changes", [(), ("data.partitioner=dirichlet", "data.alpha=0.5"), ("train.momentum=0.5",)]
)
def test_stacked_clients_come_to_the_same_models(
    tmp_path: Path, changes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    undrawn(monkeypatch.setattr)
    found = {}
    for grid in ("local", "stacked" if changes else "auto"):
        out = compare(
            digits(f"engine.grid={grid}", *changes),
            tmp_path / grid,
            strategies=["gradient-ascent", "fed-recover"],
            observer=lambda _: None,
        )
        rows = read_results(out)[1]
        found[grid] = {row.strategy: row.model_digest for row in rows}
        told = json.loads((out / "engine.json").read_text())
        if grid == "local":
            assert told == {"grid": "local"}
            continue
        assert told["grid"] == "stacked"
        assert told["stacked"] > 2 * told["alone"]
    first, second = found.values()
    assert first == second
    assert len(first) == 5


def test_what_cannot_be_stacked_is_answered_alone() -> None:
    grid = StackedGrid(app(), 3, _Spied(lambda context, config: None))  # type: ignore[arg-type,return-value]
    replies = list(grid.send_and_receive([ask(n) for n in grid.get_node_ids()]))
    assert [facts(r)["partition-id"] for r in replies] == [0, 1, 2]
    assert grid.together.reasons == {"3 at a time": 1}
    (broken,) = grid.send_and_receive([ask(1001, "train")])
    assert "no disk" in broken.error.reason


def test_a_convolutional_network_goes_to_ray_where_auto_is_asked() -> None:
    config = digits("engine.grid=auto", "model.name=cnn")
    assert chosen_grid(config, task(Scenario.of(config))) == "ray"

"""Nodes are known by their keys, and wishes ride on replies."""

import html
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from clients.app import make_client_app
from experiments.deployment import keys, wishes
from experiments.deployment.desk import bind, close_memberships, receiver
from experiments.deployment.keyed import RESIDUAL, KeyedGrid
from experiments.deployment.kit import Kit
from experiments.deployment.post import carry
from experiments.deployment.server import Server
from experiments.deployment.shares import remote, write_shares
from experiments.federation.course import Course
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import of_node
from experiments.reporting.receipts import draw
from experiments.runs.folder import RunFolder
from experiments.runs.risks import residual_risks
from tests.experiments.deployment.test_shares import settings
from unlearning.errors import FedUnlearnError, RequestError
from unlearning.records import receipt

APP = make_client_app(of_node, mods=(carry,))


def hurry(monkeypatch):
    """Wait for nobody who answers in this process, as one would for a SuperLink and its sites."""
    monkeypatch.setattr("experiments.deployment.keyed._PULL_S", 0.0)
    monkeypatch.setattr("strategies.joining._PAUSE_S", 0.01)


@dataclass
class Node:
    node_id: int
    public_key: bytes


class KeyGrid(LocalGrid):
    """An in-process grid that says what key each node has, as a SuperLink does."""

    def get_nodes(self):
        return [Node(node, self.keys[i].encode()) for i, node in enumerate(self.contexts)]


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    """Return a federation of three sites in this process: server, kits, grid, config."""
    return deploy(tmp_path, monkeypatch)


def deploy(tmp_path, monkeypatch, **changes):
    """Return such a federation; ``changes`` of its config."""
    hurry(monkeypatch)
    config = settings(strategy="retrain", requests=[], **changes)
    files = write_shares(config, tmp_path / "files")
    server = Server.init(tmp_path / "fed", "127.0.0.1:9092")
    kits = []
    for client, file in enumerate(files):
        kit, public = Kit.init(tmp_path / f"site-{client}", f"site-{client}")
        _, invitation = server.add(public)
        kits.append(kit.accept(invitation).hold(str(file)))
    grid = KeyGrid(APP, 3)
    grid.keys = [member.key for member in server.members]
    for context, kit in zip(grid.contexts.values(), kits, strict=True):
        context.node_config |= {"data": kit.settings["data"], "home": str(kit.home)}
    return server, kits, grid, remote(config, tmp_path / "files")


def conduct(server, grid, config, out):
    course = Course.of_run(config, lambda tick: None)
    course.check()
    with course.begin(out) as books:
        bind(books.folder, server)
        keyed = KeyedGrid(grid, lambda: server.members, receiver(server, books.folder))
        course.conduct(keyed, books, lambda: False)
        states = {r.id: books.ledger.state(r.id) for r in books.ledger.requests()}
        close_memberships(server, books.ledger)
    return states


def test_a_wish_rides_on_a_reply_and_its_verdict_comes_back(deployed, tmp_path):
    server, kits, grid, config = deployed
    _, wish = kits[1].ask((1, 2), None, None)
    states = conduct(server, grid, config, tmp_path / "run")
    assert list(states.values()) == ["fulfilled"]
    (verdict,) = kits[1].letters("verdicts")
    assert verdict["taken"]
    assert verdict["nonce"] == wish["body"]["nonce"]
    assert kits[1].letters("outbox") == []
    assert kits[1].tombstones["samples"] == [1, 2]


def test_a_site_withdraws_a_column_by_the_name_it_has_in_its_own_table(tmp_path, monkeypatch):
    server, kits, grid, config = deploy(
        tmp_path, monkeypatch, data={"name": "breast-cancer", "clients": 3, "limit": 200}
    )
    columns = config.data.columns
    assert columns[3] == "mean area"
    with pytest.raises(
        RequestError, match=r"unknown feature 'mean aria'.*did you mean 'mean area'"
    ):
        kits[1].ask(None, None, None, features=("mean aria",))
    with pytest.raises(RequestError, match="unknown feature 30"):
        kits[1].ask(None, None, None, features=("30",))
    kits[1].ask(None, None, None, features=("mean area",))
    states = conduct(server, grid, config, tmp_path / "run")
    assert list(states.values()) == ["fulfilled"]
    assert kits[1].tombstones["features"] == [3]
    folder = RunFolder.open(tmp_path / "run")
    assert folder.read_federation().columns == columns
    with folder.open_ledger(readonly=True) as ledger:
        (request,) = ledger.requests()
    assert request.describe() == "feature mean area at client 1"


def test_a_receipt_names_the_superlinks_log_as_a_place_where_bytes_can_lie(deployed, tmp_path):
    server, kits, grid, config = deployed
    kits[1].ask((1, 2), None, None)
    conduct(server, grid, config, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    with folder.open_ledger(readonly=True) as ledger:
        (request,) = ledger.requests()
        raw = receipt.make(ledger, request.id, ledger.seal, datetime.now(UTC))
        assert all(check.holds for check in receipt.check(raw, ledger.seal.public))
        (fulfilled,) = [e for e in ledger.events(request.id) if e.event == "fulfilled"]
    assert json.loads(raw)["statement"]["residuals"] == [RESIDUAL]
    assert RESIDUAL in residual_risks(fulfilled.facts)
    assert RESIDUAL.split(";")[0] in html.unescape(draw(raw).decode())


def test_a_wish_for_others_is_refused_where_it_arrives(deployed, tmp_path):
    server, kits, grid, config = deployed
    foreign = wishes.compose(server.id, 2, kits[2].folder / "site.key", (1, 2))
    path = kits[0].home / "outbox" / f"{foreign['body']['nonce']}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(foreign))
    assert conduct(server, grid, config, tmp_path / "run") == {}
    (verdict,) = kits[0].letters("verdicts")
    assert "a site asks for its own alone" in verdict["why"]


def test_who_left_is_not_let_in_again_under_its_key(deployed, tmp_path):
    server, kits, grid, config = deployed
    kits[1].ask(None, None, None)
    conduct(server, grid, config, tmp_path / "run")
    assert [member.state for member in server.members] == ["member", "left", "member"]
    assert kits[1].tombstones["everything"]
    keyed = KeyedGrid(grid, lambda: server.members, lambda wish, client: None)
    assert len(list(keyed.get_node_ids())) == 2


def test_swapped_settings_are_found(deployed, tmp_path, caplog):
    server, _, grid, config = deployed
    first, second, _ = grid.contexts.values()
    first.node_config["partition-id"], second.node_config["partition-id"] = 1, 0
    whole = {**config.to_dict(), "engine": {"grid": "local", "min_replies": 1.0}}
    with pytest.raises(FedUnlearnError, match="its key is that of client"):
        conduct(server, grid, type(config).model_validate(whole), tmp_path / "run")


def test_a_key_that_nobody_knows_is_no_node(deployed, tmp_path):
    server, _, grid, _ = deployed
    stranger = keys.make_site_key(tmp_path / "key", "stranger")
    grid.keys[0] = keys.read_public(stranger)
    keyed = KeyedGrid(grid, lambda: server.members, lambda wish, client: None)
    first, *_ = grid.contexts
    assert keyed.identify(first) is None
    assert first not in list(keyed.get_node_ids())


def test_rows_of_the_file_become_positions(deployed, tmp_path):
    server, kits, grid, config = deployed
    with pytest.raises(FedUnlearnError, match="never taken part"):
        kits[0].ask(None, (0,), None)
    conduct(server, grid, config, tmp_path / "run")
    known = kits[0].pin
    rows, held_out = [], []
    for row in range(known.rows):
        try:
            rows += kits[0].ask(None, (row,), tmp_path / "w.json")[1]["body"]["samples"]
        except FedUnlearnError:
            held_out.append(row)
    assert rows == list(range(known.rows - len(held_out)))
    assert held_out


def test_records_are_looked_up_at_the_site(deployed, tmp_path):
    server, kits, grid, config = deployed
    kit, path = kits[0], kits[0].settings["data"]
    with pytest.raises(FedUnlearnError, match="has no ids"):
        kit.ask(None, None, None, ["r1"])
    found = dict(np.load(path))
    np.savez(path, **found, id=[f"r{row}" for row in range(len(found["y"]))])
    conduct(server, grid, config, tmp_path / "run")
    row = next(i for i in range(len(found["y"])) if _may(kit, [i], tmp_path))
    by_row = kit.ask(None, [row], tmp_path / "a.json")[1]["body"]
    by_id = kit.ask(None, None, tmp_path / "b.json", [f"r{row}"])[1]["body"]
    assert by_id["samples"] == by_row["samples"]
    assert f"r{row}" not in json.dumps(by_id)  # the server is told positions alone
    held_out = next(i for i in range(len(found["y"])) if not _may(kit, [i], tmp_path))
    for record, said in (("zoe", "unknown record 'zoe'"), (f"r{held_out}", "is held out")):
        with pytest.raises(FedUnlearnError, match=said):
            kit.ask(None, None, tmp_path / "c.json", [record])


def _may(kit, rows, folder):
    try:
        return bool(kit.ask(None, rows, folder / "probe.json"))
    except FedUnlearnError:
        return False


def test_a_new_epoch_takes_new_data_and_a_leaver_has_none(deployed, tmp_path):
    server, kits, grid, config = deployed
    kits[1].ask(None, None, None)
    conduct(server, grid, config, tmp_path / "run")
    other = kits[2].settings["data"]
    with pytest.raises(FedUnlearnError, match="not what this site joined with"):
        kits[0].hold(other)
    _, epoch = kits[0].replace_data(other)
    assert epoch == 2
    assert kits[0].pin is None
    with pytest.raises(FedUnlearnError, match="its key is used up"):
        kits[1].replace_data(other)


def test_who_is_away_when_a_run_begins_is_named_and_left_out(deployed, tmp_path, caplog):
    server, _, grid, config = deployed
    there = grid.get_nodes()[:2]
    grid.get_nodes = lambda: there
    engine = {"grid": "local", "min_replies": 0.5, "timeout_s": 3.0}
    whole = type(config).model_validate({**config.to_dict(), "engine": engine})
    conduct(server, grid, whole, tmp_path / "run")
    assert "left out of this run: client 2" in caplog.text
    for least, told in ((3, "2 of 3 clients answered .* 3 are needed"), (4, "has 3 clients")):
        strict = {**config.to_dict(), "engine": {**engine, "min_clients": least}}
        with pytest.raises(FedUnlearnError, match=told):
            conduct(server, grid, type(config).model_validate(strict), tmp_path / f"run{least}")

"""Classes and others' data are forgotten at an operator's signed word alone."""

import errno
import json
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest

from experiments.deployment import keys, wishes
from experiments.deployment.desk import bind, enter_signed
from experiments.deployment.orders import compose, parse
from experiments.deployment.server import Server
from experiments.runs.admission import admit
from experiments.runs.admission import compose as request_of
from experiments.runs.folder import FederationFacts, RunFolder
from tests.experiments.deployment.test_keyed import conduct, deployed  # noqa: F401
from unlearning.columns import Columns
from unlearning.errors import ConfigError, RequestError
from unlearning.request import Scope


@pytest.fixture
def office(tmp_path):
    """Return a federation, the keys of two operators, of whom it knows the first."""
    server, private = Server.init(tmp_path / "fed", "127.0.0.1:9092"), {}
    for name in ("alice", "mallory"):
        (tmp_path / name).mkdir()
        public = keys.make_site_key(tmp_path / name / "operator.key", name)
        private[name] = tmp_path / name / "operator.key"
        if name == "alice":
            server.operators.add(name, public)
    return server, private


def logged(server):
    lines = (server.folder / "wishes" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["verdict"].partition(":")[0] for line in lines]


@pytest.mark.parametrize(
    ("what", "scope"),
    [
        ({"classes": [3]}, Scope.CLASS),
        ({"tasks": ["a"]}, Scope.TASK),
        ({"features": [5]}, Scope.FEATURE),
        ({"clients": [1]}, Scope.CLIENT),
        ({"clients": [1], "samples": [[4, 8]]}, Scope.SAMPLE),
    ],
)
def test_an_operator_asks_for_what_no_site_may(office, what, scope):
    server, private = office
    text = json.dumps(compose(server.id, "alice", private["alice"], **what))
    request = server.orders.take(parse(text))
    assert request.scope == scope
    assert request.asked_by == "alice (operator's key)"
    assert logged(server) == ["taken"]


def test_an_operator_names_features_as_the_federation_does(office):
    server, private = office
    order = compose(server.id, "alice", private["alice"], clients=[1], features=["sex", 0])
    columns = Columns((3,), ("age", "sex=f", "sex=m"))
    request = server.orders.take(parse(json.dumps(order)), columns=columns)
    assert (request.clients, request.features, request.called) == ((1,), (0, 1, 2), ("sex", "age"))


@pytest.mark.parametrize("word", ["mask.npy", "0,mask.npy", "mask.npy,0", "mask.npy , 0"])
def test_no_file_of_the_server_is_read_for_an_order(office, word):
    server, private = office
    with pytest.raises(RequestError, match="is a file of this machine"):
        compose(server.id, "alice", private["alice"], features=[word])
    order = compose(server.id, "alice", private["alice"], features=[1])
    what = {**order["body"]["what"], "features": [word]}
    with pytest.raises(RequestError, match="no operator's order"):
        parse(json.dumps(changed(order, what=what)))


def test_what_may_be_signed_is_read(office):
    server, private = office
    words = ["depth.npy.mean", "0:2x3:8", 4]
    order = compose(server.id, "alice", private["alice"], features=words)
    assert parse(json.dumps(order))["body"]["what"]["features"] == words


def changed(order, **changes):
    return {**order, "body": {**order["body"], **changes}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o, s, p: changed(o, what={**o["body"]["what"], "classes": [4]}), "not signed"),
        (lambda o, s, p: changed(o, operator="mallory"), "no operator"),
        (lambda o, s, p: changed(o, federation="other"), "is for federation 'other'"),
        (lambda o, s, p: {**o, "signature": "00"}, "not signed"),
        (lambda o, s, p: compose(s.id, "mallory", p["mallory"], classes=[3]), "no operator"),
        (lambda o, s, p: compose(s.id, "alice", p["mallory"], classes=[3]), "not signed"),
        (
            lambda o, s, p: compose(
                s.id, "alice", p["alice"], datetime.now(UTC) - timedelta(days=31), classes=[3]
            ),
            "days old",
        ),
    ],
)
def test_what_is_not_an_operators_own_word_is_refused_and_logged(office, spoil, said):
    server, private = office
    order = spoil(compose(server.id, "alice", private["alice"], classes=[3]), server, private)
    with pytest.raises(RequestError, match=said):
        server.orders.take(parse(json.dumps(order)))
    assert logged(server) == ["refused"]


def test_an_order_counts_once_and_a_removed_operators_not_at_all(office):
    server, private = office
    order = compose(server.id, "alice", private["alice"], classes=[3])
    server.orders.take(order)
    with pytest.raises(RequestError, match="it counts once"):
        server.orders.take(order)
    server.operators.remove("alice")
    with pytest.raises(RequestError, match="no operator"):
        server.orders.take(compose(server.id, "alice", private["alice"], classes=[3]))
    with pytest.raises(ConfigError, match="no operator is named"):
        server.operators.remove("bob")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"body": {"what": []}}', "[" * 100_000])
def test_what_is_no_order_is_refused_in_words(text):
    with pytest.raises(RequestError, match="no operator's order"):
        parse(text)


def test_an_order_names_something(office):
    server, private = office
    with pytest.raises(RequestError, match="nothing to forget is named"):
        compose(server.id, "alice", private["alice"])


def test_a_run_of_a_federation_takes_signed_requests_alone(deployed, tmp_path):  # noqa: F811
    server, _, grid, config = deployed
    public = keys.make_site_key(tmp_path / "operator.key", "alice")
    server.operators.add("alice", public)
    whole = {**config.to_dict(), "data": {**config.to_dict()["data"], "test": None}}
    conduct(server, grid, type(config).model_validate(whole), tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    bind(folder, server)
    with pytest.raises(RequestError, match="who asks must sign"):
        admit(folder, request_of(classes=(3,)))
    order = compose(server.id, "alice", tmp_path / "operator.key", classes=[3])
    (tmp_path / "order.json").write_text(json.dumps(order))
    request = enter_signed(folder, tmp_path / "order.json")
    with folder.open_ledger(readonly=True) as ledger:
        assert [one.id for one in ledger.waiting()] == [request.id]
        (event,) = ledger.events(request.id)
        assert event.facts["order"] == order


@pytest.fixture
def run(office, tmp_path):
    """Return a run of the federation, of which only the files are there."""
    server, _ = office
    folder = RunFolder.claim(tmp_path / "run", {"strategy": "retrain"})
    folder.write_federation(FederationFacts({0: 4, 1: 4}, classes=(0, 1)))
    bind(folder, server)
    return folder


@pytest.mark.parametrize("who", ["site", "operator"])
def test_what_could_not_be_entered_may_be_brought_again(office, run, tmp_path, monkeypatch, who):
    server, private = office
    if who == "operator":
        signed = compose(server.id, "alice", private["alice"], classes=[1])
    else:
        public = keys.make_site_key(tmp_path / "site.key", "clinic")
        server.members.add("clinic", keys.read_public(public))
        signed = wishes.compose(server.id, 0, tmp_path / "site.key", [2])
    (tmp_path / "signed.json").write_text(json.dumps(signed))
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.deployment.desk.admit", Mock(side_effect=full))
        with pytest.raises(OSError, match="No space"):
            enter_signed(run, tmp_path / "signed.json")
    request = enter_signed(run, tmp_path / "signed.json")
    with run.open_ledger(readonly=True) as ledger:
        assert [one.id for one in ledger.requests()] == [request.id]
    with pytest.raises(RequestError, match="it counts once"):
        enter_signed(run, tmp_path / "signed.json")


def test_what_the_run_refuses_is_logged_as_refused(office, run, tmp_path):
    server, private = office
    order = compose(server.id, "alice", private["alice"], classes=[7])
    (tmp_path / "order.json").write_text(json.dumps(order))
    with pytest.raises(RequestError, match="unknown class 7"):
        enter_signed(run, tmp_path / "order.json")
    assert logged(server) == ["taken", "refused"]
    with run.open_ledger(readonly=True) as ledger:
        assert ledger.requests() == []

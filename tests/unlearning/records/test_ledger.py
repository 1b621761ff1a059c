"""Ledger: a request is served once, nothing is lost, and every tampering shows."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.tampered import change
from unlearning.errors import LedgerError
from unlearning.records.book import Row
from unlearning.records.ledger import ANSWER, BATCH, EVENTS, GENESIS, Ledger
from unlearning.records.receipt import make
from unlearning.records.seal import Seal
from unlearning.request import Request, Scope


def request(name: str, client: int = 1, at_round: int | None = None) -> Request:
    return Request(Scope.CLIENT, clients=(client,), at_round=at_round, id=name)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


# --- the life of a request -----------------------------------------------------------------------


def test_a_request_is_received_once_and_comes_back_whole(ledger: Ledger) -> None:
    asked = Request(Scope.SAMPLE, samples={3: (4, 8), 1: (0,)}, at_round=7, asked_by="ada", id="a")
    assert ledger.receive(asked)
    assert not ledger.receive(asked)
    assert not ledger.receive(request("a", client=9))
    assert ledger.requests() == [asked]
    assert [event.event for event in ledger.events()] == ["received"]
    assert ledger.path is not None
    ledger.close()
    with Ledger(ledger.path) as again:
        assert again.requests() == [asked]
        assert not again.receive(asked)


def test_the_way_to_fulfilment(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.receive(request("b", client=2))
    assert ledger.state("a") == "received"
    assert ledger.forgotten().clients == frozenset()
    started = ledger.add("a", "started", strategy="fed-eraser", options={"interval": 2})
    assert (started.seq, started.request_id, started.branch) == (3, "a", "")
    assert started.facts == {"strategy": "fed-eraser", "options": {"interval": 2}}
    assert ledger.forgotten().clients == {1}
    assert [r.id for r in ledger.waiting()] == ["a", "b"]
    ledger.add("a", "failed", reason="a deadline passed")
    assert ledger.state("a") == "failed"
    assert ledger.forgotten().clients == {1}
    assert [r.id for r in ledger.due(0)] == ["a", "b"]
    ledger.add("a", "started")
    ledger.add("a", "fulfilled", metrics={"mia_auc": 0.5, "backdoor_success": None})
    assert ledger.state("a") == "fulfilled"
    assert [r.id for r in ledger.waiting()] == ["b"]
    assert [e.event for e in ledger.events("a")] == [
        "received", "started", "failed", "started", "fulfilled",
    ]  # fmt: skip
    assert ledger.events()[-1] == ledger.events("a")[-1]


def test_refused_is_not_forgotten_and_not_due(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.add("a", "refused", reason="scope")
    assert ledger.state("a") == "refused"
    assert ledger.waiting() == ledger.due(99) == []
    assert ledger.forgotten().requests == ()


def test_due_waits_for_the_round(ledger: Ledger) -> None:
    for asked in (request("late", 1, at_round=5), request("now", 2), request("early", 3, 2)):
        ledger.receive(asked)
    assert [r.id for r in ledger.due(1)] == ["now"]
    assert [r.id for r in ledger.due(2)] == ["now", "early"]
    assert [r.id for r in ledger.due(5)] == ["late", "now", "early"]
    assert [r.id for r in ledger.waiting()] == ["late", "now", "early"]


@pytest.mark.parametrize("final", ["fulfilled", "refused"])
@pytest.mark.parametrize("event", EVENTS[1:])
def test_nothing_follows_the_end(ledger: Ledger, final: str, event: str) -> None:
    ledger.receive(request("a"))
    ledger.add("a", "started")
    ledger.add("a", final)
    with pytest.raises(LedgerError, match=f"request a was already {final}; '{event}' cannot"):
        ledger.add("a", event)
    assert len(ledger.events()) == 3


def test_fulfilled_needs_started(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.on_branch("x").add("a", "started")
    with pytest.raises(LedgerError, match="cannot be fulfilled: never started"):
        ledger.add("a", "fulfilled")


def test_branches_serve_one_request_each_for_itself(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    one, two = ledger.on_branch("fed-eraser/seed-0"), ledger.on_branch("retrain/seed-0")
    one.add("a", "started")
    one.add("a", "fulfilled")
    two.add("a", "refused")
    assert one.branch == "fed-eraser/seed-0"
    assert [view.state("a") for view in (one, two, ledger)] == ["fulfilled", "refused", "received"]
    assert [view.waiting() for view in (one, two)] == [[], []]
    assert ledger.due(0) == [request("a")]
    assert one.forgotten().clients == {1}
    assert two.forgotten().clients == ledger.forgotten().clients == frozenset()
    assert one.events() == two.events() == ledger.events()
    assert one.receive(request("b"))
    assert ledger.events("b")[0].branch == ""
    assert two.waiting() == [request("b")]
    assert one.head == ledger.head


def test_memory_and_its_branches_are_one_ledger() -> None:
    with Ledger(branch="x") as ledger:
        assert (ledger.path, ledger.branch) == (None, "x")
        ledger.receive(request("a"))
        assert ledger.on_branch("y").state("a") == "received"
        ledger.verify()


# --- wrong use -----------------------------------------------------------------------------------


def test_unknown_event_or_request(ledger: Ledger) -> None:
    ledger.receive(request("abc"))
    for event in ("begun", "received"):
        with pytest.raises(LedgerError, match=f"unknown ledger event '{event}'"):
            ledger.add("abc", event)
    with pytest.raises(LedgerError, match=r"unknown request 'abd'; did you mean 'abc'"):
        ledger.add("abd", "started")
    with pytest.raises(LedgerError, match="unknown request 'abd'"):
        ledger.state("abd")
    assert ledger.events("abd") == []
    assert len(ledger.events()) == 1


@pytest.mark.parametrize("fact", [float("nan"), np.zeros(2), {1, 2}, b"bytes", object()])
def test_facts_are_plain_values(ledger: Ledger, fact: object) -> None:
    ledger.receive(request("a"))
    with pytest.raises(LedgerError, match="plain, finite JSON values"):
        ledger.add("a", "started", fact=fact)
    assert len(ledger.events()) == 1


def test_numbers_of_numpy_are_plain_values(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    event = ledger.add("a", "started", auc=np.float64(0.5), n=np.int64(3), words="größer")
    assert event.facts == {"auc": 0.5, "n": 3, "words": "größer"}
    ledger.verify()


def test_files_that_are_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot open .*absent"):
        Ledger(tmp_path / "absent" / "ledger.sqlite")
    (tmp_path / "noise").write_bytes(b"long enough to be looked at as if it were a database")
    with pytest.raises(LedgerError, match=r"noise cannot be read as a ledger"):
        Ledger(tmp_path / "noise")
    change(tmp_path / "other", "CREATE TABLE mine (x)")
    with pytest.raises(LedgerError, match=r"other is another program's database"):
        Ledger(tmp_path / "other")
    Ledger(tmp_path / "old").close()
    change(tmp_path / "old", "PRAGMA user_version=7")
    with pytest.raises(LedgerError, match=r"old has format 7"):
        Ledger(tmp_path / "old")


def test_a_ledger_that_is_about_to_be_made_is_not_called_one_of_another_version(
    tmp_path: Path,
) -> None:
    """A run begins with an empty file; who asks for its status in that moment is to ask again."""
    (tmp_path / "new").touch()
    with pytest.raises(LedgerError, match="new is empty: a run is about to begin it"):
        Ledger(tmp_path / "new", readonly=True)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE things (name TEXT)")
    other.close()
    with pytest.raises(LedgerError, match="other has format 0"):
        Ledger(tmp_path / "other", readonly=True)


def test_a_locked_ledger_is_said_in_words(tmp_path: Path, ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger._book.db.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match=r"cannot write .*ledger.sqlite: database is locked"):
        ledger.add("a", "started")
    other.close()
    ledger.add("a", "started")
    ledger.verify()


def test_what_is_written_together_is_there_whole_or_not_at_all(ledger: Ledger) -> None:
    assert ledger.path is not None
    with Ledger(ledger.path, readonly=True) as other:
        with ledger.together():
            ledger.receive(request("a"))
            ledger.add("a", "started")
            assert ledger.state("a") == "serving"
            assert other.requests() == []
        assert [event.event for event in other.events()] == ["received", "started"]
        other.verify()
        head = other.signed_head
        assert head is not None
        assert head.size == 2

        def fails() -> None:
            with ledger.together():
                ledger.receive(request("b"))
                assert ledger.state("b") == "received"
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fails()
        ledger.receive(request("c"))  # under the number that "b" had
        ledger.add("c", "started")
        assert [one.id for one in ledger.requests()] == ["a", "c"]
        assert [one.id for one in other.requests()] == ["a", "c"]
        with pytest.raises(LedgerError, match="unknown request 'b'"):
            ledger.state("b")
        ledger.verify()


def test_an_event_costs_no_more_where_many_went_before(ledger: Ledger) -> None:
    read: list[int] = []
    rows = ledger._book.rows

    def counted(*args: Any) -> list[Row]:
        found = rows(*args)
        read.append(len(found))
        return found

    def of_one(name: str) -> int:
        read.clear()
        ledger.receive(request(name))
        ledger.add(name, "started")
        ledger.add(name, "unlearned")
        assert len(ledger.events(name)) == 3
        ledger.add(name, "fulfilled")
        return sum(read)

    ledger._book.rows = counted  # type: ignore[method-assign]
    of_one("first")
    before = of_one("second")
    for number in range(30):
        of_one(f"r{number}")
    assert of_one("last") == before


# --- the chain -----------------------------------------------------------------------------------


def test_the_chain_runs_from_the_first_event_to_the_head(ledger: Ledger) -> None:
    assert ledger.head == GENESIS
    ledger.verify()
    ledger.verify(GENESIS)
    ledger.receive(request("a"))
    head = ledger.head
    ledger.add("a", "started")
    events = ledger.events()
    assert [event.seq for event in events] == [1, 2]
    assert [event.previous for event in events] == [GENESIS, head]
    assert ledger.head == events[-1].hash
    ledger.verify(head)
    ledger.verify(ledger.head)


EDITS = {
    "utc": "'2001-01-01T00:00:00+00:00'",
    "request_id": "'b'",
    "branch": "'x'",
    "event": "'refused'",
    "facts": '\'{"reason":"other"}\'',
    "hash": f"'{GENESIS}'",
}
TAMPERINGS: dict[str, tuple[list[str], int]] = {
    **{f"edit {name}": ([f"UPDATE events SET {name} = {to} WHERE seq = 3"], 3)
       for name, to in EDITS.items()},
    "edit previous": ([f"UPDATE events SET previous = '{GENESIS}' WHERE seq = 3"], 3),
    "delete": (["DELETE FROM events WHERE seq = 3"], 3),
    "delete and close the gap": (
        ["DELETE FROM events WHERE seq = 3", "UPDATE events SET seq = seq - 1 WHERE seq > 3"], 3,
    ),
    "delete the first": (["DELETE FROM events WHERE seq = 1"], 1),
    "insert": (
        ["INSERT INTO events SELECT 6, utc, request_id, branch, event, facts, previous, hash "
         "FROM events WHERE seq = 5"], 6,
    ),
    "reorder": (
        ["UPDATE events SET seq = 99 WHERE seq = 3", "UPDATE events SET seq = 3 WHERE seq = 4",
         "UPDATE events SET seq = 4 WHERE seq = 99"], 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(TAMPERINGS))
def test_tampering_is_found_and_placed(tmp_path: Path, ledger: Ledger, kind: str) -> None:
    ledger.receive(request("a"))
    for event in ("started", "failed", "started", "fulfilled"):
        ledger.add("a", event, reason="as it was")
    ledger.verify()
    statements, place = TAMPERINGS[kind]
    change(tmp_path / "ledger.sqlite", *statements)
    with pytest.raises(LedgerError, match=f"breaks at seq {place}: "):
        ledger.verify()


@pytest.mark.parametrize("forged_seq", [2, 4])
def test_a_forged_event_with_a_fresh_hash_is_found(
    tmp_path: Path, ledger: Ledger, forged_seq: int
) -> None:
    """Event 2 is replaced by event 3, hashed anew: as number 2, then with the gap left open."""
    from unlearning.records.book import hash_of

    ledger.receive(request("a"))
    ledger.add("a", "failed")
    ledger.add("a", "started")
    first, _, last = ledger.events()
    previous = last.previous if forged_seq == 2 else first.hash
    fields = (forged_seq, last.utc, "a", "", "started", "{}", previous)
    change(tmp_path / "ledger.sqlite", "DELETE FROM events WHERE seq > 1")
    ledger._book.db.execute(
        "INSERT INTO events VALUES (?,?,?,?,?,?,?,?)", (*fields, hash_of(fields))
    )
    with pytest.raises(LedgerError, match=r"breaks at seq 2: event 2 (does not follow|is missing)"):
        ledger.verify()


def test_a_cut_off_end_is_found_with_a_noted_head(tmp_path: Path, ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.add("a", "started")
    head = ledger.head
    change(tmp_path / "ledger.sqlite", "DELETE FROM events WHERE seq = 2")
    for noted in (None, head):  # the signed head tells without a noted one
        with pytest.raises(LedgerError, match="its end was cut off"):
            ledger.verify(noted)


def test_a_rewritten_end_is_found_with_a_noted_head(tmp_path: Path, ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.add("a", "started")
    head = ledger.head
    change(tmp_path / "ledger.sqlite", "DELETE FROM events WHERE seq = 2")
    with pytest.raises(LedgerError, match="does not hold what its signed head says"):
        Ledger(tmp_path / "ledger.sqlite").add("a", "refused")  # nothing is built on it
    with pytest.raises(LedgerError, match="does not contain the head"):
        ledger.verify(head)


@pytest.mark.parametrize("statement", ["UPDATE events SET branch = 'x'", "DELETE FROM events"])
def test_the_file_itself_refuses_changes(ledger: Ledger, statement: str) -> None:
    ledger.receive(request("a"))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        ledger._book.db.execute(statement)
    ledger.verify()


def test_order_is_that_of_writing_whatever_the_clock_says(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    import unlearning.records.book as module

    class Backwards(datetime):
        year_ = 2030

        @classmethod
        def now(cls, tz: object = None) -> Backwards:
            cls.year_ -= 1
            return cls(cls.year_, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Backwards)
    ledger.receive(request("b"))
    ledger.receive(request("a"))
    ledger.add("a", "started")
    years = [int(event.utc[:4]) for event in ledger.events()]
    assert years == sorted(years, reverse=True)
    assert len(set(years)) == 3
    assert [r.id for r in ledger.requests()] == ["b", "a"]
    ledger.verify()


# --- several processes ---------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from unlearning.errors import LedgerError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

path, me = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger(path)
won = 0
for number in range(10):
    ledger.receive(Request(Scope.CLIENT, clients=(number,), id=f"shared-{number}"))
    ledger.receive(Request(Scope.CLIENT, clients=(me,), id=f"own-{me}-{number}"))
    try:
        ledger.add(f"shared-{number}", "started", by=me)
        ledger.add(f"shared-{number}", "fulfilled", by=me)
        won += 1
    except LedgerError as error:
        assert "was already fulfilled" in str(error)
print(won)
"""


def test_processes_append_at_the_same_time_and_one_effect_stays(tmp_path: Path) -> None:
    """All create the file, send the same requests and want to fulfil them; each counts once."""
    path = tmp_path / "ledger.sqlite"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path, str(me)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for me in range(3)
    ]  # fmt: skip
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()  # all are ready before one begins
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    won = 0
    for other in others:
        out, err = other.communicate(timeout=60)
        assert other.returncode == 0, err
        won += int(out)
    assert won == 10
    with Ledger(path) as ledger:
        ledger.verify()
        events = [(e.request_id, e.event) for e in ledger.events()]
        assert sum(event == "received" for _, event in events) == 10 + 3 * 10
        ends = [name for name, event in events if event == "fulfilled"]
        assert sorted(ends) == [f"shared-{number}" for number in range(10)]


# --- every order of calls ------------------------------------------------------------------------


# The drawing of the states, once more by hand: what may follow in each.
_OPEN = {"refused", "held", "started", "failed", "withdrawn", "extended"}
FOLLOWS = {
    "received": _OPEN | {"admitted"},
    "waiting": _OPEN,
    "held": _OPEN | {"released"},
    "serving": {"started", "refused", "held", "unlearned", "fulfilled", "failed", "extended"},
    "unlearned": {"started", "deletion-pending", "fulfilled", "failed", "extended"},
    "deletion-pending": {"deletion-pending", "fulfilled", "extended"},
    "failed": _OPEN,
    "fulfilled": set(),
    "refused": set(),
    "withdrawn": set(),
}
NAMES = {"admitted": "waiting", "released": "waiting", "started": "serving"}


class Life(RuleBasedStateMachine):
    """Any sequence of calls on two branches, against a model of plain lists."""

    names = st.sampled_from(["a", "b", "c"])
    branches = st.sampled_from(["", "x"])

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.received: list[str] = []
        self.past: dict[tuple[str, str], list[str]] = {}
        self.heads = [GENESIS]

    def teardown(self) -> None:
        self.ledger.close()

    def state(self, branch: str, name: str) -> str:
        past = [event for event in self.past.get((branch, name), []) if event != "extended"]
        over = [event for event in past if event in ("fulfilled", "refused", "withdrawn")]
        last = over[:1] or past[-1:] or ["received"]
        return NAMES.get(last[0], last[0])

    @rule(name=names, at_round=st.none() | st.integers(0, 3))
    def receive(self, name: str, at_round: int | None) -> None:
        fresh = name not in self.received
        assert self.ledger.receive(request(name, ord(name), at_round)) is fresh
        if fresh:
            self.received.append(name)
            self.heads.append(self.ledger.head)

    @precondition(lambda self: bool(self.received))
    @rule(name=names, branch=branches, event=st.sampled_from([*EVENTS, "begun"]))
    def add(self, name: str, branch: str, event: str) -> None:
        past = self.past.get((branch, name), [])
        legal = name in self.received and event in FOLLOWS[self.state(branch, name)]
        view = self.ledger.on_branch(branch)
        if legal:
            view.add(name, event, n=len(past))
            self.past[branch, name] = [*past, event]
            if branch == "" and event in ("withdrawn", "extended"):  # for all branches
                self.past["x", name] = [*self.past.get(("x", name), []), event]
            self.heads.append(self.ledger.head)
        else:
            with pytest.raises(LedgerError):
                view.add(name, event)

    @invariant()
    def the_ledger_agrees_with_the_lists(self) -> None:
        for branch in ("", "x"):
            view = self.ledger.on_branch(branch)
            states = {n: self.state(branch, n) for n in self.received}
            assert {name: view.state(name) for name in self.received} == states
            over = ("refused", "fulfilled", "withdrawn", "unlearned", "deletion-pending")
            waiting = [n for n in self.received if states[n] not in over]
            assert [r.id for r in view.waiting()] == waiting
            assert [r.id for r in view.pending()] == [
                n for n in self.received if states[n] in over[3:]
            ]
            due = [r.id for r in view.waiting() if (r.at_round or 0) <= 1]
            assert [r.id for r in view.due(1)] == due
            past = {n: self.past.get((branch, n), []) for n in self.received}
            assert sorted(view.held()) == sorted(n for n in states if states[n] == "held")
            out = {n for n in past if {"started", "held"} & set(past[n])}
            started = [n for n in self.received if n in out and "withdrawn" not in past[n]]
            assert [r.id for r in view.forgotten().requests] == started
        assert [r.id for r in self.ledger.requests()] == self.received

    @invariant()
    def the_chain_holds_every_head(self) -> None:
        assert len(self.ledger.events()) == len(self.heads) - 1
        for head in self.heads[-3:]:
            self.ledger.verify(head)


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=15)
TestLife = Life.TestCase


def test_a_held_answer_is_not_due_until_it_is_released(ledger: Ledger) -> None:
    for name, stage in (("a", ANSWER), ("b", BATCH)):
        ledger.receive(request(name))
        ledger.add(name, "held", stage=stage, reason="so")
    assert [r.id for r in ledger.due(0)] == ["b"]
    assert {name: event.facts["reason"] for name, event in ledger.held().items()} == {
        "a": "so",
        "b": "so",
    }
    assert not ledger.is_released("a")
    ledger.add("a", "released")
    assert [r.id for r in ledger.due(0)] == ["a", "b"]
    ledger.add("a", "started")
    assert ledger.is_released("a")
    ledger.add("a", "held", stage=ANSWER, reason="again")
    assert not ledger.is_released("a")
    assert [r.id for r in ledger.due(0)] == ["b"]


def test_only_what_is_held_can_be_released(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    with pytest.raises(LedgerError, match="cannot be released: it is received, not held"):
        ledger.add("a", "released")


def test_a_hold_on_one_branch_is_none_on_another(ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.on_branch("x").add("a", "held", stage=ANSWER, reason="so")
    assert [r.id for r in ledger.due(0)] == ["a"]
    assert ledger.on_branch("x").due(0) == []


def test_random_edits_of_stored_text_are_found(tmp_path: Path, ledger: Ledger) -> None:
    """Every single character of every column, changed, is found."""
    ledger.receive(request("a"))
    ledger.add("a", "started", note="xyz")
    columns = ("utc", "request_id", "branch", "event", "facts", "previous", "hash")
    path = tmp_path / "ledger.sqlite"
    change(path)
    connection = sqlite3.connect(path, isolation_level=None)
    verify: Callable[[], None] = ledger.verify
    for seq, column in [(seq, column) for seq in (1, 2) for column in columns]:
        where = f"SET {column} = ? WHERE seq = {seq}"
        (text,) = connection.execute(f"SELECT {column} FROM events WHERE seq = {seq}").fetchone()
        for place in range(0, len(text), 7):
            changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
            connection.execute(f"UPDATE events {where}", (changed,))
            with pytest.raises(LedgerError, match=f"breaks at seq {seq}: "):
                verify()
        connection.execute(f"UPDATE events {where}", (text,))
    connection.close()
    verify()


def test_facts_are_stored_canonically(tmp_path: Path, ledger: Ledger) -> None:
    ledger.receive(request("a"))
    ledger.add("a", "started", b=1, a=[1.5, None, True])
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    (text,) = connection.execute("SELECT facts FROM events WHERE seq = 2").fetchone()
    connection.close()
    assert text == '{"a":[1.5,null,true],"b":1}'
    assert json.loads(text) == ledger.events()[-1].facts


def test_a_ledger_in_memory_signs_nothing_and_a_federation_is_not_begun_anew(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    with pytest.raises(LedgerError, match="only branches of a comparison are"):
        ledger.restart()
    with pytest.raises(LedgerError, match="in memory has no key"):
        _ = ledger.seal
    with pytest.raises(LedgerError, match="has no signed head"):
        make(ledger, "r", Seal.make(tmp_path / "some.key"), datetime.now(UTC))
    assert ledger.state("r") == "received"

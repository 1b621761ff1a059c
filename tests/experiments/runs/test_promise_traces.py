"""The life of requests, model-checked: whatever comes in whatever order, each has one effect.

A trace asks, asks again, asks what must not be asked, serves, lets fail, kills, holds, releases,
withdraws, extends and turns the clock, on one run folder that two processes have open. Beside it
runs a model of a few lines; ledger and model must agree after every step.

Twenty traces at every run of the tests; more with ``FEDUNLEARN_TRACES=10000``, which the night's
part ``slow`` of ``.ci/nightly`` sets itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from experiments.runs.admission import admit
from experiments.runs.folder import FederationFacts, RunFolder
from experiments.runs.status import Status
from unlearning.arrays import Arrays, fingerprint
from unlearning.errors import LedgerError, RequestError, UnsupportedRequestError
from unlearning.fulfil import finish, fulfil
from unlearning.records import book
from unlearning.records import ledger as ledger_module
from unlearning.records.history import History
from unlearning.records.ledger import BATCH, Ledger
from unlearning.records.receipt import check, make
from unlearning.records.states import FINAL
from unlearning.request import Guarantee, Omission, Request, Scope

CLIENTS, SAMPLES, ROUNDS, DONE = 4, 3, 20, 5
CLOCKS: tuple[Any, ...] = (book, ledger_module)  # who reads the time
TRACES = int(os.environ.get("FEDUNLEARN_TRACES", "20"))
BEFORE: Arrays = {"w": np.array([1.0])}
AFTER: Arrays = {"w": np.array([2.0])}


class KilledError(BaseException):
    """The process is gone: nothing that it would still do happens."""


class Mortal(Ledger):
    """A ledger whose process dies before or after an event that it writes."""

    dies_at: int | None = None  # counted from 0 over the points before and after every event
    dead = False

    def add(self, request_id: str, event: str, **facts: object) -> Any:
        """Write an event, unless the process died."""
        self._point()
        found = super().add(request_id, event, **facts)
        self._point()
        return found

    def _point(self) -> None:
        if self.dead:
            raise KilledError
        if self.dies_at is not None:
            self.dies_at -= 1
            if self.dies_at < 0:
                self.dead = True
                raise KilledError


class Forgetter:
    """A strategy of nothing but outcomes."""

    guarantee: ClassVar[Guarantee] = Guarantee.EXACT

    def __init__(self, outcome: str, away: frozenset[int] = frozenset(), meanwhile: Any = None):
        self.rewritten: History | None = None
        self._outcome, self._away, self._meanwhile = outcome, away, meanwhile

    def check(self, request: Request) -> None:
        """Refuse if told to."""
        if self._outcome == "refused":
            raise UnsupportedRequestError("not this scope")

    def options(self) -> dict[str, object]:
        """Return none."""
        return {}

    def fingerprint(self, arrays: Arrays) -> str:
        """Return what tells a model from any other."""
        return fingerprint(arrays)

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        """Return another model, or fail."""
        if self._meanwhile is not None:
            self._meanwhile()
        if self._outcome == "failed":
            raise ValueError("no luck")
        return AFTER

    def dismiss(self, request: Request) -> dict[str, object]:
        """Say who confirms."""
        owners = request.owners(range(CLIENTS))
        there = [client for client in owners if client not in self._away]
        left = [client for client in owners if client in self._away]
        return {"acknowledged": there, "unacknowledged": left, "examples": len(there)}

    def discard(self) -> None:
        """Throw nothing away."""

    def overlap(self, request: Request) -> dict[str, object]:
        """Say nothing."""
        return {}


def learned() -> History:
    """Return a history in which everybody took part."""
    found = History(keep=("globals", "updates"))
    found.start(BEFORE)
    with found.record(1, BEFORE) as entry:
        for client in range(CLIENTS):
            entry.add(client, SAMPLES, AFTER)
    return found


ask = st.one_of(
    st.builds(lambda client: {"clients": (client,)}, st.integers(0, CLIENTS - 1)),
    st.builds(
        lambda client, chosen: {"samples": {client: tuple(chosen)}},
        st.integers(0, CLIENTS - 1),
        st.sets(st.integers(0, SAMPLES - 1), min_size=1),
    ),
)
pick = st.integers(0, 1 << 16)


def made(fields: dict[str, Any], name: str, at_round: int | None = None) -> Request:
    scope = Scope.CLIENT if "clients" in fields else Scope.SAMPLE
    return Request(scope, id=name, at_round=at_round, **fields)


class Promise(RuleBasedStateMachine):
    """A run folder, and what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
        self.folder = RunFolder.claim(self.path / "run", {"rounds": ROUNDS})
        self.folder.write_federation(
            FederationFacts(clients=dict.fromkeys(range(CLIENTS), SAMPLES), classes=(0, 1))
        )
        status = Status(state="running", phase="learn", server_round=DONE)
        self.folder.status.write_text(json.dumps(asdict(status)))
        self.shift = timedelta()
        self._real = book.now
        for module in CLOCKS:
            module.now = self._now
        self.views = [Mortal(self.folder.ledger), Mortal(self.folder.ledger)]
        self.history = learned()
        self.known: dict[str, Request] = {}
        self.state: dict[str, str] = {}
        self.due: dict[str, datetime] = {}
        self.first: dict[str, datetime] = {}
        self.models: Counter[str] = Counter()  # models that were made and kept, by request
        self.seen = 0  # events

    def teardown(self) -> None:
        """Whatever happened, the ledger is sound, and every receipt is of one fulfilled request."""
        try:
            self._sound()
        finally:
            for module in CLOCKS:
                module.now = self._real
            for view in self.views:
                view.close()
            self.history.close()
            shutil.rmtree(self.path)

    # What can happen ------------------------------------------------------------------------

    @rule(fields=ask, late=st.booleans())
    def asks(self, fields: dict[str, Any], late: bool) -> None:
        request = made(fields, f"r{len(self.known)}", DONE + 1 if late else None)
        if self._is_covered(request) or self._leaves_nobody(request):
            self._refused(request)
            return
        assert admit(self.folder, request)
        self.known[request.id], self.state[request.id] = request, "received"
        self.due[request.id] = self.first[request.id] = self._now() + timedelta(days=30)

    @precondition(lambda self: self.known)
    @rule(which=pick, times=st.integers(1, 3))
    def asks_the_same_again(self, which: int, times: int) -> None:
        request = self._one(which)
        for _ in range(times):
            assert not admit(self.folder, request)

    @precondition(lambda self: self.known)
    @rule(which=pick, fields=ask)
    def asks_something_else_under_a_known_id(self, which: int, fields: dict[str, Any]) -> None:
        other = made(fields, self._one(which).id)
        assume(other.to_json() != self._one(which).to_json())
        self._refused(other)

    @rule(
        fields=st.sampled_from(
            [
                {"clients": (CLIENTS,)},
                {"clients": tuple(range(CLIENTS))},  # the last remaining
                {"samples": {0: (SAMPLES,)}},
                {"samples": {CLIENTS: (0,)}},
            ]
        )
    )
    def asks_what_is_not_there(self, fields: dict[str, Any]) -> None:
        self._refused(made(fields, "odd"))

    @rule(fields=ask, at_round=st.sampled_from([DONE - 1, ROUNDS + 1]))
    def asks_for_a_round_that_does_not_come(self, fields: dict[str, Any], at_round: int) -> None:
        self._refused(made(fields, "odd", at_round))

    @rule(which=pick, outcome=st.sampled_from(["good", "away", "failed", "refused"]))
    def serves(self, which: int, outcome: str) -> None:
        if (request := self._due(which)) is None:
            return
        was = self.views[0].state(request.id)
        self._serve(self.views[which % 2], request, outcome)
        if outcome in ("failed", "refused"):
            self.state[request.id] = "failed" if was == "unlearned" else outcome
            return
        self.models[request.id] += 1
        self.state[request.id] = "deletion-pending" if outcome == "away" else "fulfilled"

    @rule(which=pick)
    def serves_in_two_processes(self, which: int) -> None:
        """Two processes answer the same request: the first that ends counts."""
        if (request := self._due(which)) is None:
            return
        one, other = self.views[which % 2], self.views[1 - which % 2]
        twin = learned()

        def meanwhile() -> None:
            fulfil(request, Forgetter("good"), BEFORE, self.history, other)

        with pytest.raises(LedgerError, match="already fulfilled"):
            fulfil(request, Forgetter("good", meanwhile=meanwhile), BEFORE, twin, one)
        twin.close()
        self.models[request.id] += 1
        self.state[request.id] = "fulfilled"

    @rule(which=pick, point=st.integers(0, 7), away=st.booleans())
    def is_killed_while_it_serves(self, which: int, point: int, away: bool) -> None:
        if (request := self._due(which)) is None:
            return
        view = self.views[which % 2]
        view.dies_at = point
        died = False
        try:
            self._serve(view, request, "away" if away else "good")
        except KilledError:
            died = True
        view.close()
        self.views[which % 2] = Mortal(self.folder.ledger)
        found = self.views[which % 2].state(request.id)
        ends = "deletion-pending" if away else "fulfilled"
        allowed = {self.state[request.id], "serving", "unlearned", ends} if died else {ends}
        assert found in allowed, found
        if request.id in self.history.served:
            self.models[request.id] += 1
        self.state[request.id] = found

    @rule(which=pick, away=st.booleans())
    def asks_owners_again(self, which: int, away: bool) -> None:
        """At every later round, and at a start after a kill."""
        view = self.views[which % 2]
        for request in view.pending():
            if request.id in self.history.served:
                gone = frozenset(request.owners(range(CLIENTS))) if away else frozenset()
                finish(request, Forgetter("good", gone), view)
                self.state[request.id] = "deletion-pending" if away else "fulfilled"

    @rule(which=pick)
    def is_held(self, which: int) -> None:
        if (request := self._due(which)) is None or self.state[request.id] == "unlearned":
            return
        self.views[which % 2].add(request.id, "held", stage=BATCH, reason="it waits")
        self.state[request.id] = "held"

    @precondition(lambda self: self.known)
    @rule(which=pick)
    def is_released(self, which: int) -> None:
        self._step(which, "released", {"held"}, "waiting", released_by="operator")

    @precondition(lambda self: self.known)
    @rule(which=pick)
    def is_withdrawn(self, which: int) -> None:
        open_states = {"received", "waiting", "held", "failed"}
        self._step(which, "withdrawn", open_states, "withdrawn", reason="a slip")

    @precondition(lambda self: self.known)
    @rule(which=pick, days=st.integers(1, 60))
    def is_extended(self, which: int, days: int) -> None:
        request = self._one(which)
        later = self.due[request.id] + timedelta(days=days)
        if self.state[request.id] in FINAL or later > self.first[request.id] + timedelta(days=60):
            with pytest.raises(LedgerError):
                self.views[0].extend(request.id, later, "many files")
            return
        self.views[0].extend(request.id, later, "many files")
        self.due[request.id] = later

    @rule(hours=st.sampled_from([-1, 1, 24 * 31, 24 * 365, -24 * 365]))
    def the_clock_jumps(self, hours: int) -> None:
        self.shift += timedelta(hours=hours)

    @rule(kind=st.sampled_from(["added", "cut", "edited", "emptied", "chained"]))
    def is_forged(self, kind: str) -> None:
        """Somebody without the key writes into a copy: it is found, and nobody builds on it."""
        count = len(self.views[0].events())
        if not count:
            return
        copy = self.path / "copy"
        shutil.copytree(self.folder.path, copy)
        _forge(copy / "ledger.sqlite", kind, count)
        with pytest.raises(LedgerError):
            Ledger(copy / "ledger.sqlite", readonly=True).verify()
        with pytest.raises(LedgerError):
            Ledger(copy / "ledger.sqlite").receive(made({"clients": (0,)}, "late"))
        shutil.rmtree(copy)

    # What must be true ----------------------------------------------------------------------

    @invariant()
    def ledger_and_model_agree(self) -> None:
        for view in self.views:
            assert {r.id: view.state(r.id) for r in view.requests()} == self.state
        assert self.views[0].requests() == list(self.known.values())

    @invariant()
    def nothing_is_lost_and_nothing_comes_back(self) -> None:
        events = self.views[0].events()
        assert len(events) >= self.seen
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        self.seen = len(events)
        ends = Counter(e.request_id for e in events if e.event in FINAL)
        assert all(count == 1 for count in ends.values())
        assert set(self.history.served) == {name for name, count in self.models.items() if count}

    @invariant()
    def the_forgotten_stay_out(self) -> None:
        """Whatever was begun stays out of training, unless whoever asked took it back."""
        gone = self.views[0].forgotten()
        begun = {"serving", "unlearned", "deletion-pending", "fulfilled", "failed", "held"}
        for name, state in self.state.items():
            if state in begun:
                for client in range(CLIENTS):
                    assert gone.omission(client).covers(self.known[name].omission(client))
        names = {request.id for request in gone.requests}
        assert not [name for name in names if self.state[name] == "withdrawn"]

    @invariant()
    def overdue_is_what_is_open_after_its_day(self) -> None:
        late = [
            name
            for name, due in self.due.items()
            if self.state[name] not in FINAL and due < self._now()
        ]
        assert [request.id for request in self.views[0].overdue()] == late

    # Inside ---------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return (datetime(2026, 1, 1, tzinfo=UTC) + self.shift).astimezone(UTC)

    def _one(self, which: int) -> Request:
        return list(self.known.values())[which % len(self.known)]

    def _due(self, which: int) -> Request | None:
        view = self.views[0]
        lost = {r.id for r in view.pending()} - set(self.history.served)
        found = view.due(DONE, lost)
        return found[which % len(found)] if found else None

    def _serve(self, view: Ledger, request: Request, outcome: str) -> None:
        away = frozenset(request.owners(range(CLIENTS))) if outcome == "away" else frozenset()
        try:
            fulfil(request, Forgetter(outcome, away), BEFORE, self.history, view)
        except (ValueError, UnsupportedRequestError):
            assert outcome in ("failed", "refused")

    def _step(
        self, which: int, event: str, allowed: set[str], leads_to: str, **facts: object
    ) -> None:
        request, view = self._one(which), self.views[which % 2]
        if self.state[request.id] in allowed:
            view.add(request.id, event, **facts)
            self.state[request.id] = leads_to
            return
        with pytest.raises(LedgerError):
            view.add(request.id, event, **facts)

    def _refused(self, request: Request) -> None:
        before = len(self.views[0].events())
        with pytest.raises(RequestError) as caught:
            admit(self.folder, request)
        assert "\n" not in str(caught.value)
        assert len(self.views[0].events()) == before

    def _is_covered(self, request: Request) -> bool:
        total = {client: Omission() for client in range(CLIENTS)}
        for name, known in self.known.items():
            if self.state[name] not in ("refused", "failed", "withdrawn"):
                for client in total:
                    total[client] = total[client] | known.omission(client)
        owners = request.owners(range(CLIENTS))
        return all(total[client].covers(request.omission(client)) for client in owners)

    def _leaves_nobody(self, request: Request) -> bool:
        if not request.leavers:
            return False
        gone = {
            client
            for name, known in self.known.items()
            if self.state[name] not in ("refused", "withdrawn")
            for client in known.leavers
        }
        return not set(range(CLIENTS)) - gone - request.leavers

    def _sound(self) -> None:
        with Ledger(self.folder.ledger) as ledger:
            ledger.verify()
            for name in self.state:
                receipt = make(ledger, name, ledger.seal, datetime.now(UTC))
                assert all(one.holds for one in check(receipt))


def _forge(path: Path, kind: str, count: int) -> None:
    with sqlite3.connect(path) as db:
        for name in ("never_changed", "never_deleted"):
            db.execute(f"DROP TRIGGER {name}")
        if kind == "cut":
            db.execute("DELETE FROM events WHERE seq = ?", (count,))
        elif kind == "emptied":
            db.execute("DELETE FROM events")
        elif kind == "edited":
            db.execute("UPDATE events SET utc = '2001-01-01' WHERE seq = ?", (count,))
        else:
            row = db.execute("SELECT * FROM events WHERE seq = ?", (count,)).fetchone()
            fields = (count + 1, row[1], row[2], row[3], "fulfilled", "{}", row[7])
            own = book.hash_of(fields) if kind == "chained" else row[7]
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*fields, own))
    db.close()


def carry_on(view: Mortal, history: History, course: str) -> None:
    """Bring the one request to its end, from wherever its ledger says that it is."""
    (request,) = view.requests()
    for _ in range(10):
        past = [event.event for event in view.events(request.id)]
        state = view.state(request.id)
        is_away = course == "away" and "deletion-pending" not in past
        away = frozenset({1}) if is_away else frozenset[int]()
        if state == "fulfilled":
            return
        if state == "held" and "released" not in past:
            view.add(request.id, "released", released_by="operator")
        elif state in ("unlearned", "deletion-pending") and request.id in history.served:
            finish(request, Forgetter("good", away), view)
        elif course == "held" and "held" not in past:
            view.add(request.id, "held", stage=BATCH, reason="it waits")
        elif course == "failed" and "failed" not in past:
            with pytest.raises(ValueError, match="no luck"):
                fulfil(request, Forgetter("failed"), BEFORE, history, view)
        else:
            fulfil(request, Forgetter("good", away), BEFORE, history, view)


COURSES = {
    "plain": ["received", "started", "unlearned", "fulfilled"],
    "away": ["received", "started", "unlearned", "deletion-pending", "fulfilled"],
    "held": ["received", "held", "released", "started", "unlearned", "fulfilled"],
    "failed": ["received", "started", "failed", "started", "unlearned", "fulfilled"],
}


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("point", range(10))
def test_a_kill_before_or_after_any_event_goes_on_forwards(
    tmp_path: Path, course: str, point: int
) -> None:
    """The same end, once, and nothing that was done is done anew but the step that was lost."""
    view, history = Mortal(tmp_path / "ledger.sqlite"), learned()
    view.receive(made({"clients": (1,)}, "r"))
    view.dies_at = point
    try:
        carry_on(view, history, course)
        assert point >= 2 * (len(COURSES[course]) - 1)  # it was not killed
    except KilledError:
        view.close()
        view = Mortal(tmp_path / "ledger.sqlite")
        carry_on(view, history, course)
    events = [event.event for event in view.events("r")]
    assert events.count("fulfilled") == 1
    assert history.served == ("r",)
    once = list(COURSES[course])
    for event in events:  # in their order; a lost step stands there twice at most
        if once and event == once[0]:
            del once[0]
    assert once == []
    assert len(events) <= len(COURSES[course]) + 2
    view.verify()
    receipt = make(view, "r", view.seal, datetime.now(UTC))
    assert all(one.holds for one in check(receipt))
    view.close()
    history.close()


def try_out(traces: int) -> None:
    """Try so many traces."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Promise,
        settings=settings(
            max_examples=traces,
            stateful_step_count=15,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_trace_keeps_the_promise() -> None:
    try_out(TRACES)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_ten_thousand_traces_keep_the_promise() -> None:
    try_out(10_000)

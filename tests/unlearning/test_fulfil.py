from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unlearning.arrays import Arrays, digest
from unlearning.errors import LedgerError, UnsupportedRequestError
from unlearning.fulfil import finish, fulfil
from unlearning.records.head import Head
from unlearning.records.heads import Heads
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Guarantee, Request, Scope

BEFORE: Arrays = {"w": np.array([1.0])}
AFTER: Arrays = {"w": np.array([2.0])}
REQUEST = Request(Scope.CLIENT, clients=(1,), id="r")


class Scribe:
    """A strategy that writes down in which order it is called, and fails where it is told to."""

    guarantee = Guarantee.CERTIFIED

    def __init__(self, ledger: Ledger, *, fails: str = "", error: BaseException | None = None):
        self.calls: list[str] = []
        self.rewritten: History | None = None
        self.settled = ""
        self._ledger, self._fails, self._error = ledger, fails, error or ValueError("no luck")

    def _note(self, name: str) -> None:
        self.calls.append(f"{name} while {self._ledger.state('r')}")
        if name == self._fails:
            raise self._error

    def check(self, request: Request) -> None:
        self._note("check")

    def options(self) -> dict[str, object]:
        return {"interval": 2}

    def fingerprint(self, arrays: Arrays) -> str:
        return digest(arrays)

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        self._note("unlearn")
        return AFTER

    def dismiss(self, request: Request) -> dict[str, list[int]]:
        self._note("dismiss")
        return {"acknowledged": [1], "unacknowledged": []}

    def discard(self) -> None:
        self.calls.append("discard")
        self.rewritten = None


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def history() -> History:
    """Client 1 took part in round 1, client 0 in both rounds."""
    history = History(keep=("globals", "updates"))
    history.start(BEFORE)
    for t, clients in ((1, (0, 1)), (2, (0,))):
        with history.record(t, {"w": np.array([float(t)])}) as entry:
            for client in clients:
                entry.add(client, 5, {"w": np.array([float(10 * t + client)])})
    return history


def states(ledger: Ledger) -> list[str]:
    return [event.event for event in ledger.events("r")]


def test_the_straight_line(ledger: Ledger, history: History) -> None:
    strategy = Scribe(ledger)

    def measure(before: Arrays, after: Arrays) -> dict[str, float | None]:
        strategy.calls.append("measure")
        assert (digest(before), digest(after)) == (digest(BEFORE), digest(AFTER))
        return {"mia_auc": 0.5, "backdoor_success": None}

    after = fulfil(REQUEST, strategy, BEFORE, history, ledger, measure)
    assert digest(after) == digest(AFTER)
    assert strategy.calls == [
        "check while received",
        "unlearn while serving",
        "measure",
        "dismiss while unlearned",  # what the server held is gone by then
    ]
    assert states(ledger) == ["received", "started", "unlearned", "fulfilled"]
    ledger.verify()


def test_the_ledger_tells_the_whole_story(ledger: Ledger, history: History) -> None:
    fulfil(REQUEST, Scribe(ledger), BEFORE, history, ledger, lambda *_: {"mia_auc": 0.5})
    _, started, made, fulfilled = ledger.events("r")
    common = {"strategy": "Scribe", "guarantee": "certified"}
    assert started.facts == {
        **common,
        "options": {"interval": 2},
        "model_before": digest(BEFORE),
    }
    assert made.facts == {
        **common,
        "model_after": digest(AFTER),
        "metrics": {"mia_auc": 0.5},
        "rewritten": False,
    }
    deleted = fulfilled.facts["deleted"]
    assert isinstance(deleted, dict)
    assert (deleted["files"], len(deleted["first"]), len(deleted["root"])) == (2, 2, 64)
    assert all("client-00001" in line or "global" in line for line in deleted["first"])
    assert fulfilled.facts == {
        **common,
        "deleted": deleted,
        "model_after": digest(AFTER),
        "metrics": {"mia_auc": 0.5},
        "deletion": {"acknowledged": [1], "unacknowledged": []},
    }


def test_the_history_is_purged(ledger: Ledger, history: History) -> None:
    fulfil(REQUEST, Scribe(ledger), BEFORE, history, ledger)
    assert list(history.participants(1)) == [0]
    assert history.stored_globals == (1,)


def test_a_rewritten_history_takes_the_place_of_the_old(ledger: Ledger, history: History) -> None:
    class Rewriter(Scribe):
        def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
            self.rewritten = history.fork(None)
            self.rewritten.truncate(0)
            with self.rewritten.record(1, BEFORE) as entry:
                entry.add(0, 7, {"w": np.array([0.5])})
            return AFTER

    strategy = Rewriter(ledger)
    fulfil(REQUEST, strategy, BEFORE, history, ledger)
    assert history.rounds == (1,)
    assert history.participants(1) == {0: 7}
    assert history.update(1, 0)["w"] == 0.5
    assert strategy.rewritten is None


def test_a_refusal_is_recorded_and_ends_there(ledger: Ledger, history: History) -> None:
    strategy = Scribe(ledger, fails="check", error=UnsupportedRequestError("not my scope"))
    with pytest.raises(UnsupportedRequestError):
        fulfil(REQUEST, strategy, BEFORE, history, ledger)
    assert states(ledger) == ["received", "refused"]
    assert ledger.events("r")[-1].facts["reason"] == "not my scope"
    assert strategy.calls == ["check while received"]
    assert not ledger.forgotten().requests
    assert history.rounds == (1, 2)
    assert list(history.participants(1)) == [0, 1]


@pytest.mark.parametrize("where", ["unlearn", "measure"])
@pytest.mark.parametrize("error", [ValueError("no luck"), KeyboardInterrupt()])
def test_a_failure_is_recorded_and_keeps_the_data_out(
    ledger: Ledger, history: History, where: str, error: BaseException
) -> None:
    strategy = Scribe(ledger, fails=where, error=error)

    def measure(before: Arrays, after: Arrays) -> dict[str, float | None]:
        if where == "measure":
            raise error
        return {}

    with pytest.raises(type(error)):
        fulfil(REQUEST, strategy, BEFORE, history, ledger, measure)
    assert states(ledger) == ["received", "started", "failed"]
    assert type(error).__name__ in str(ledger.events("r")[-1].facts["reason"])
    assert strategy.calls[-1] == "discard"
    assert ledger.forgotten().clients == {1}
    assert ledger.due(0) == [REQUEST]
    assert list(history.participants(1)) == [0, 1]


def test_owners_that_do_not_confirm_are_asked_until_they_do(
    ledger: Ledger, history: History
) -> None:
    class Away(Scribe):
        def dismiss(self, request: Request) -> dict[str, list[int]]:
            self._note("dismiss")
            return {"acknowledged": [], "unacknowledged": [1]}

    after = fulfil(REQUEST, Away(ledger), BEFORE, history, ledger)
    assert digest(after) == digest(AFTER)
    assert ledger.state("r") == "deletion-pending"
    assert ledger.events("r")[-1].facts["reason"] == "client 1 has not confirmed the deletion"
    assert (ledger.waiting(), ledger.pending(), ledger.due(9)) == ([], [REQUEST], [])
    assert list(history.participants(1)) == [0]  # the server's part is done
    finish(REQUEST, Away(ledger), ledger)  # still away: nothing new to say
    finish(REQUEST, Scribe(ledger, fails="dismiss"), ledger)
    assert states(ledger)[-2:] == ["deletion-pending", "deletion-pending"]
    finish(REQUEST, Scribe(ledger), ledger)
    assert ledger.state("r") == "fulfilled"
    told = ledger.events("r")[-1].facts
    assert told["deletion"] == {"acknowledged": [1], "unacknowledged": []}
    assert told["model_after"] == digest(AFTER)
    assert told["deleted"]


def test_after_a_failure_the_request_is_simply_run_again(ledger: Ledger, history: History) -> None:
    with pytest.raises(ValueError, match="no luck"):
        fulfil(REQUEST, Scribe(ledger, fails="unlearn"), BEFORE, history, ledger)
    after = fulfil(REQUEST, Scribe(ledger), BEFORE, history, ledger)
    assert digest(after) == digest(AFTER)
    assert states(ledger) == [
        "received", "started", "failed", "started", "unlearned", "fulfilled",
    ]  # fmt: skip


def test_a_refusal_after_a_lost_answer_is_a_failure(ledger: Ledger, history: History) -> None:
    """A kill took the answer after it was written down; then the strategy cannot serve it."""
    ledger.receive(REQUEST)
    for event in ("started", "unlearned"):
        ledger.add("r", event)
    strategy = Scribe(ledger, fails="check", error=UnsupportedRequestError("not my scope"))
    with pytest.raises(UnsupportedRequestError):
        fulfil(REQUEST, strategy, BEFORE, history, ledger)
    assert states(ledger) == ["received", "started", "unlearned", "failed"]
    assert "not my scope" in str(ledger.events("r")[-1].facts["reason"])
    after = fulfil(REQUEST, Scribe(ledger), BEFORE, history, ledger)
    assert digest(after) == digest(AFTER)
    assert states(ledger)[-1] == "fulfilled"


@pytest.mark.parametrize("fate", ["fulfilled", "refused"])
def test_what_is_settled_is_not_served_again(ledger: Ledger, history: History, fate: str) -> None:
    ledger.receive(REQUEST)
    ledger.add("r", "started")
    ledger.add("r", fate)
    strategy = Scribe(ledger)
    assert fulfil(REQUEST, strategy, BEFORE, history, ledger) is BEFORE
    assert strategy.calls == []
    assert states(ledger) == ["received", "started", fate]


def test_a_request_is_received_and_begun_in_one_write(tmp_path: Path, history: History) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        strategy = Scribe(ledger, fails="unlearn", error=KeyboardInterrupt())
        begun: list[list[str]] = []
        write = Heads.write

        def written(heads: Heads, head: Head) -> None:
            begun.append(states(ledger))
            write(heads, head)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Heads, "write", written)
            with pytest.raises(KeyboardInterrupt):
                fulfil(REQUEST, strategy, BEFORE, history, ledger)
        assert begun == [["received", "started"], ["received", "started", "failed"]]


def test_an_interrupt_before_a_request_is_begun_leaves_it_received(
    ledger: Ledger, history: History
) -> None:
    strategy = Scribe(ledger, fails="check", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fulfil(REQUEST, strategy, BEFORE, history, ledger)
    assert states(ledger) == ["received"]


def test_a_crash_at_any_event_can_be_made_good(ledger: Ledger, history: History) -> None:
    """The ledger fails at its n-th event; whatever n, a second try ends in one fulfilment."""
    for n in (1, 2, 3):
        at_hand = Request(Scope.CLIENT, clients=(1,), id="r")
        book, past = Ledger(), history.fork(None)
        add = book.add
        book.add = fails_at(n, add)  # type: ignore[method-assign]
        with pytest.raises(LedgerError, match="disk full"):
            fulfil(at_hand, Scribe(book), BEFORE, past, book)
        book.add = add  # type: ignore[method-assign]
        fulfil(at_hand, Scribe(book), BEFORE, past, book)
        assert states(book).count("fulfilled") == 1
        assert list(past.participants(1)) == [0]


def fails_at(n: int, add: Callable[..., object]) -> Callable[..., object]:
    calls = 0

    def failing(*args: object, **facts: object) -> object:
        nonlocal calls
        calls += 1
        if calls == n:
            raise LedgerError("disk full")
        return add(*args, **facts)

    return failing

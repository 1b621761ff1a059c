"""The straight line: a request becomes a model without the data, and nothing of them is kept.

request -> ledger -> strategy.unlearn -> guard -> judgement -> deletion at the owners -> history ->
ledger. An answer that the guard holds stops before the deletion: nothing is lost but the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from unlearning.arrays import Arrays, is_same
from unlearning.errors import FedUnlearnError
from unlearning.records.history import History
from unlearning.records.ledger import ANSWER, Ledger
from unlearning.records.merkle import root_of
from unlearning.records.states import FINAL
from unlearning.request import Guarantee, Request

__all__ = ["Guard", "Inspection", "Unlearner", "confirm", "finish", "fulfil"]

Files = Mapping[str, tuple[str, int]]
Measure = Callable[[Arrays, Arrays], Mapping[str, float | None]]


class Unlearner(Protocol):
    """What this function needs of a strategy."""

    guarantee: ClassVar[Guarantee]
    rewritten: History | None
    settled: str  # why the model as it was answers the request, where that is so

    def check(self, request: Request) -> None:
        """Refuse what cannot be served."""

    def options(self) -> dict[str, object]:
        """Return the options in force."""

    def fingerprint(self, arrays: Arrays) -> str:
        """Return what tells a model from any other, for the ledger."""

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        """Return the model without what the request names."""

    def dismiss(self, request: Request) -> Mapping[str, object]:
        """Have the owners delete for good."""

    def discard(self) -> None:
        """Throw away what was rewritten."""

    def overlap(self, request: Request) -> Mapping[str, object]:
        """Say how much of what is forgotten others hold too."""


@dataclass(frozen=True)
class Inspection:
    """What a guard says about an answer.

    Parameters
    ----------
    arrays : Arrays
        The answer, bounded where the guard bounds it.
    reasons : tuple of str
        Why it must not be published yet, in words; empty: it may.
    facts : mapping
        Plain JSON values, for the ledger.
    """

    arrays: Arrays
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


class Guard(Protocol):
    """What stands between a request and its answer, and between the answer and everyone."""

    @property
    def duplicates(self) -> bool:
        """Whether copies of the forgotten at other clients are looked for."""

    def check(self, request: Request) -> None:
        """Refuse, before any work, what must not be asked."""

    def inspect(
        self, request: Request, guarantee: Guarantee, before: Arrays, after: Arrays
    ) -> Inspection:
        """Look at an answer before anyone else does."""


def fulfil(
    request: Request,
    strategy: Unlearner,
    arrays: Arrays,
    history: History,
    ledger: Ledger,
    measure: Measure | None = None,
    guard: Guard | None = None,
    keep: Callable[[Arrays, Request, History], None] | None = None,
) -> Arrays:
    """Serve one request and return the model to go on with.

    The new model is kept before anything is deleted, what the server holds is deleted before the
    owners are asked, and only when all of them have confirmed the request is fulfilled: a crash
    between any two of these goes on forwards, and nothing is half done.

    Parameters
    ----------
    request : Request
        What to forget. One that the ledger holds as fulfilled, refused or withdrawn is a no-op; of
        one whose model was made before, only the deletion is completed.
    strategy : Unlearner
        How to forget.
    arrays : Arrays
        The global model.
    history, ledger : History, Ledger
        The stores of the run; both are changed.
    measure : callable or None
        ``measure(before, after)`` judges the result; the strategy does not see it.
    guard : Guard or None
        Looks at the request before any work and at the answer before anyone else. If it holds the
        answer, the ledger says ``held`` and why, ``arrays`` itself is returned, history and owners
        are left as they are, and the data stay out of training. A request that the operator has
        released is not held again.
    keep : callable or None
        ``keep(after, request, clean)`` writes down the model to go on with, before the deletion
        begins; ``clean`` is the history whose rounds will be there after it.

    Raises
    ------
    UnsupportedRequestError
        If the strategy does not serve it; the ledger then says ``refused``, or ``failed`` where it
        was unlearned before and a kill took the answer.
    RequestError
        If the guard refuses it; the ledger then says ``refused``.
    Exception
        Whatever the unlearning, the guard, the judge or the deletion raised; the ledger then says
        ``failed`` and why, and the data stay out of training all the same. The request can be
        served again, by another strategy as well.
    """
    facts = {"strategy": type(strategy).__name__, "guarantee": str(strategy.guarantee)}
    fault: BaseException | None = None
    with ledger.together():
        ledger.receive(request)
        state = ledger.state(request.id)
        is_made = request.id in history.served and state in ("unlearned", "deletion-pending")
        if state not in FINAL and not is_made:
            fault = _begin(request, strategy, arrays, ledger, guard, facts)
    if fault is not None:
        raise fault
    if state in FINAL:
        return arrays
    if is_made:
        finish(request, strategy, ledger)
        return arrays
    found: dict[str, object] = {}
    try:
        after = strategy.unlearn(request, history, arrays)
        reasons: tuple[str, ...] = ()
        if guard is not None:
            seen = guard.inspect(request, strategy.guarantee, arrays, after)
            after, reasons, found = seen.arrays, seen.reasons, dict(seen.facts)
            if guard.duplicates:
                found["duplicates"] = dict(strategy.overlap(request))
        metrics = dict(measure(arrays, after)) if measure is not None else {}
        if reasons and not ledger.is_released(request.id):
            strategy.discard()
            _hold(request, ledger, reasons, **facts, **found, metrics=metrics)
            return arrays
        if keep is not None:
            keep(after, request, strategy.rewritten or history)
        if is_same(arrays, after):
            found["unchanged"] = strategy.settled or True
        made = {**facts, "model_after": strategy.fingerprint(after), "metrics": metrics, **found}
        ledger.add(request.id, "unlearned", **made, rewritten=strategy.rewritten is not None)
        held = history.digests()
        if strategy.rewritten is not None:
            history.adopt(strategy.rewritten, request)
            strategy.discard()
        else:
            history.purge(request)
    except BaseException as error:
        strategy.discard()
        _fail(request, ledger, error, facts)
        raise
    finish(request, strategy, ledger, deleted=_deleted(held, history.digests()))
    return after


def _begin(
    request: Request,
    strategy: Unlearner,
    arrays: Arrays,
    ledger: Ledger,
    guard: Guard | None,
    facts: Mapping[str, object],
) -> BaseException | None:
    """Write down that a request is begun, or why it is not; return what was raised then."""
    try:
        if guard is not None:
            guard.check(request)
        strategy.check(request)
        options = strategy.options()
    except FedUnlearnError as error:
        if ledger.state(request.id) == "unlearned":  # once: a kill took the answer, and now it
            _fail(request, ledger, error, facts)  # cannot be given
        else:
            ledger.add(request.id, "refused", **facts, reason=str(error))
        return error
    except Exception as error:  # the strategy is at fault, not the request
        ledger.add(request.id, "started", **facts, model_before=strategy.fingerprint(arrays))
        _fail(request, ledger, error, facts)
        return error
    except BaseException as error:  # an interrupt; what was received stays so
        return error
    before = strategy.fingerprint(arrays)
    ledger.add(request.id, "started", **facts, options=options, model_before=before)
    return None


def finish(request: Request, strategy: Unlearner, ledger: Ledger, **facts: object) -> None:
    """Have the owners delete what a request names; it is fulfilled when all have confirmed.

    Parameters
    ----------
    request : Request
        Its model is made, and what the server held is deleted.
    strategy : Unlearner
        Reaches the owners.
    ledger : Ledger
        Says ``fulfilled`` afterwards, or ``deletion-pending`` and who has not confirmed.
    **facts : object
        Of the deletion at the server.
    """
    try:
        deletion = dict(strategy.dismiss(request))
    except InterruptedError:
        raise
    except Exception as error:
        ledger.add(
            request.id, "deletion-pending", **facts, reason=f"{type(error).__name__}: {error}"
        )
        return
    confirm(request, deletion, ledger, **facts)


def confirm(
    request: Request, deletion: Mapping[str, object], ledger: Ledger, **facts: object
) -> None:
    """Note who has confirmed a deletion; when all have, the request is fulfilled.

    Parameters
    ----------
    request : Request
        Its model is made.
    deletion : mapping
        Who ``acknowledged`` and who stayed ``unacknowledged``, and how many ``examples`` they hold.
    ledger : Ledger
        Says ``fulfilled`` afterwards, or ``deletion-pending`` where somebody new has confirmed.
    **facts : object
        Of the deletion at the server.
    """
    past = [event for event in ledger.events(request.id) if event.branch == ledger.branch]
    made = {
        name: value
        for event in past
        if event.event in ("unlearned", "deletion-pending")
        for name, value in event.facts.items()
        if name not in ("rewritten", "reason")
    }
    before = made.pop("deletion", {})
    pending = deletion.get("unacknowledged")
    if not pending:
        ledger.add(request.id, "fulfilled", **{**made, **facts}, deletion=deletion)
    elif deletion != before or facts:
        names = ", ".join(map(str, pending)) if isinstance(pending, list) else str(pending)
        reason = f"client {names} has not confirmed the deletion"
        ledger.add(request.id, "deletion-pending", **facts, deletion=deletion, reason=reason)


_LISTED = 20  # deleted files named one by one; a root over all of them stands beside


def _deleted(before: Files, after: Files) -> dict[str, object]:
    """Return which files are gone: their number, bytes, digests before, and a root over these."""
    kept = {digest for digest, _ in after.values()}
    gone = sorted((name, *found) for name, found in before.items() if found[0] not in kept)
    entries = [f"{digest}  {name}".encode() for name, digest, _ in gone]
    return {
        "files": len(gone),
        "bytes": sum(size for _, _, size in gone),
        "root": root_of(entries).hex(),
        "first": [entry.decode() for entry in entries[:_LISTED]],
    }


def _fail(
    request: Request, ledger: Ledger, error: BaseException, facts: Mapping[str, object]
) -> None:
    """Write down why a request was not served."""
    reason = str(error)  # what is written for users needs no kind
    if not isinstance(error, FedUnlearnError):
        reason = f"{type(error).__name__}: {error}"
    if isinstance(error, (KeyboardInterrupt, InterruptedError)):
        reason = f"{type(error).__name__}: interrupted; it is served when the run goes on"
    ledger.add(request.id, "failed", **facts, reason=reason)


def _hold(request: Request, ledger: Ledger, reasons: tuple[str, ...], **facts: object) -> None:
    """Write down why an answer is kept back."""
    ledger.add(request.id, "held", stage=ANSWER, reason="; ".join(reasons), **facts)

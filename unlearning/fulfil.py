"""The straight line: a request becomes a model without the data, and nothing of them is kept.

request -> ledger -> strategy.unlearn -> judgement -> deletion at the owners -> history -> ledger
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from unlearning.arrays import Arrays, digest
from unlearning.history import History
from unlearning.ledger import Ledger
from unlearning.request import Guarantee, Request

__all__ = ["Unlearner", "fulfil"]

Measure = Callable[[Arrays, Arrays], Mapping[str, float | None]]


class Unlearner(Protocol):
    """What this function needs of a strategy."""

    guarantee: ClassVar[Guarantee]
    rewritten: History | None

    def check(self, request: Request) -> None:
        """Refuse what cannot be served."""

    def options(self) -> dict[str, object]:
        """Return the options in force."""

    def unlearn(self, request: Request, history: History, arrays: Arrays) -> Arrays:
        """Return the model without what the request names."""

    def dismiss(self, request: Request) -> Mapping[str, object]:
        """Have the owners delete for good."""

    def discard(self) -> None:
        """Throw away what was rewritten."""


def fulfil(
    request: Request,
    strategy: Unlearner,
    arrays: Arrays,
    history: History,
    ledger: Ledger,
    measure: Measure | None = None,
) -> Arrays:
    """Serve one request and return the model to go on with.

    Parameters
    ----------
    request : Request
        What to forget. One that the ledger holds as fulfilled or refused is a no-op.
    strategy : Unlearner
        How to forget.
    arrays : Arrays
        The global model.
    history, ledger : History, Ledger
        The stores of the run; both are changed.
    measure : callable or None
        ``measure(before, after)`` judges the result; the strategy does not see it.

    Raises
    ------
    UnsupportedRequestError
        If the strategy does not serve it; the ledger then says ``refused``.
    Exception
        Whatever the unlearning raised; the ledger then says ``failed``, and the data stay out of
        training all the same.
    """
    ledger.receive(request)
    if ledger.state(request.id) in ("fulfilled", "refused"):
        return arrays
    facts = {"strategy": type(strategy).__name__, "guarantee": str(strategy.guarantee)}
    try:
        strategy.check(request)
    except Exception as error:
        ledger.add(request.id, "refused", **facts, reason=str(error))
        raise
    ledger.add(
        request.id, "started", **facts, options=strategy.options(), model_before=digest(arrays)
    )
    try:
        after = strategy.unlearn(request, history, arrays)
        metrics = dict(measure(arrays, after)) if measure is not None else {}
        deletion = strategy.dismiss(request)
    except BaseException as error:
        strategy.discard()
        ledger.add(request.id, "failed", **facts, reason=f"{type(error).__name__}: {error}")
        raise
    if strategy.rewritten is not None:
        history.adopt(strategy.rewritten)
        strategy.discard()
    else:
        history.purge(request)
    ledger.add(
        request.id,
        "fulfilled",
        **facts,
        model_after=digest(after),
        metrics=metrics,
        deletion=dict(deletion),
    )
    return after

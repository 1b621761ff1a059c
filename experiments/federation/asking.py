"""Whether scheduled requests make sense for the data that are there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from experiments.runs import admission
from experiments.runs.folder import FederationFacts
from unlearning.errors import RequestError
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request

__all__ = ["Data", "check", "without_ids"]


class Data(Protocol):
    """What is known of all clients' examples, where all of them are at hand."""

    def holds(self, request: Request) -> bool:
        """Return whether any client holds what a request names."""

    def leaves(self, forgotten: Forgotten) -> bool:
        """Return whether any example is left to train on."""


def check(requests: Iterable[Request], facts: FederationFacts, data: Data | None) -> None:
    """Refuse requests, served one after the other, that make no sense.

    Parameters
    ----------
    requests : iterable of Request
        In the order in which they are served.
    facts : FederationFacts
        Who takes part and what can be forgotten.
    data : Data or None
        None: who holds what is not known here.

    Raises
    ------
    RequestError
        For an unknown client, sample, class or task; for one that forgets nothing, or nothing
        that is still there; if no client or no example would be left.
    """
    ledger, gone = Ledger(), Forgotten()
    for request in requests:
        admission.check(request, facts, ledger)
        ledger.receive(request)
        gone = gone | request
        if data is not None and not data.holds(request):
            raise RequestError(f"{request.describe()}: no client holds such an example")
        if data is not None and not data.leaves(gone):
            raise RequestError(
                f"{request.describe()} would leave no example to train on; ask for less"
            )


def without_ids(data_set: str | None) -> RequestError:
    """Return the error of data whose records have no ids here; None: the sites keep them."""
    return RequestError(
        "records are named by their ids, and "
        + (
            "the sites keep theirs: a site asks with `fedunlearn site ask --records`"
            if data_set is None
            else f"data set {data_set!r} has none; name clients and samples"
        )
    )

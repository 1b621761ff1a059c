"""The life of a request, in one table: which event leads to which state, and what may follow.

    received -> waiting | refused | held        admitted, refused, held
    waiting  -> serving | held | refused        started
    held     -> waiting | serving               released
    serving  -> unlearned | held | failed       unlearned: the new model is kept
    unlearned -> deletion-pending | fulfilled   an owner has not confirmed yet
    deletion-pending -> fulfilled
    failed   -> serving                         asked again

A request that has not begun to be served can be withdrawn; its due date can be extended as long as
it is open. Every transition is one event of the ledger; a crash between any two goes on forwards.
"""

from __future__ import annotations

from unlearning.errors import LedgerError

__all__ = ["EVENTS", "FINAL", "FOR_ALL", "STATES", "check", "state_after"]

_LEADS_TO = {
    "received": "received",
    "admitted": "waiting",
    "refused": "refused",
    "held": "held",
    "released": "waiting",
    "started": "serving",
    "unlearned": "unlearned",
    "deletion-pending": "deletion-pending",
    "fulfilled": "fulfilled",
    "failed": "failed",
    "withdrawn": "withdrawn",
    "extended": None,  # a later due date changes no state
    "restarted": "received",  # a branch of a comparison that is begun anew: nothing of it counts
}
EVENTS = tuple(_LEADS_TO)
STATES = tuple(dict.fromkeys(state for state in _LEADS_TO.values() if state))

FINAL = ("refused", "fulfilled", "withdrawn")
FOR_ALL = ("received", "withdrawn", "extended")  # hold on every branch of a comparison

_MAY_FOLLOW = {
    "received": {"admitted", "refused", "held", "started", "failed", "withdrawn"},
    "waiting": {"refused", "held", "started", "failed", "withdrawn"},
    "held": {"released", "refused", "held", "started", "failed", "withdrawn"},
    "serving": {"started", "refused", "held", "unlearned", "fulfilled", "failed"},
    "unlearned": {"started", "deletion-pending", "fulfilled", "failed"},
    "deletion-pending": {"deletion-pending", "fulfilled"},
    "failed": {"started", "refused", "held", "failed", "withdrawn"},
}


def state_after(events: list[str]) -> str:
    """Return the state to which events lead, in their order.

    Examples
    --------
    >>> state_after(["received", "started", "unlearned", "extended"])
    'unlearned'
    """
    found = "received"
    for event in events:
        # On a branch that was served, a later word for all is too late.
        if found not in FINAL or event == "restarted":
            found = _LEADS_TO[event] or found
    return found


def check(event: str, events: list[str], what: str) -> None:
    """Refuse an event that cannot follow.

    Parameters
    ----------
    event : str
        The new one.
    events : list of str
        The ones before, in order.
    what : str
        The request (and branch), for the message.

    Raises
    ------
    LedgerError
        Saying what the request is and why the event cannot follow.
    """
    state = state_after(events)
    if state in FINAL:
        raise LedgerError(
            f"{what} was already {state}; {event!r} cannot follow, send a new request"
        )
    if event == "extended" or event in _MAY_FOLLOW[state]:
        return
    if event == "fulfilled":
        raise LedgerError(f"{what} cannot be fulfilled: never started")
    if event == "released":
        raise LedgerError(f"{what} cannot be released: it is {state}, not held")
    raise LedgerError(
        f"{what} is {state}; {event!r} cannot follow, only {', '.join(sorted(_MAY_FOLLOW[state]))}"
    )

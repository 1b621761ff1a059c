"""What is said of a request that is in the ledger: let it go, take it back, give it more time."""

from __future__ import annotations

from datetime import UTC, datetime

from experiments.runs.folder import COMPARE, RunFolder
from unlearning.errors import RequestError

__all__ = ["extend", "release", "withdraw"]


def release(folder: RunFolder, request_id: str, released_by: str) -> None:
    """Let a held request go: it is served next time, whatever the guard says.

    Raises
    ------
    LedgerError
        If the ledger does not know it, or it is not held.
    RequestError
        In a comparison, which is over when it can be looked at.
    """
    _check_is_no_comparison(folder, "released", "raise the limit under [guard] and compare again")
    with folder.open_ledger() as ledger:
        ledger.add(request_id, "released", released_by=released_by)


def withdraw(folder: RunFolder, request_id: str, reason: str) -> None:
    """Take a request back before it is served.

    Raises
    ------
    LedgerError
        If the ledger does not know it, or it is being served, or was.
    RequestError
        In a comparison; if no reason is given.
    """
    _check_is_no_comparison(folder, "withdrawn", "take it out of the config and compare again")
    if not reason.strip():
        raise RequestError("a request is withdrawn for a reason; say it")
    with folder.open_ledger() as ledger:
        ledger.add(request_id, "withdrawn", reason=reason)


def extend(folder: RunFolder, request_id: str, to: str, reason: str) -> datetime:
    """Give an open request a later due date, for a reason, and return it.

    Parameters
    ----------
    folder : RunFolder
        The run.
    request_id : str
        The request.
    to : str
        A day (its beginning, UTC) or a time, ISO 8601.
    reason : str
        For the ledger.

    Raises
    ------
    LedgerError
        If the ledger does not know it or it is over, the date is not later or later than
        ``promise.extension_days`` allows, or no reason is given.
    RequestError
        In a comparison; if ``to`` is no date.
    """
    _check_is_no_comparison(folder, "put off", "nobody waits for it")
    try:
        due = datetime.fromisoformat(to)
        due = due if due.tzinfo else due.replace(tzinfo=UTC)
        due.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"--to is {to!r}; give a day as 2026-12-31") from error
    with folder.open_ledger() as ledger:
        ledger.extend(request_id, due, reason)
    return due


def _check_is_no_comparison(folder: RunFolder, done: str, instead: str) -> None:
    if folder.read_federation().kind == COMPARE:
        raise RequestError(f"{folder.path} is a comparison; nothing is {done} there: {instead}")

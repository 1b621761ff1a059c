"""One event of a ledger, as it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from unlearning.records.book import Row

__all__ = ["Event"]


@dataclass(frozen=True)
class Event:
    """One line of the ledger.

    Parameters
    ----------
    seq : int
        Counted from 1, without gaps; the order of events, whatever the clocks say.
    utc : str
        ISO 8601 time of writing.
    request_id : str
        The request it is about.
    branch : str
        The branch of a comparison; empty: the federation itself.
    event : str
        One of ``EVENTS``.
    facts : mapping
        Plain JSON values; of ``received``, the request itself.
    previous, hash : str
        Hex SHA-256 of the event before (``GENESIS`` for the first) and of this one.
    """

    seq: int
    utc: str
    request_id: str
    branch: str
    event: str
    facts: Mapping[str, object]
    previous: str
    hash: str

    @staticmethod
    def of(row: Row) -> Event:
        """Return the event that a row of the book holds."""
        seq, utc, request_id, branch, event, facts, previous, own = row
        return Event(
            int(str(seq)), str(utc), str(request_id), str(branch), str(event),
            json.loads(str(facts)), str(previous), str(own),
        )  # fmt: skip

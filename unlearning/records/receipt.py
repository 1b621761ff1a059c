"""A receipt of a request: what the ledger says of it, signed, to be checked by anyone without us.

A receipt holds the events of one request as the ledger hashed them, for each the proof that it is
under the ledger's signed head, and a statement that is worked out from these events alone: whoever
checks works it out again. The file is the canonical form of its content, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from unlearning.errors import FedUnlearnError, LedgerError
from unlearning.records.book import Row, hash_of
from unlearning.records.head import Head
from unlearning.records.ledger import Ledger
from unlearning.records.merkle import root_of_proof
from unlearning.records.seal import Seal, canonical, fingerprint_of, is_signed_by
from unlearning.records.states import state_after
from unlearning.request import Request

__all__ = ["LIMITS", "Check", "check", "make", "parse", "state_of"]

_TAG = "fedunlearn-receipt-1"
_FIELDS = ("seq", "utc", "request_id", "branch", "event", "facts", "previous", "hash")

CLAIMS = {
    "exact": "the model has the distribution of one trained without the data",
    "certified": "the model is within a stated (epsilon, delta) of one trained without the data",
    "approximate": "nothing is proven: the effect was measured, as far as it is listed here",
    "suppressed": "the data's effect is hidden, the base of the model still holds it",
}
_LOST = "; it was lost before, and the operator has not said why"
LIMITS = (
    "that the operator kept no other copy of the data, of updates or of models",
    "that models delivered to others before the deletion were given back or destroyed",
    "that backups which the operator made outside the run folder were destroyed",
    "that the events happened as the operator's software wrote them down: it signs its own word",
    "that the model in use is the one whose digest stands here; compare the digests",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        In words.
    holds : bool
        Whether it is so.
    """

    what: str
    holds: bool


def make(ledger: Ledger, request_id: str, seal: Seal, made: datetime) -> bytes:
    """Return the receipt of a request as the bytes of its file.

    Parameters
    ----------
    ledger : Ledger
        With a file; its signed head goes in.
    request_id : str
        The request, whatever its state.
    seal : Seal
        The key of the run folder.
    made : datetime
        Now, with its time zone.

    Raises
    ------
    LedgerError
        If the request is unknown, or the ledger has no signed head.
    """
    rows, head = ledger.rows_of(request_id), ledger.signed_head
    if head is None:
        raise LedgerError(
            f"the ledger {ledger.path} has no signed head; one of an older format gets it when "
            "something is written to it"
        )
    events = [
        {
            **dict(zip(_FIELDS, row, strict=True)),
            "proof": [step.hex() for step in ledger.inclusion(int(str(row[0])))],
        }
        for row in rows
    ]
    cover = ledger.anchored()
    told = f"{cover.words}{_LOST if cover.fault else ''}".lstrip("; ")
    body = {
        "tag": _TAG,
        "made": made.isoformat(timespec="seconds"),
        "statement": _statement(rows),
        "events": events,
        "head": head.to_json(),
        "cannot_prove": list(LIMITS),
        "key": seal.public,
        **({"anchor": told} if told else {}),  # receipts from before know no such line
    }
    return canonical({**body, "signature": seal.sign(body)})


def parse(data: bytes) -> dict[str, Any]:
    """Return the content of a receipt's file.

    Raises
    ------
    LedgerError
        If it is no receipt.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        raise LedgerError(f"this is no receipt: {error}") from error
    if not isinstance(found, dict) or found.get("tag") != _TAG:
        raise LedgerError("this is no receipt: another kind of file")
    return found


def state_of(receipt: Mapping[str, Any]) -> str:
    """Return the state of the request in a receipt."""
    return str(receipt["statement"]["state"])


def check(data: bytes, public: str | None = None) -> list[Check]:
    """Return everything that can be checked of a receipt, with nothing but its bytes.

    Parameters
    ----------
    data : bytes
        Content of the file.
    public : str or None
        The operator's public key (hex) as it was given to the reader by another way.

    Raises
    ------
    LedgerError
        If it is no receipt at all.
    """
    found = parse(data)
    signed = {key: value for key, value in found.items() if key != "signature"}
    key, events = str(found.get("key")), found.get("events")
    checks = [
        Check("every byte of the file is the canonical form of its content", _is_canonical(data)),
        Check(
            "the receipt is signed by the key it names",
            is_signed_by(key, str(found.get("signature")), signed),
        ),
    ]
    if public is not None:
        checks.append(Check(f"that key is the given one ({_mark(public)})", key == public))
    try:
        head = Head.from_json(found.get("head"))
        rows, proofs = _rows(events)
    except (FedUnlearnError, KeyError, TypeError, ValueError) as error:
        return [*checks, Check(f"the ledger's part is readable ({error})", False)]
    under = all(
        hash_of(row[:7]) == row[7]
        and root_of_proof(str(row[7]).encode(), int(str(row[0])) - 1, head.size, path)
        == bytes.fromhex(head.root)
        for row, path in zip(rows, proofs, strict=True)
    )
    checks += [
        Check(
            f"the ledger's head ({head.size} events, {head.utc}) is signed by the same key",
            head.is_signed and head.key == key,
        ),
        Check(f"all {len(rows)} events of the request are in the ledger under that head", under),
        Check("the statement is what these events say", _says(rows, found.get("statement"))),
        Check("its limits are all listed", found.get("cannot_prove") == list(LIMITS)),
    ]
    return checks


def _mark(public: str) -> str:
    try:
        return fingerprint_of(public)
    except ValueError:
        return "not a key"


def _is_canonical(data: bytes) -> bool:
    try:
        return canonical(json.loads(data)) == data
    except (LedgerError, ValueError):
        return False


def _rows(events: object) -> tuple[list[Row], list[list[bytes]]]:
    if not isinstance(events, list) or not events:
        raise ValueError("there is no event")
    rows = [tuple(event[name] for name in _FIELDS) for event in events]
    return rows, [[bytes.fromhex(step) for step in event["proof"]] for event in events]


def _says(rows: Sequence[Row], statement: object) -> bool:
    try:
        return _statement(rows) == statement
    except (FedUnlearnError, KeyError, TypeError, ValueError):
        return False


def _statement(rows: Sequence[Row]) -> dict[str, Any]:
    """Return in plain words what the events of one request say."""
    events = [(str(row[4]), str(row[1]), json.loads(str(row[5]))) for row in rows]
    if not events or events[0][0] != "received":
        raise LedgerError("the events of a request begin with its reception")
    asked, state = events[0][2], state_after([name for name, _, _ in events])
    request = Request.from_json(asked)
    last = {name: facts for name, _, facts in events}
    ends = [utc for name, utc, _ in events if name == state]
    served = {**last.get("started", {}), **last.get("unlearned", {}), **last.get("fulfilled", {})}
    claim = str(served.get("guarantee", ""))
    dues = [str(facts["due"]) for _, _, facts in events if "due" in facts]
    deletion = served.get("deletion", {})
    return {
        "request": request.id,
        "asked_by": request.asked_by,
        "scope": request.scope.value,
        "forget": request.describe(),
        "received": events[0][1],
        "due": dues[-1] if dues else None,
        "extended_because": [str(f["reason"]) for n, _, f in events if n == "extended"],
        "done": ends[-1] if ends and state in ("fulfilled", "refused", "withdrawn") else None,
        "state": state,
        "reason": last.get(state, {}).get("reason"),
        "strategy": served.get("strategy"),
        "options": json.dumps(served.get("options", {}), sort_keys=True),
        "claim": claim or None,
        "claim_in_words": CLAIMS.get(claim),
        "measures": {k: v for k, v in served.get("metrics", {}).items() if v is not None},
        "not_measured": sorted(k for k, v in served.get("metrics", {}).items() if v is None),
        "verdict": served.get("verdict", "not measured"),
        "owners_confirmed": deletion.get("acknowledged", []),
        "owners_not_confirmed": deletion.get("unacknowledged", []),
        "deleted": served.get("deleted"),
        # Only where there are some: receipts from before know no such line.
        **({"residuals": deletion["residuals"]} if deletion.get("residuals") else {}),
        "duplicates": served.get("duplicates"),
        "model_before": served.get("model_before"),
        "model_after": served.get("model_after"),
    }

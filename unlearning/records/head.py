"""The signed head of a ledger: what it holds at a moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from unlearning.errors import LedgerError
from unlearning.records.seal import is_signed_by

__all__ = ["Head"]

_TAG = "fedunlearn-ledger-head-1"


@dataclass(frozen=True)
class Head:
    """What a ledger held at a moment.

    Parameters
    ----------
    ledger : str
        Its random name.
    size : int
        Number of events.
    root, last : str
        Hex: Merkle root over the hashes of the events, and the hash of the last.
    utc : str
        ISO 8601 time of signing.
    key : str
        The public key, hex of 32 bytes.
    signature : str
        Over all of the above, hex of 64 bytes.
    """

    ledger: str
    size: int
    root: str
    last: str
    utc: str
    key: str
    signature: str = ""

    def facts(self) -> dict[str, object]:
        """Return what is signed."""
        found = dict(vars(self))
        del found["signature"]
        return {"tag": _TAG, **found}

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {**self.facts(), "signature": self.signature}

    @staticmethod
    def parse(text: str) -> Head:
        """Return the head that a text holds.

        Raises
        ------
        LedgerError
            If it is none.
        """
        try:
            return Head.from_json(json.loads(text))
        except ValueError as error:
            raise LedgerError(f"it is no head of a ledger: {error}") from error

    @staticmethod
    def from_json(value: object) -> Head:
        """Return the head that :meth:`to_json` wrote.

        Raises
        ------
        LedgerError
            If it is none.
        """
        if not isinstance(value, Mapping) or value.get("tag") != _TAG:
            raise LedgerError("it is no head of a ledger")
        kinds = {name: value.get(name) for name in Head.__dataclass_fields__}
        size = kinds.pop("size")
        if type(size) is not int or any(not isinstance(text, str) for text in kinds.values()):
            raise LedgerError("it is no head of a ledger")
        return Head(size=size, **{name: str(text) for name, text in kinds.items()})

    @property
    def is_signed(self) -> bool:
        """Whether the signature fits the facts and the key that they name."""
        return is_signed_by(self.key, self.signature, self.facts())

"""An anchor: a file elsewhere that gets a line with every signed head.

Several ledgers may share one: each reads its own lines. A line that a full disk or a kill has cut
off is passed over, and the next one begins a line of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from unlearning.errors import LedgerError
from unlearning.records.head import Head

__all__ = ["CHANGED", "Anchor"]

# What a ledger may find in place of its own heads.
_MISSING, _EMPTY, _FOREIGN = "missing", "empty", "without a head of this ledger"
_LATE, CHANGED = "without its beginning", "changed, or not to be read,"


class Anchor:
    """The file at ``path``, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        """Return where it lies."""
        return str(self.path)

    @property
    def is_there(self) -> bool:
        """Whether there is something at its path that can be seen."""
        return os.path.exists(self.path)

    def append(self, head: Head) -> None:
        """Add a line, and flush it to the disk; OSError if that fails."""
        text = json.dumps(head.to_json(), sort_keys=True) + "\n"
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def heads(self, ledger: str) -> list[Head]:
        """Return the heads of one ledger, by its name, in order.

        Raises
        ------
        LedgerError
            If the file cannot be read or a line was changed.
        """
        return [head for head in self._all() if head.ledger == ledger]

    def fault(self, ledger: str, begun: int | None) -> str:
        """Return what is wrong with it as far as its first head tells; nothing: it is sound.

        Parameters
        ----------
        ledger : str
            The name of the ledger.
        begun : int or None
            How many events its first head may cover at most; None: nobody noted that.
        """
        if not self.is_there:
            return _MISSING
        try:
            first = next((head for head in self._all() if head.ledger == ledger), None)
            if first is None:
                return _FOREIGN if self.path.stat().st_size else _EMPTY
        except (LedgerError, OSError):
            return CHANGED
        return _LATE if begun is not None and first.size > begun else ""

    def first(self, ledger: str) -> int:
        """Return how many events the first head of a ledger covers; 0: there is none."""
        return next((head.size for head in self._all() if head.ledger == ledger), 0)

    def _all(self) -> Iterator[Head]:
        try:
            with self.path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    found = self._parsed(line, number)
                    if found is not None:
                        yield found
        except (OSError, UnicodeDecodeError) as error:
            raise LedgerError(f"the anchor {self.path} cannot be read: {error}") from error

    def _parsed(self, line: str, number: int) -> Head | None:
        """Return the head on a line; None: it was cut off while it was written."""
        if not line.strip():
            return None
        try:
            found = Head.parse(line)
        except LedgerError as error:
            if not line.rstrip("\n").endswith("}"):
                return None
            raise LedgerError(f"line {number} of the anchor {self.path}: {error}") from error
        if not found.is_signed:
            raise LedgerError(
                f"line {number} of the anchor {self.path} is not signed by the key it names: it "
                "was changed"
            )
        return found

"""Signed heads of a ledger: what it holds at a moment, kept where a cut ledger cannot reach.

A head names the ledger, the number of its events, the Merkle root over their hashes and the hash of
the last one, signed with the run folder's own key. It stands in the ledger, in ``ledger.head``
beside it and, one line per event, in an anchor that may lie on another machine. Whoever can read
the private key and write all three can still forge; an anchor out of their reach tells.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from unlearning.errors import LedgerError, StorageError
from unlearning.records.anchor import Anchor
from unlearning.records.files import room, write_atomically
from unlearning.records.head import Head
from unlearning.records.merkle import Tree
from unlearning.records.seal import Seal

__all__ = ["Head", "Heads"]

log = logging.getLogger("fedunlearn")

_SECTOR = 512  # bytes that a disk writes whole or not at all; a head is shorter


class Heads:
    """The key of a ledger, and the places outside it where its head is kept.

    Parameters
    ----------
    ledger : Path
        The ledger's file; key, public key and head lie beside it under its name.
    anchor : Path or None
        A file, at best on another machine, that gets a line with every head.
    """

    def __init__(self, ledger: Path, anchor: Path | None = None) -> None:
        self.key = ledger.with_suffix(".key")
        self.public = ledger.with_suffix(".pub")
        self.file = ledger.with_suffix(".head")
        self.anchor = None if anchor is None else Anchor(anchor)
        self._lock = ledger.with_name(f".{ledger.stem}.lock")
        self._seal: Seal | None = None
        self._written = b""  # what this process has put into the file last

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other processes from writing ledger and head until the block ends."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LedgerError(
                f"cannot write beside {self.file}: {error.strerror}{room(self.file)}; remove the "
                "cause and run it again"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def check_free(self, place: str) -> None:
        """Refuse to begin a ledger anew where one was.

        Raises
        ------
        LedgerError
            If a head vouches for one that is gone.
        """
        if self.file.exists():
            raise LedgerError(
                f"{place} is missing, but {self.file.name} beside it vouches for one; restore it "
                "from a backup"
            )

    def seal(self, *, is_new: bool) -> Seal:
        """Return the key, a new one where the ledger is new."""
        if self._seal is None:
            wanted = is_new and not self.key.exists()
            self._seal = Seal.make(self.key) if wanted else Seal.read(self.key)
            if is_new and not self.public.exists():  # the disk was full between the two
                self._seal.write_public(self.public)
        return self._seal

    def renew(self) -> tuple[str, str]:
        """Make another key; the old files stay beside it. Return the old and the new public key."""
        before = ""
        if self.public.exists():
            from unlearning.records.seal import fingerprint_of, read_public

            before = read_public(self.public)
            mark = fingerprint_of(before)[:8]
            os.replace(self.public, self.public.with_name(f"{self.public.stem}-{mark}.pub"))
            if self.key.exists():
                os.replace(self.key, self.key.with_name(f"{self.key.stem}-{mark}.key"))
        self._seal = Seal.make(self.key)
        return before, self._seal.public

    def sign(self, ledger: str, tree: Tree, last: str, utc: str, *, is_new: bool) -> Head:
        """Return the signed head of a tree."""
        seal = self.seal(is_new=is_new)
        bare = Head(ledger, tree.size, tree.root.hex(), last, utc, seal.public)
        return replace(bare, signature=seal.sign(bare.facts()))

    def write(self, head: Head) -> None:
        """Keep a head in the file and in the anchor; a newer one is not replaced.

        Raises
        ------
        LedgerError
            If the file cannot be written. The event stands, and the next head makes up for it; but
            whoever takes that for a fault of one request would put off what can be served at once.
        """
        text = _text(head)
        if not _overwritten(self.file, self._written, text):
            known = self.read()
            if known is None or known.size <= head.size:
                try:
                    write_atomically(self.file, text)
                except StorageError as error:
                    raise LedgerError(str(error)) from error
            else:
                text = b""
        self._written = text
        if self.anchor is None:
            return
        try:
            self.anchor.append(head)
        except OSError as error:  # the event stands; verify tells how far the anchor reaches
            log.warning("the anchor %s cannot be written: %s", self.anchor, error.strerror)

    def read(self) -> Head | None:
        """Return the head in the file, None if it is missing or damaged."""
        before, data = b"", b" "
        try:
            while data != before:  # another process may be writing to it
                before, data = data, self.file.read_bytes()
            head = Head.parse(data.decode())
        except (OSError, ValueError, LedgerError):
            return None
        # One head has one spelling, and one that older versions wrote: no byte can be changed.
        return head if data in (_text(head), _text(head).rstrip()) else None


def _text(head: Head) -> bytes:
    """Return a head as the line that the file holds, as long as a sector."""
    text = json.dumps(head.to_json(), sort_keys=True)
    return f"{text:<{_SECTOR - 1}}\n".encode()


def _flush(descriptor: int) -> None:
    """Flush the content of a file that is as long as it was."""
    flush = getattr(os, "fdatasync", os.fsync)  # macOS has the dearer one alone
    flush(descriptor)


def _overwritten(path: Path, before: bytes, after: bytes) -> bool:
    """Overwrite a file of one sector that holds ``before``; return whether that was done.

    A kill or a loss of power leaves the old one or the new one, as with a new file that takes its
    name, at a fifth of the cost: neither the folder nor the place on the disk changes.
    """
    if not len(before) == len(after) == _SECTOR:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
        try:
            if os.pread(descriptor, _SECTOR + 1, 0) != before:
                return False
            done = os.pwrite(descriptor, after, 0) == _SECTOR
            _flush(descriptor)
        finally:
            os.close(descriptor)
    except OSError:  # then in the other way, which says what is wrong
        return False
    return done

"""Errors that a user can cause: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "FedUnlearnError",
    "FederationError",
    "HistoryError",
    "LedgerError",
    "RequestError",
    "RoundError",
    "StorageError",
    "UnsupportedRequestError",
    "unknown",
]


class FedUnlearnError(Exception):
    """Base of every error whose message is meant for the user: one line, no traceback."""


class ConfigError(FedUnlearnError):
    """A setting is missing, unknown, of the wrong type or out of range."""


class RequestError(FedUnlearnError):
    """A request names something that does not exist or must not be forgotten."""


class UnsupportedRequestError(RequestError):
    """The chosen strategy does not serve requests of this scope."""


class HistoryError(FedUnlearnError):
    """What training recorded is missing, incomplete or damaged."""


class StorageError(FedUnlearnError, OSError):
    """A file cannot be written: the disk is full, read-only or broken; the old content stays.

    Parameters
    ----------
    fault : OSError
        What the system said.
    path : str
        Where.
    needed, free : int or None
        Bytes that were to be written, and that are free there; None: nobody knows.
    """

    def __init__(
        self, fault: OSError, path: str, needed: int | None = None, free: int | None = None
    ) -> None:
        super().__init__(fault.errno, fault.strerror or str(fault), path)
        known = None not in (needed, free)
        self._room = f" ({needed} bytes were needed, {free} are free)" if known else ""
        self.remedy = "remove the cause and run it again"
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            self.remedy = "make room and run it again"

    def __str__(self) -> str:
        """Return one line."""
        return f"cannot write {self.filename}: {self.strerror}{self._room}; {self.remedy}"


class LedgerError(FedUnlearnError):
    """The ledger's chain of events is broken or was written by another version."""


class FederationError(FedUnlearnError):
    """The federation cannot go on: too few clients, no valid reply, a deadline passed."""


class RoundError(FederationError):
    """A round gave nothing that could be used; asked again, it may."""


def _words(name: str) -> list[str]:
    """Return the words of a name, sorted: who swaps two of them means the same name."""
    return sorted(filter(None, re.split(r"[\W_]+", name.lower())))


def unknown(kind: str, value: object, known: Iterable[object]) -> str:
    """Return one sentence: the unknown ``value``, the nearest known one, all known ones.

    Parameters
    ----------
    kind : str
        What is looked up, for example ``"strategy"``.
    value : object
        What the user gave.
    known : iterable of object
        What would have been accepted.
    """
    names = [str(name) for name in known]
    same = [name for name in names if _words(name) == _words(str(value))]
    near = same or difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {value!r}{hint} (known: {', '.join(names) or 'none'})"

"""A mistake in a hook is told its author in one line: which strategy, which error, which place."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from unlearning.errors import FederationError, FedUnlearnError

__all__ = ["told_to_author"]

_OURS = frozenset({"strategies", "unlearning", "clients", "experiments", "fedunlearn"})


@contextmanager
def told_to_author(kind: type) -> Iterator[None]:
    """Say in words, and where, what a hook of the strategy ``kind`` has done wrong.

    An error that does not come out of a strategy of one's own is a fault of ours and passes as it
    is, as does what a disk or a database says to this library under such a hook.

    Raises
    ------
    FederationError
        Instead of the error.
    """
    try:
        yield
    except (FedUnlearnError, InterruptedError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and "read-only" in str(error):
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise FederationError(
                f"{kind.__name__} writes to an array that it was given "
                f"{_place(last.filename, last.lineno, last.name)}; let it return new ones"
            ) from error
        found = list(traceback.walk_tb(error.__traceback__))
        own = [at for at, (frame, _) in enumerate(found) if _module(frame) in _own(kind)]
        if not own:
            raise
        if isinstance(error, OSError | sqlite3.Error) and any(
            _package(_module(frame)) in _OURS for frame, _ in found[own[-1] :]
        ):
            raise
        frame, line = found[own[-1]]
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        where = _place(frame.f_code.co_filename, line, frame.f_code.co_name)
        raise FederationError(f"{kind.__name__} raised {said} {where}; correct it") from error


def _own(kind: type) -> set[str]:
    """Return the modules of a strategy and its bases that are not of this library."""
    modules = {base.__module__ for base in kind.__mro__}
    return {name for name in modules if _package(name) not in {*_OURS, "flwr", "abc", "builtins"}}


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _place(file: str, line: int | None, function: str) -> str:
    return f"({Path(file).name}, line {line}, in {function})"

"""The words that made a run, for its report."""

from __future__ import annotations

import shlex
import sys

__all__ = ["command_line"]


def command_line() -> str:
    """Return the command that this process was started with, as it is typed in a shell."""
    return shlex.join(["fedunlearn", *sys.argv[1:]])

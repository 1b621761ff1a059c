"""The words that made a run, for its report."""

from __future__ import annotations

import shlex
import sys

__all__ = ["command_line"]

_SECRET = "--token"  # Flower hands its ServerApp one; with it anybody speaks for the run


def command_line() -> str:
    """Return the command that this process was started with, as it is typed in a shell.

    What Flower starts is told without its token.
    """
    words = ["fedunlearn", *sys.argv[1:]]
    for place, word in enumerate(words):
        if word == _SECRET and place + 1 < len(words):
            words[place + 1] = "..."
        elif word.startswith(f"{_SECRET}="):
            words[place] = f"{_SECRET}=..."
    return shlex.join(words)

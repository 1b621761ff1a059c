"""Run one command of the build whose worktree this is; for builds of either layout.

Arguments: those of ``fedunlearn``; ``{home}`` in them becomes a folder that is removed afterwards.
"""

import json
import sys
import time
from tempfile import TemporaryDirectory

BEGUN = time.perf_counter()

from experiments.cli import app  # noqa: E402 - the clock runs while it imports


def main(arguments: list[str]) -> None:
    """Print the exit code, ``code``, and wall seconds with imports, ``wall_s``."""
    with TemporaryDirectory() as home:
        sys.argv = ["fedunlearn", *(one.replace("{home}", home) for one in arguments)]
        code: object = 0
        try:
            app()
        except SystemExit as left:
            code = left.code or 0
        wall = time.perf_counter() - BEGUN
    if code:
        sys.exit(f"fedunlearn {' '.join(arguments)} ended with {code}")
    print(json.dumps({"code": code, "wall_s": wall}))


if __name__ == "__main__":
    main(sys.argv[1:])

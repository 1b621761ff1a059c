"""Learn with a large network; print what the server takes per message; for builds of either layout.

Arguments: those of ``fedunlearn run`` behind the config; ``{home}`` in them becomes a folder that
is removed afterwards. Clients answer in this process, through messages, and what they take is left
out: judging, messages, history and the mean are left.
"""

import json
import sys
import time
from importlib import import_module, util
from tempfile import TemporaryDirectory
from typing import Any

from flwr.app import MessageType

from experiments.cli import app

_ROOMS = util.find_spec("experiments.federation") is not None
_grids: Any = import_module("experiments.federation.grids" if _ROOMS else "experiments.grids")


class _Clock:
    """CPU seconds from the first message that asks to train to the end of the last one."""

    def __init__(self) -> None:
        self.begun = self.ended = self.clients = 0.0
        self.messages = 0

    def watch(self, grid: Any) -> None:
        """Look at every message that a grid has answered."""
        answer = grid._answer

        def watched(own: Any, message: Any) -> Any:
            if message.metadata.message_type != MessageType.TRAIN:
                return answer(own, message)
            before = time.process_time()
            self.begun = self.begun or before
            reply = answer(own, message)
            self.ended = time.process_time()
            self.clients += self.ended - before
            self.messages += 1
            return reply

        grid._answer = watched


def main(arguments: list[str]) -> None:
    """Print ``server_s``, CPU seconds per message, and how many ``messages`` there were."""
    clock = _Clock()
    clock.watch(_grids.LocalGrid)
    with TemporaryDirectory() as home:
        sys.argv = ["fedunlearn", *(one.replace("{home}", home) for one in arguments)]
        code: object = 0
        try:
            app()
        except SystemExit as left:
            code = left.code or 0
    if code:
        sys.exit(f"fedunlearn {' '.join(arguments)} ended with {code}")
    spent = clock.ended - clock.begun - clock.clients
    print(json.dumps({"server_s": spent / clock.messages, "messages": clock.messages}))


if __name__ == "__main__":
    main(sys.argv[1:])

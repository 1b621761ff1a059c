"""Learn with many clients, and print CPU seconds per round; for builds of either layout.

Arguments, as one JSON object: ``config``, ``changes``, ``rounds``. History and ledger lie on disk,
as in a run; clients answer in this process, through messages.
"""

import json
import sys
import time
from importlib import import_module, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_record
from unlearning.protocol import Wire


def _either(here: str, before: str) -> Any:
    """Return a module of today's layout, or of the flat one of earlier builds."""
    package = import_module(here.partition(".")[0])
    room = here.split(".")[1]
    there = util.find_spec(f"{package.__name__}.{room}")
    has_rooms = there is not None and there.submodule_search_locations is not None
    return import_module(here if has_rooms else before)


_loading = _either("experiments.config.loading", "experiments.config")
_tasks = _either("experiments.federation.task", "experiments.tasks")
_grids = _either("experiments.federation.grids", "experiments.grids")
_clients = _either("experiments.federation.participants", "experiments.app")
_history = _either("unlearning.records.history", "unlearning.history")
_ledger = _either("unlearning.records.ledger", "unlearning.ledger")


def main(config: str, changes: list[str], rounds: int) -> None:
    """Print ``round_s``, CPU seconds of a round after the first, and ``history_bytes``."""
    loaded = _loading.load(Path(config), changes)
    made = _tasks.task(_tasks.Scenario.of(loaded))
    with TemporaryDirectory() as home:
        grid = (
            _clients.in_process("stacked", len(made.clients))
            if hasattr(_clients, "in_process")
            else _grids.LocalGrid(_clients.client_app, len(made.clients))
        )
        federation = Federation(
            seed=loaded.seed,
            history=_history.History(Path(home) / "history", keep=("globals", "updates")),
            ledger=_ledger.Ledger(Path(home) / "ledger.sqlite"),
            train=loaded.train.model_dump(exclude={"fraction"}),
            recovery_rounds=0,
            client_config={
                Wire.SCENARIO: made.scenario.to_json(),
                Wire.DEVICE: "cpu",
                Wire.HOME: str(Path(home) / "clients"),
            },
        )
        federation.roster = Roster.discover(
            grid, len(made.clients), federation.client_config, timeout_s=600, window=64
        )
        federation.history.start(made.initial())
        marks: list[float] = []

        class Timed(UnlearningStrategy):
            """Notes the time at which every round begins."""

            def configure_train(self, *given: Any, **named: Any) -> Any:
                marks.append(time.process_time())
                return super().configure_train(*given, **named)

        learning = Timed()
        learning.join(federation)
        learning.start(grid, to_record(federation.history.initial), num_rounds=rounds + 1)
        marks.append(time.process_time())
        kept = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file())
    # The first round also builds every client: it is none of those that follow.
    print(json.dumps({"round_s": (marks[-1] - marks[1]) / rounds, "history_bytes": kept}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

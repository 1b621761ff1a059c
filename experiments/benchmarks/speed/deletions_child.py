"""Learn, forget some samples one by one, print CPU seconds; for builds of either layout.

Arguments, as one JSON object: ``config``, ``changes``, ``strategy``, ``count`` and, where that
strategy needs more of the past, ``keep``. Run by
:func:`experiments.benchmarks.speed.clock.child` in the worktree of the build. History and ledger
lie on disk, as in a run; clients answer in this process, through messages.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.fulfil import fulfil
from unlearning.protocol import Wire
from unlearning.request import Request, Scope


def _either(here: str, before: str) -> Any:
    """Return a module of today's layout, or of the flat one of earlier builds."""
    package = import_module(here.partition(".")[0])
    room = here.split(".")[1]
    there = util.find_spec(f"{package.__name__}.{room}")
    has_rooms = there is not None and there.submodule_search_locations is not None
    return import_module(here if has_rooms else before)


_loading = _either("experiments.config.loading", "experiments.config")
_registry = _either("experiments.config.registry", "experiments.registry")
_tasks = _either("experiments.federation.task", "experiments.tasks")
_grids = _either("experiments.federation.grids", "experiments.grids")
_clients = _either("experiments.federation.participants", "experiments.app")
_history = _either("unlearning.records.history", "unlearning.history")
_ledger = _either("unlearning.records.ledger", "unlearning.ledger")


def main(
    config: str, changes: list[str], strategy: str, count: int, keep: Sequence[str] = ()
) -> None:
    """Print CPU seconds of learning, ``learn_s``, and of each request, ``deletions_s``.

    And the bytes on the disk after each, ``history_bytes``.
    """
    loaded = _loading.load(Path(config), changes)
    made = _tasks.task(_tasks.Scenario.of(loaded))
    with TemporaryDirectory() as home:
        grid = _grids.LocalGrid(_clients.client_app, len(made.clients))
        federation = Federation(
            seed=loaded.seed,
            history=_history.History(
                Path(home) / "history", **({"keep": tuple(keep)} if keep else {})
            ),
            ledger=_ledger.Ledger(Path(home) / "ledger.sqlite"),
            train=loaded.train.model_dump(exclude={"fraction"}),
            recovery_rounds=0,
            model=made.array_model,
            client_config={
                Wire.SCENARIO: made.scenario.to_json(),
                Wire.DEVICE: "cpu",
                Wire.HOME: str(Path(home) / "clients"),
            },
        )
        federation.roster = Roster.discover(
            grid, len(made.clients), federation.client_config, timeout_s=60
        )
        federation.history.start(made.initial())
        learning = UnlearningStrategy()
        learning.join(federation)
        begun = time.process_time()
        result = learning.start(
            grid, to_record(federation.history.initial), num_rounds=loaded.rounds
        )
        arrays, learned = to_arrays(result.arrays), time.process_time() - begun
        taken, sizes = [], []
        for request in requests(made, count):
            begun = time.process_time()
            answering = _registry.make(strategy, loaded.options_for(strategy))
            answering.join(federation)
            arrays = fulfil(request, answering, arrays, federation.history, federation.ledger)
            taken.append(time.process_time() - begun)
            sizes.append(size_of(Path(home)))
    print(json.dumps({"learn_s": learned, "deletions_s": taken, "history_bytes": sizes}))


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a folder; what has several names counts once."""
    found = {
        path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    return sum(found.values())


def requests(made: Any, count: int) -> Iterator[Request]:
    """Yield requests for one sample each, which a seed decides."""
    generator = np.random.default_rng(0)
    sizes = made.facts().clients
    pairs = [(client, at) for client, size in sizes.items() for at in range(size)]
    for pick in generator.permutation(len(pairs))[:count]:
        client, at = pairs[pick]
        yield Request(Scope.SAMPLE, samples={client: (at,)})


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

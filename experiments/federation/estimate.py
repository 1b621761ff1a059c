"""What a run will take up before it begins: bytes of history and messages, and room on the disk."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.config.loading import Config
from experiments.config.registry import make
from experiments.federation.founding import Site, found_federation, start
from experiments.federation.quiet import quiet
from experiments.federation.rehearsal import DEPTHS, Plan, rehearsed
from experiments.federation.task import Scenario, Task, task
from strategies.base import UnlearningStrategy
from unlearning.errors import ConfigError
from unlearning.records.ledger import Ledger

__all__ = ["Sizes", "check_room", "estimated"]

_MEASURED = DEPTHS[0]  # rounds, before the first rehearsal

_WIDTH = {"float32": 1.0, "float16": 0.5}  # of a stored update, beside one of float32
_SLACK = 1.1  # checkpoints, file systems round up
# Of the index: when it is empty, for a stored file, for a participant of a round.
_INDEX, _PER_FILE, _PER_PARTICIPANT = 32_768, 330, 50


@dataclass(frozen=True)
class Sizes:
    """Bytes, worked out from the config.

    Parameters
    ----------
    model : int
        One model.
    round_history : int
        What one round adds to the history.
    history : int
        The history of all rounds at one seed, its index too; a fork for a rewritten one shares
        its files.
    round_messages : int
        Models and updates sent in one round, both ways.
    clients_per_round : int
        Clients that train in a round.
    """

    model: int
    round_history: int
    history: int
    round_messages: int
    clients_per_round: int

    @classmethod
    def of(cls, config: Config, task: Task, needs: Collection[str]) -> Sizes:
        """Return the sizes of a run whose strategies need some columns of the history."""
        model = sum(array.nbytes for array in task.initial().values())
        per_round = max(1, round(config.train.fraction * len(task.clients)))
        kept = model if "globals" in needs else 0
        if "updates" in needs:
            kept += round(per_round * model * _WIDTH[config.history.dtype])
        rounds = -(-config.rounds // config.history.interval) + config.recovery_rounds
        once = model * (1 + (len(task.clients) if "contributions" in needs else 0))
        files = rounds * (("globals" in needs) + per_round * ("updates" in needs))
        learned = config.rounds + config.recovery_rounds
        index = _INDEX + _PER_FILE * files + _PER_PARTICIPANT * per_round * learned
        return cls(model, kept, kept * rounds + once + index, 2 * per_round * model, per_round)


def check_room(sizes: Sizes, out: Path) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    ConfigError
        Saying what is needed and what is free.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, round(_SLACK * sizes.history)
    if needed > free:
        raise ConfigError(
            f"the history will take about {needed / 1e9:.1f} GB and {place} has {free / 1e9:.1f} "
            "GB free; set history.interval or history.dtype, choose another --out, or say --anyway"
        )


def estimated(
    config: Config, strategies: Sequence[str] | None = None
) -> dict[str, int | float | str]:
    """Return what a run will take: sizes from its config, time from a rehearsal in this process.

    Parameters
    ----------
    config : Config
        All settings.
    strategies : sequence of str, optional
        Aliases or ``module:Class``; default: ``strategy`` of the config, or what a comparison by it
        runs where it names none.

    Returns
    -------
    dict
        Bytes, rounds and seconds by name; of every strategy the seconds of its unlearning, of its
        recovery and of a whole run. A strategy that cannot answer after six rounds has a reason in
        the place of seconds. Not counted: judging, the report, several seeds, requests that come in
        by themselves, the guard's looks, waiting for slow or absent clients. Requests are taken to
        be like the first. On Ray the rounds are shared by ``engine.workers`` processes and each
        message costs a few milliseconds more.
    """
    from experiments.federation.grids import LocalGrid
    from experiments.federation.participants import client_app

    made = {n: make(n, config.options_for(n)) for n in strategies or _named(config)}
    found = task(Scenario.of(config, config.seed))
    sizes = Sizes.of(config, found, frozenset[str]().union(*(one.needs for one in made.values())))
    with tempfile.TemporaryDirectory(prefix="fedunlearn-") as place:
        site = Site(config, found, Path(place), lambda: False)
        grid = LocalGrid(client_app, len(found.clients))
        federation = found_federation(site, grid, made.values(), Path(place) / "homes", Ledger())
        begun = time.perf_counter()
        with quiet("flwr", "fedunlearn"):
            arrays = start(UnlearningStrategy(), grid, federation, found.initial(), _MEASURED)
            round_s = (time.perf_counter() - begun) / _MEASURED
            plans = rehearsed(site, grid, federation, arrays, made) if config.requests else {}
        federation.history.close()
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "model_bytes": sizes.model,
        "history_bytes_per_round": sizes.round_history,
        "history_bytes": sizes.history,
        "message_bytes_per_round": sizes.round_messages,
        "messages_per_round": 2 * sizes.clients_per_round,
        "rounds": config.rounds + config.recovery_rounds,
        "seconds_per_round": round(round_s, 4),
        "seconds_of_learning": round(round_s * config.rounds, 1),
        **_seconds(plans, round_s, config.rounds),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def _named(config: Config) -> tuple[str, ...]:
    """Return the strategies that a config names; one that names none has a default."""
    own = "strategy" in config.model_fields_set or not config.strategies
    return (config.strategy,) if own else config.strategies


def _seconds(plans: Mapping[str, Plan], round_s: float, rounds: int) -> dict[str, float | str]:
    """Return by name what every strategy takes, alone and with the learning before it."""
    out: dict[str, float | str] = {}
    for name, plan in plans.items():
        if plan.unlearning_s is None:
            out[f"seconds_of_unlearning_by_{name}"] = f"not known: {plan.why}"
            continue
        recovery = round_s * plan.recovery_rounds
        out[f"seconds_of_unlearning_by_{name}"] = round(plan.unlearning_s, 1)
        out[f"seconds_of_recovery_by_{name}"] = round(recovery, 1)
        out[f"seconds_in_all_by_{name}"] = round(round_s * rounds + plan.unlearning_s + recovery, 1)
    return out

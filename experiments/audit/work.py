"""One job of an audit: a federation learns, strategies answer, every model leaves its trace."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.audit.jobs import Done, Job, Model
from experiments.audit.plan import dose_request
from experiments.audit.store import TraceStore
from experiments.audit.traces import Tracer
from experiments.config.loading import Config, alias_of
from experiments.config.registry import make
from experiments.federation.conduct import Conductor
from experiments.federation.participants import in_process
from experiments.federation.party import Party
from experiments.federation.quiet import quiet
from experiments.federation.task import Scenario, task
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import FederationError
from unlearning.records.ledger import Ledger

__all__ = ["work"]


def work(config: Config, names: Sequence[str], job: Job, root: Path | None = None) -> Done:
    """Make the models of a job and keep their traces.

    Parameters
    ----------
    config : Config
        A settled one.
    names : sequence of str
        Strategies by alias or ``module:Class``; roles bear their aliases.
    job : Job
        What to make.
    root : Path or None
        Of the trace store; None: the usual one.

    Raises
    ------
    FedUnlearnError
        If a control cannot be made.
    """
    store, seeded = TraceStore(root), _here(config, job.seed)
    made = task(Scenario.of(seeded))
    requests = made.scheduled(seeded)
    tracer = Tracer(made, requests, config.train, config.device)
    grid = in_process(seeded.engine.grid, len(made.clients))
    keys = dict(job.models)

    def keep(role: str, arrays: Arrays, costs: Mapping[str, Cost]) -> None:
        if (key := keys.get(Model(role, job.seed))) is not None:
            times = {phase: cost.wall_s for phase, cost in costs.items()}
            store.put(key, tracer.trace(arrays, costs), times)

    failures: list[tuple[str, str]] = []
    with quiet("flwr", "fedunlearn"), tempfile.TemporaryDirectory(prefix="fedunlearn-") as home:
        conductor = Conductor(
            seeded, made, Path(home), Ledger(), lambda _: None, lambda: False, glances=False
        )
        if job.strategies:
            full = {alias_of(name): name for name in names}
            serving = [full.get(role, role) for role in job.strategies if role != ORIGINAL]
            strategies = {name: make(name, seeded.options_for(name)) for name in serving}
            for found in conductor.compare(grid, strategies, onward=ORIGINAL in job.strategies):
                if isinstance(found, Party):
                    keep(found.strategy, found.arrays, found.costs)
                elif found.strategy in (RETRAIN, FINE_TUNE):
                    raise FederationError(f"{found.strategy} failed: {found.reason}")
                else:
                    failures.append((found.name, f"seed {found.seed}: {found.reason}"))
        for percent in job.doses:
            gone = dose_request(made, requests, percent)
            keep(Model.dosed(percent, job.seed).role, conductor.without(grid, gone), {})
    return Done(job, tuple(failures))


def _here(config: Config, seed: int) -> Config:
    """Return a config with a seed of its own, carried out in this process: side by side if it can.

    ``local`` stays: one client after the other.
    """
    grid = "local" if config.engine.grid == "local" else "stacked"
    engine = config.engine.model_copy(update={"grid": grid})
    return config.model_copy(update={"seed": seed, "engine": engine})

"""The audit: many small federations, every metric with its controls, one file of findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.audit.crew import Crew, crew
from experiments.audit.jobs import Done, Prepared
from experiments.audit.results import Audit, Findings, write_audit
from experiments.audit.usage import Usage
from experiments.audit.verdict import MARGINS
from experiments.config.loading import Config
from experiments.runs.command import command_line
from experiments.runs.folder import RunFolder
from experiments.runs.intent import AUDIT, Intent, fingerprint
from experiments.runs.lock import held
from experiments.runs.progress import Observer, Tick
from experiments.runs.stopping import ended_by_sigterm
from experiments.runs.versions import versions
from unlearning.errors import ConfigError

__all__ = ["ENOUGH_MODELS", "LEAST_MODELS", "audit"]

LEAST_MODELS = 3  # fewer have no spread to leave one out of
ENOUGH_MODELS = 16  # with fewer the findings are a first look


def audit(
    config: Config,
    out: Path,
    *,
    strategies: Sequence[str] | None = None,
    size: int = ENOUGH_MODELS,
    workers: int = 2,
    observer: Observer,
    command: str | None = None,
) -> Path:
    """Train what is missing, measure everything, write ``audit.json``; return the run folder.

    Parameters
    ----------
    config : Config
        Needs at least one request.
    out : Path
        The run folder to make, or one of the same config.
    strategies : sequence of str, optional
        Aliases or ``module:Class``; default: those of the config.
    size : int
        K, models per side.
    workers : int
        Processes; their number changes no result.
    observer : Observer
        Told of every model.
    command : str, optional
        What the report calls the words that made it; default: this process's command line.

    Raises
    ------
    FedUnlearnError
        If the config cannot work, or a worker died; what was trained is kept.
    """
    if size < LEAST_MODELS:
        raise ConfigError(f"--models is {size}; give {LEAST_MODELS} or more, {ENOUGH_MODELS} best")
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; give 1 or more")
    usage = Usage()
    with ended_by_sigterm(), crew(workers, usage) as staff:
        observer(Tick("audit", config.seed, "prepare", 0, 0, 1))
        prepared: Prepared = staff.call(
            "experiments.audit.plan:prepare", config, tuple(strategies or ()), size
        )
        chosen = {**config.to_dict(), "strategies": list(prepared.names)}
        folder = RunFolder.claim(out, chosen, again=True)  # what was trained lies elsewhere
        settings = {"models": size, "workers": workers}
        said, words = fingerprint(folder.config), command or command_line()
        Intent(AUDIT, prepared.names, (config.seed,), False, (), words, said, settings).write(
            folder.path
        )
        with held(folder.path), folder.tracked(observer) as tell:
            failures = _train(staff, prepared, tell)
            tell(Tick("audit", config.seed, "measure", 0, prepared.total, prepared.total))
            findings: Findings = staff.call("experiments.audit.evaluation:evaluate", prepared)
            usage.look()
            made = _audit(prepared, findings, failures, usage, workers, command or command_line())
            write_audit(folder.path, made)
    return folder.path


def _train(staff: Crew, prepared: Prepared, tell: Observer) -> dict[str, str]:
    """Make all models that are missing; return strategies that failed somewhere, and why."""
    failures: dict[str, str] = {}
    there = prepared.total - prepared.missing
    seed = prepared.config.seed
    tell(Tick("audit", seed, "train", 0, there, prepared.total))
    calls = [(prepared.config, prepared.names, job) for job in prepared.jobs]
    done: Done
    for done in staff.each("experiments.audit.work:work", calls):
        there += len(done.job.models)
        failures |= dict(done.failures)
        tell(Tick("audit", done.job.seed, "train", 0, there, prepared.total))
    return failures


def _audit(
    prepared: Prepared,
    findings: Findings,
    failures: dict[str, str],
    usage: Usage,
    workers: int,
    command: str,
) -> Audit:
    refused = {**dict(prepared.refused), **failures}
    return Audit(
        command=command,
        key=prepared.key,
        models_per_side=prepared.size,
        exploratory=prepared.size < ENOUGH_MODELS,
        federations=prepared.total,
        reused=prepared.total - prepared.missing,
        seconds=usage.seconds,
        cpu_seconds=usage.cpu_seconds,
        workers=workers,
        peak_rss_bytes=usage.peak_bytes,
        scenario=dict(prepared.scenario),
        margins=dict(MARGINS),
        metrics=findings.metrics,
        rows=findings.rows,
        roc=findings.roc,
        refused=tuple({"strategy": name, "reason": why} for name, why in refused.items()),
        versions=versions(),
    )

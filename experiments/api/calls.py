"""What can be done from Python: compare, run, audit, families, and opening what they left.

Everything heavy is imported inside the functions, so that ``import fedunlearn`` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.api.carrying import carried_out

if TYPE_CHECKING:
    from experiments.api.run import Audit, Families, Run
    from experiments.api.settings import Source
    from experiments.config.loading import Config
    from experiments.families.plan import Plan
    from experiments.runs.progress import Observer
    from strategies.base import UnlearningStrategy

    Named = str | type[UnlearningStrategy]
    Strategies = Named | Sequence[Named] | Mapping[Named, Mapping[str, Any]]
    Progress = bool | Observer

__all__ = [
    "audit",
    "compare",
    "families",
    "list_datasets",
    "list_models",
    "list_strategies",
    "load_config",
    "open_run",
    "run",
]

PathLike = str | os.PathLike[str]


def load_config(source: Source | None = None, /, **overrides: Any) -> Config:
    """Return the checked, frozen config that a file or a mapping describes.

    Parameters
    ----------
    source : Config, mapping or path
        Nested plain values as a TOML file holds them, or such a file; one that is not there is
        also looked for beside the installed packages. Left out: the defaults alone. Functions and
        classes may stand where a config names ``module:name``.
    **overrides
        Keys that win over the source. A table is merged, key by key; ``None`` removes a key. Keys
        further down are written with dots, ``**{"train.learning_rate": 0.05}``, or with two
        underscores, ``train__learning_rate=0.05``.

    Raises
    ------
    ConfigError
        If the file cannot be read or any setting is wrong.

    Examples
    --------
    >>> config = load_config({"rounds": 3, "data": {"clients": 4}}, train__local_epochs=2)
    >>> config.rounds, config.data.clients, config.train.local_epochs
    (3, 4, 2)
    """
    from experiments.api.settings import read

    return read(source, overrides)


def run(
    config: Source,
    *,
    out: PathLike | None = None,
    idle_s: float = 0.0,
    anyway: bool = False,
    progress: Progress = False,
    **overrides: Any,
) -> Run:
    """Learn, serve the requests with the configured strategy, recover; return the run.

    Parameters
    ----------
    config : Config, mapping or path
        As for :func:`load_config`.
    out : path, optional
        The run folder to make; default: ``runs/CONFIG-TIME`` below the working directory.
    idle_s : float
        Stay after the last round until no request came for so many seconds; 0: do not stay.
    anyway : bool
        Begin though the disk seems too small for the history.
    progress : bool or callable
        True shows a bar, in a terminal and in a notebook; a callable is told of every
        :class:`~experiments.runs.progress.Tick`. Nothing is printed otherwise.
    **overrides
        As for :func:`load_config`.

    Raises
    ------
    FedUnlearnError
        If the config cannot work, which leaves nothing behind, or the federation cannot go on.

    Examples
    --------
    >>> here = run(
    ...     {"strategy": "no-t", "requests": [{"scope": "client", "clients": [3]}]},
    ...     rounds=2, recovery_rounds=1, engine={"grid": "local"},
    ... )
    >>> here.state
    'finished'
    """
    from experiments.api.run import Run
    from experiments.api.settings import call, duration, read

    settings = read(config, overrides)
    seconds = duration(idle_s, "idle_s")
    _check_reach(settings)
    from experiments.federation import launch

    def begin(observer: Observer) -> Path:
        return launch.run(
            settings,
            _folder(out, config),
            observer=observer,
            idle_s=seconds,
            anyway=anyway,
            command=call("run", config, out=out, **overrides),
        )

    return Run(carried_out(begin, progress))


def compare(
    config: Source,
    *,
    strategies: Strategies | None = None,
    seeds: int | Sequence[int] | None = None,
    out: PathLike | None = None,
    progress: Progress = False,
    **overrides: Any,
) -> Run:
    """Learn once per seed, then let every strategy answer from the same history; return the run.

    Parameters
    ----------
    config : Config, mapping or path
        As for :func:`load_config`; with at least one request.
    strategies : str, class, sequence of them, or mapping, optional
        Aliases, ``module:Class``, or classes; a mapping gives each its options. Default: those of
        the config. The controls ``retrain`` and ``fine-tune`` are always there; ``"all"`` stands
        for every one that can answer.
    seeds : int or sequence of int, optional
        One federation each; default: the config's seed.
    out, progress, **overrides
        As for :func:`run`.

    Raises
    ------
    FedUnlearnError
        If the config cannot work, which leaves nothing behind, or the federation cannot go on.

    Examples
    --------
    >>> found = compare(
    ...     {"requests": [{"scope": "client", "clients": [3]}]},
    ...     strategies={"fed-eraser": {"interval": 1}}, seeds=[0],
    ...     rounds=2, recovery_rounds=1, engine={"grid": "local"},
    ... )
    >>> sorted(found.to_frame().strategy)
    ['fed-eraser', 'fine-tune', 'original', 'retrain']
    """
    from experiments.api.run import Run
    from experiments.api.settings import call, chosen, numbers, read

    names, options = chosen(strategies)
    settings = read(config, overrides, options)
    _check_reach(settings)
    from experiments.federation import launch

    given = {"strategies": strategies, "seeds": seeds, "out": out}

    def begin(observer: Observer) -> Path:
        return launch.compare(
            settings,
            _folder(out, config),
            strategies=names,
            seeds=numbers(seeds),
            observer=observer,
            command=call("compare", config, **given, **overrides),
        )

    return Run(carried_out(begin, progress))


def audit(
    config: Source,
    *,
    strategies: Strategies | None = None,
    models: int = 16,
    workers: int = 2,
    out: PathLike | None = None,
    progress: Progress = False,
    **overrides: Any,
) -> Audit:
    """Train many small federations and judge forgetting by every metric with its controls.

    Parameters
    ----------
    config, strategies, out, progress, **overrides
        As for :func:`compare`.
    models : int
        Models per side; 3 or more.
    workers : int
        Worker processes; no result depends on their number. A script that asks for more than one
        must do so under ``if __name__ == "__main__":``.

    Raises
    ------
    FedUnlearnError
        If the config cannot work, or a worker died; what was trained is kept in the cache.

    Examples
    --------
    >>> found = audit(  # doctest: +SKIP
    ...     "experiments/configs/breast_cancer_audit.toml", strategies="no-t", models=8
    ... )
    >>> found.report()  # doctest: +SKIP
    """
    from experiments.api.run import Audit
    from experiments.api.settings import call, chosen, count, read

    names, options = chosen(strategies)
    settings = read(config, overrides, options)
    size, processes = count(models, "models"), count(workers, "workers")
    _check_reach(settings, alone=processes == 1, strategies=names or settings.strategies)
    from experiments.audit import run as auditing

    given = {"strategies": strategies, "models": models, "workers": workers, "out": out}

    def begin(observer: Observer) -> Path:
        return auditing.audit(
            settings,
            _folder(out, config),
            strategies=names,
            size=size,
            workers=processes,
            observer=observer,
            command=call("audit", config, **given, **overrides),
        )

    made = Audit(carried_out(begin, progress))
    made.report(again=True)  # the folder may be that of the same audit with fewer models
    return made


def families(
    plan: PathLike | Plan | None = None,
    *,
    only: str | Sequence[str] = (),
    runs: Sequence[PathLike | Run] = (),
    out: PathLike | None = None,
    progress: Progress = False,
    tell: Callable[[str], None] | None = None,
    **overrides: Any,
) -> Families:
    """Compare the families of strategies over many scenarios, and test the surveys' claims.

    Scenarios that are in the folder already are kept, so an interrupted comparison goes on.

    Parameters
    ----------
    plan : path or Plan, optional
        The TOML file, or what :func:`~experiments.families.plan.read_plan` made of it; default:
        the plan on embedded digits, or none if ``runs`` are given.
    only : str or sequence of str
        Scenarios to run now; default: all.
    runs : sequence of path or Run
        Finished comparisons to add.
    out : path, optional
        The folder to fill; default: ``runs/families-PLAN`` below the working directory.
    progress : bool or callable
        As for :func:`run`.
    tell : callable, optional
        Told in a line what is done with each scenario.
    **overrides
        As for :func:`load_config`, for every scenario.

    Raises
    ------
    FedUnlearnError
        If plan or config cannot work, or no scenario has finished.

    Examples
    --------
    >>> found = families(only="client-iid", out="few")  # doctest: +SKIP
    >>> found.to_frame().groupby("strategy").test_accuracy.mean()  # doctest: +SKIP
    """
    from experiments.api.run import Families, Run
    from experiments.api.settings import as_overrides, call, place, words
    from experiments.families.comparison import carry_out, write_comparison
    from experiments.families.plan import Plan, default_out, read_plan, usual

    asked = usual(runs) if plan is None else plan
    if not isinstance(asked, Plan | None):
        asked = place(asked, "plan")
    read = asked if isinstance(asked, Plan) else Plan() if asked is None else read_plan(asked)
    wanted = read.with_runs(
        [one.path if isinstance(one, Run) else place(one, "runs") for one in runs]
    )
    folder = place(out, "out") if out is not None else default_out(asked)
    command = call("families", plan, only=only or None, out=out, **overrides)

    def begin(observer: Observer) -> Path:
        carry_out(
            wanted,
            folder,
            only=words(only),
            overrides=as_overrides(overrides),
            observer=observer,
            tell=tell or (lambda text: None),
            command=command,
        )
        return write_comparison(wanted, folder, command=command).parent

    return Families(carried_out(begin, progress))


def open_run(folder: PathLike) -> Run | Audit | Families:
    """Return what lies in a folder: a run, a comparison, an audit, or several on one page.

    Parameters
    ----------
    folder : path
        As the command line or a function of this module left it; the run may still go on.

    Raises
    ------
    ConfigError
        If it is no such folder.

    Examples
    --------
    >>> open_run("runs/digits_client-20261129T012619Z").to_frame()  # doctest: +SKIP
    """
    from experiments.api.run import opened
    from experiments.api.settings import place

    return opened(place(folder, "folder"))


def list_strategies(scope: str | None = None) -> list[str]:
    """Return the names of the strategies, all or those that serve requests of a scope.

    Parameters
    ----------
    scope : {"client", "sample", "class", "task", "feature"}, optional
        What is to be forgotten.

    Raises
    ------
    ConfigError
        If there is no such scope.

    Examples
    --------
    >>> "fed-eraser" in list_strategies("client")
    True
    """
    from strategies.registry import strategies
    from unlearning.errors import ConfigError, unknown
    from unlearning.request import Scope

    if scope is None:
        return list(strategies())
    if scope not in list(Scope):
        raise ConfigError(unknown("scope", scope, list(Scope)))
    return [name for name in strategies() if Scope(scope) in strategies()[name].scopes]


def list_datasets() -> list[str]:
    """Return the names of the data sets that a config can name.

    Examples
    --------
    >>> "digits" in list_datasets()
    True
    """
    from experiments.data.datasets import names

    return list(names())


def list_models() -> list[str]:
    """Return the names of the models that a config can name.

    Examples
    --------
    >>> "mlp" in list_models()
    True
    """
    from experiments.models.networks import names

    return list(names())


# Inside -------------------------------------------------------------------------------------------


def _folder(out: PathLike | None, config: object) -> Path:
    """Return the folder to make: the one that is named, or a fresh one below ``runs``."""
    from experiments.api.settings import place
    from experiments.runs.folder import default_out

    if out is not None:
        return place(out, "out")
    name = Path(config) if isinstance(config, (str, os.PathLike)) else Path("python.toml")
    first = default_out(name, datetime.now(UTC))
    count = 1
    path = first
    while path.exists():  # the name holds seconds, and small runs take less
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path


def _check_reach(
    config: Config, *, alone: bool | None = None, strategies: Sequence[str] = ()
) -> None:
    """Refuse what other processes would have to import from a notebook or a script.

    Parameters
    ----------
    config : Config
        Of the run.
    alone : bool, optional
        Whether no other process takes part; default: as the config's engine says.
    strategies : sequence of str
        Those that other processes have to find, too.
    """
    from unlearning.errors import ConfigError

    if alone if alone is not None else config.engine.grid in ("local", "stacked"):
        return
    trunk = config.model.trunk
    names = [config.data.name, config.model.name, *([trunk.name] if trunk else []), *strategies]
    for name in names:
        if name.startswith("__main__:"):
            raise ConfigError(
                f"{name!r} stands in a notebook or a script, where worker processes cannot import "
                "it; put it into a module of its own, or work in this process alone: "
                'engine={"grid": "local"}, for an audit workers=1'
            )

"""The search itself: Optuna asks, trials answer, and what was found is held against controls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.config.loading import Config
from experiments.config.registry import options, resolve
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.tuning.trials import Measured, Try, elsewhere, measure
from strategies.shares import Span
from unlearning.errors import ConfigError

if TYPE_CHECKING:
    import optuna

__all__ = ["Found", "Trial", "search"]

_BATCH = 5  # trials on one learned federation: the sampler learns from them afterwards
_HALF = 0.5  # of retraining's examples: what a found setting may cost
_CONTROLS = "experiments.tuning.controls"
_FACTOR = "fine_tune_factor"  # the option that says how fast a strategy's own rounds train

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One setting and what it came to on the seeds and the forget set of the search."""

    options: Mapping[str, Any]
    measured: Measured


@dataclass(frozen=True)
class Found:
    """What a search found for one strategy.

    Parameters
    ----------
    strategy : str
        Alias or ``module:Class``.
    spans : mapping of str to Span
        What was searched.
    defaults, best : mapping
        Options before and after.
    trials : sequence of Trial
        All of them, in order.
    front : sequence of int
        Positions of those that no other beats in both distance and cost.
    shown : mapping of str to Measured
        On the config's own seed and forget set: ``original``, ``retrain``, ``defaults``,
        ``found``, and controls.
    searched, reported : str
        Seeds and forget sets, in words.
    """

    strategy: str
    spans: Mapping[str, Span]
    defaults: Mapping[str, Any]
    best: Mapping[str, Any]
    trials: Sequence[Trial]
    front: Sequence[int]
    shown: Mapping[str, Measured]
    searched: str
    reported: str


def search(
    config: Config,
    strategy: str,
    *,
    trials: int = 40,
    seeds: int = 2,
    storage: str | None = None,
    tell: Tell = lambda line: None,
) -> Found:
    """Return the options of a strategy that come nearest to retraining at half of its cost.

    Parameters
    ----------
    config : Config
        What will be reported; the search itself goes elsewhere.
    strategy : str
        Alias or ``module:Class``; must declare ``tunable``.
    trials : int
        How many settings are tried, the defaults among them.
    seeds : int
        Federations per trial.
    storage : str, optional
        An SQLAlchemy address such as ``sqlite:///study.db``; a search that is in it goes on.
    tell : callable
        Told of every batch.

    Raises
    ------
    ConfigError
        If Optuna is missing, the strategy declares nothing to tune, or nothing ever answered.
    """
    cls = resolve(strategy)
    if not cls.tunable:
        raise ConfigError(
            f"strategy {strategy!r} declares no ranges; give it `tunable`, a span for each option"
        )
    other, other_seeds = elsewhere(config, seeds)
    study = _study(config, other, strategy, storage)
    known, given = options(cls), config.options_for(strategy)
    defaults = {name: given.get(name, known[name]) for name in cls.tunable}
    if not study.trials:
        study.enqueue_trial(_inside(defaults, cls.tunable))
    while (left := trials - len(_finished(study))) > 0:
        asked = [study.ask(_distributions(cls.tunable)) for _ in range(min(_BATCH, left))]
        tries = [Try(f"trial-{one.number}", strategy, dict(one.params)) for one in asked]
        measured = measure(other, other_seeds, tries)
        for one, tried in zip(asked, tries, strict=True):
            came = measured[tried.name]
            one.set_user_attr("scores", dict(came.scores))
            one.set_user_attr("failed", came.failed)
            study.tell(one, [came.distance, came.cost])
        tell(f"{strategy}: {len(_finished(study))} of {trials} trials")
    done = _finished(study)
    made = [
        Trial(
            dict(one.params),
            Measured(
                one.values[0],
                one.values[1],
                one.user_attrs.get("scores", {}),
                failed=one.user_attrs.get("failed", ""),
            ),
        )
        for one in done
    ]
    best = _best(made, strategy)
    return Found(
        strategy,
        cls.tunable,
        defaults,
        best,
        made,
        _front(made),
        _shown(config, strategy, defaults, best),
        _words(other, other_seeds),
        _words(config, (config.seed,)),
    )


def _study(config: Config, other: Config, strategy: str, storage: str | None) -> optuna.Study:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("tune needs Optuna; pip install 'fedunlearn[tune]'") from error
    import hashlib
    import json

    optuna.logging.set_verbosity(logging.WARNING)
    # Another config is another study, though both lie in one storage.
    text = json.dumps(other.to_dict(), sort_keys=True)
    name = f"{strategy}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    try:
        return optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=config.seed),
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )
    except Exception as error:  # SQLAlchemy's, of many kinds
        if storage is None:
            raise
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"--storage {storage!r} cannot be opened ({said}); give an address such as "
            "sqlite:///study.db"
        ) from error


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [one for one in study.trials if one.values is not None]


def _distributions(spans: Mapping[str, Span]) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(span.low), int(span.high), log=span.log)
        if span.whole
        else FloatDistribution(span.low, span.high, log=span.log)
        for name, span in spans.items()
    }


def _inside(values: Mapping[str, Any], spans: Mapping[str, Span]) -> dict[str, Any]:
    """Return values brought into their ranges: Optuna tries no others."""
    return {name: min(max(values[name], span.low), span.high) for name, span in spans.items()}


def _front(trials: Sequence[Trial]) -> list[int]:
    points = [(one.measured.distance, one.measured.cost) for one in trials]
    return [
        i
        for i, (distance, cost) in enumerate(points)
        if not trials[i].measured.failed
        and not any(d <= distance and c <= cost and (d, c) != (distance, cost) for d, c in points)
    ]


def _best(trials: Sequence[Trial], strategy: str) -> dict[str, Any]:
    """Return the nearest to retraining among those within half of its cost, else of all."""
    answered = [one for one in trials if not one.measured.failed]
    if not answered:
        why = trials[0].measured.failed if trials else "no trial was made"
        raise ConfigError(f"no trial of {strategy!r} answered: {why}")
    cheap = [one for one in answered if one.measured.cost <= _HALF] or answered
    best = min(cheap, key=lambda one: (one.measured.distance, one.measured.cost))
    return dict(best.options)


def _shown(
    config: Config, strategy: str, defaults: Mapping[str, Any], best: Mapping[str, Any]
) -> dict[str, Measured]:
    """Hold what was found against defaults and controls, where it will be reported."""
    first = measure(
        config,
        [config.seed],
        [Try("defaults", strategy, defaults), Try("found", strategy, best)],
    )
    found = first["found"]
    # Replayed or ascended rounds are no rounds of training: the same cost is what counts.
    same = {"rounds": _training_rounds(config, found), "factor": float(best.get(_FACTOR, 1.0))}
    controls = [Try("plain training", f"{_CONTROLS}:PlainTraining", same)]
    if found.edited:
        reset = {**same, "share": found.edited}
        controls.append(Try("random reset", f"{_CONTROLS}:RandomReset", reset))
    second = measure(config, [config.seed], controls)
    order = (ORIGINAL, RETRAIN, "defaults", "found")
    return {name: first[name] for name in order} | {one.name: second[one.name] for one in controls}


def _training_rounds(config: Config, found: Measured) -> int:
    """Return how many rounds of training cost what the unlearning of a setting did."""
    every = config.rounds + config.recovery_rounds  # what retraining takes
    return max(0, round(found.cost * every) - config.recovery_rounds)


def _words(config: Config, seeds: Sequence[int]) -> str:
    asked = "; ".join(
        f"{request.scope} {list(request.clients or request.classes) or request.samples}"
        for request in config.requests
    )
    return f"seeds {', '.join(map(str, seeds))}, forget {asked}"

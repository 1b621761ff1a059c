"""What recorded comparisons say of one strategy: a table for its page."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from experiments.runs.results import FINE_TUNE, RETRAIN, Row, read_table
from unlearning.evaluation.scorecard import average_gap, summarise

__all__ = ["PLAIN_RETRAINING", "figure", "former_defaults", "gap_of", "measured"]

_RESULTS = Path(__file__).parents[1] / "results"
_FILES = {  # what was asked for: the file
    "a client, alike clients": "families_client_iid.csv",
    "a client, unlike clients": "families_client_dirichlet.csv",
    "marked samples": "families_sample_backdoor.csv",
    "a class": "families_class.csv",
    "a feature": "recent_feature.csv",
    "a client, two shards": "recent_sharded.csv",
    "a client, a tree of shards": "recent_sharded-tree.csv",
    "a client, modules in sequences": "recent_sequences.csv",
    "a client, stable sampling": "recent_fats.csv",
}
_TITLES = (
    "to forget",
    "test accuracy",
    "retrained",
    "backdoor",
    "gap",
    "gap of fine-tuning",
    "work saved",
    "file",
)
PLAIN_RETRAINING = {  # who is plain retraining on the model of the other files
    "sharded": ("recent_sharded.csv", "recent_sharded-tree.csv"),
    "sequences": ("recent_sequences.csv",),
    "fats": ("recent_fats.csv",),
}


def measured(name: str) -> list[str]:
    """Return the lines of a strategy's section; none where nothing is recorded of it."""
    rows = []
    for asked, file in _FILES.items():
        if name in PLAIN_RETRAINING and file not in PLAIN_RETRAINING[name]:
            continue
        table = _read(file)
        if (gap := _gap(table, name)) is None or name == RETRAIN:
            continue
        tuned, speed = _gap(table, FINE_TUNE), _mean(table, name, "speedup_examples")
        cells = (
            asked,
            _shown(_mean(table, name, "test_accuracy")),
            _shown(_mean(table, RETRAIN, "test_accuracy")),
            _shown(_mean(table, name, "backdoor_success")),
            _shown(gap),
            _shown(tuned),
            "" if speed is None else f"{speed:.2f}x",
            f"`{file}`",
        )
        rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "",
        "## Measured here",
        "",
        "Means over the seeds of recorded comparisons on scikit-learn's digits. The gap is the",
        "average distance to the model retrained at the same seed; the work saved is retraining's",
        "examples over its own.",
        "",
        f"| {' | '.join(_TITLES)} |",
        "| --- " * len(_TITLES) + "|",
        *rows,
        *_made_with(name),
    ]


def former_defaults() -> dict[str, dict[str, Any]]:
    """Return what options of strategies were by default when results were recorded, by strategy.

    Those that have changed since, and that ``defaults*.csv`` alone were made without.
    """
    return tomllib.loads((_RESULTS / "former_defaults.toml").read_text(encoding="utf-8"))


def _made_with(name: str) -> list[str]:
    """Return the lines that say with which former defaults a table was made; none if with none."""
    former = former_defaults().get(name, {})
    given = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in former.items())
    if not given:
        return []
    return [
        "",
        f"Made with {given} where their configs name nothing else: the defaults of their day,",
        "others than those below.",
    ]


def figure(file: str, strategy: str, number: str) -> float:
    """Return the mean over the seeds of a metric or cost in a recorded file.

    Raises
    ------
    ValueError
        If nothing of it is recorded there.
    """
    found = _mean(_read(file), strategy, number)
    if found is None:
        raise ValueError(f"{file} holds no {number} of {strategy}")
    return found


def gap_of(file: str, strategy: str) -> float:
    """Return the average gap to the model retrained at the same seed, mean over the seeds.

    Raises
    ------
    ValueError
        If nothing of it is recorded there.
    """
    found = _gap(_read(file), strategy)
    if found is None:
        raise ValueError(f"{file} holds no gap of {strategy}")
    return found


@cache
def _read(file: str) -> tuple[Row, ...]:
    return read_table(_RESULTS / file)


def _mean(table: tuple[Row, ...], name: str, number: str) -> float | None:
    found = [row.number(number) for row in table if row.strategy == name]
    values = [value for value in found if value is not None]
    return summarise(values).mean if values else None


def _gap(table: tuple[Row, ...], name: str) -> float | None:
    reference = {row.seed: row.metrics for row in table if row.strategy == RETRAIN}
    found = [average_gap(r.metrics, reference[r.seed]) for r in table if r.strategy == name]
    values = [value for value in found if value is not None]
    return summarise(values).mean if values else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

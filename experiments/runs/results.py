"""What a run found: rows on disk, ``results.json`` and ``results.csv``.

``results.json`` is read by other programs and its shape is fixed; so are the columns that every
``results.csv`` begins with. Measures that only some runs have, of text and of features, are further
columns behind them. A number that was not measured is None here, ``null`` and an empty cell there.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.runs.record import ResultsError, read_json
from unlearning.evaluation.scorecard import METRICS, RANGES, Spread, bounded, summarise
from unlearning.records.files import write_atomically

__all__ = [
    "CONTROLS",
    "COSTS",
    "FINE_TUNE",
    "ORIGINAL",
    "RETRAIN",
    "FailedRow",
    "Measured",
    "Row",
    "by_measure",
    "by_seed",
    "read_failed",
    "read_results",
    "read_table",
    "spread",
    "strategies",
    "write_results",
]

ORIGINAL, RETRAIN, FINE_TUNE = CONTROLS = ("original", "retrain", "fine-tune")
COSTS = (
    "wall_s",
    "client_rounds",
    "client_s",
    "examples",
    "bytes_up",
    "bytes_down",
    "history_bytes",
    "speedup_wall",
    "speedup_examples",
)
_IDENTITY = ("strategy", "seed", "scope", "guarantee")


def _complete(
    values: Mapping[str, float | None], names: tuple[str, ...], kind: str
) -> dict[str, float | None]:
    """Return all of ``names``, None where nothing was measured."""
    if unknown := sorted(values.keys() - set(names)):
        raise ValueError(f"unknown {kind} {unknown[0]!r} (known: {', '.join(names)})")
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{kind} {name!r} is {value}; what was not measured is None")
    return {name: values.get(name) for name in names}


@dataclass(frozen=True)
class Row:
    """One strategy's result at one seed.

    Parameters
    ----------
    strategy : str
        Its alias; ``original``, ``retrain`` and ``fine-tune`` are the controls.
    seed : int
        Training seed, the unit of replication.
    scope, guarantee : str
        Of the request and of the strategy.
    metrics : mapping of str to float or None
        The scorecard; names left out become None.
    cost : mapping of str to float or None
        The names of :data:`COSTS`; names left out become None.
    model_digest : str or None
        SHA-256 of the final model.

    Raises
    ------
    ValueError
        If a metric or a cost is unknown or not finite.
    """

    strategy: str
    seed: int
    scope: str
    guarantee: str
    metrics: Mapping[str, float | None]
    cost: Mapping[str, float | None]
    model_digest: str | None = None

    def __post_init__(self) -> None:
        """Give every row the same names in the same order."""
        object.__setattr__(self, "metrics", _complete(self.metrics, METRICS, "metric"))
        object.__setattr__(self, "cost", _complete(self.cost, COSTS, "cost"))

    def number(self, name: str) -> float | None:
        """Return a metric or a cost by its name."""
        return self.metrics[name] if name in self.metrics else self.cost[name]

    def to_json(self) -> dict[str, object]:
        """Return the row as it stands in ``results.json``."""
        return {
            **{name: getattr(self, name) for name in _IDENTITY},
            "metrics": dict(self.metrics),
            "cost": dict(self.cost),
            "model_digest": self.model_digest,
        }


@dataclass(frozen=True)
class FailedRow:
    """One strategy without a result at one seed.

    Parameters
    ----------
    strategy, seed, scope, guarantee
        As in :class:`Row`.
    failed : str
        Why, on one line.
    """

    strategy: str
    seed: int
    scope: str
    guarantee: str
    failed: str

    def to_json(self) -> dict[str, object]:
        """Return the row as it stands in ``results.json``: nothing was measured."""
        empty = Row(self.strategy, self.seed, self.scope, self.guarantee, {}, {})
        return {**empty.to_json(), "failed": self.failed}


class Measured(Protocol):
    """A measure that only some runs have, of one strategy's model at one seed."""

    @property
    def strategy(self) -> str:
        """Its alias."""

    @property
    def seed(self) -> int:
        """The training seed."""

    @property
    def measure(self) -> str:
        """What was measured: the name of a column."""

    @property
    def value(self) -> float:
        """The number."""


def by_measure(measures: Iterable[Measured]) -> dict[str, dict[tuple[str, int], float]]:
    """Return measure -> (strategy, seed) -> value, in the order that measures first appear in."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    for one in measures:
        found.setdefault(one.measure, {})[one.strategy, one.seed] = one.value
    return found


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, default=str) + "\n").encode()


def write_results(
    run_dir: Path,
    config: Mapping[str, object],
    rows: Sequence[Row],
    failed: Sequence[FailedRow] = (),
    *,
    partial: bool = False,
    measures: Iterable[Measured] = (),
) -> None:
    """Write ``results.json`` and ``results.csv``, each whole or not at all.

    Parameters
    ----------
    run_dir : Path
        The run folder; it must exist.
    config : mapping
        The resolved configuration, plain values.
    rows : sequence of Row
        One per strategy and seed.
    failed : sequence of FailedRow
        Those without a result; they stand behind the others.
    partial : bool
        Whether more is to come; the file says so then.
    measures : iterable of Measured
        Of text, of features: further columns of ``results.csv``, behind all others.
    """
    everything: list[Row | FailedRow] = [*rows, *failed]
    found: dict[str, object] = {
        "config": config,
        "rows": [row.to_json() for row in everything],
        **({"partial": True} if partial else {}),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    beside = by_measure(measures)
    writer.writerow((*_IDENTITY, *METRICS, *COSTS, "model_digest", "failed", *beside))
    for one in everything:
        cells: list[object] = [getattr(one, name) for name in _IDENTITY]
        if isinstance(one, Row):
            cells += [*one.metrics.values(), *one.cost.values(), one.model_digest, ""]
        else:
            cells += [*[None] * (len(METRICS) + len(COSTS) + 1), one.failed]
        cells += [column.get((one.strategy, one.seed)) for column in beside.values()]
        writer.writerow(cells)
    write_atomically(run_dir / "results.json", _json_bytes(found))
    write_atomically(run_dir / "results.csv", text.getvalue().encode())


def read_results(run_dir: Path) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Return configuration and rows of a run; of one that goes on, those that are there.

    Rows of strategies that failed are left out: :func:`read_failed` has them.

    Raises
    ------
    ResultsError
        If ``results.json`` is missing, damaged or of another shape.
    """
    config, rows, _ = _read(run_dir)
    return config, rows


def read_table(path: Path) -> tuple[Row, ...]:
    """Return the rows of a ``results.csv`` that stands alone; an empty field was not measured.

    Raises
    ------
    ResultsError
        If it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        return tuple(
            Row(
                line["strategy"],
                int(line["seed"]),
                line["scope"],
                line["guarantee"],
                {name: _number(line[name]) for name in METRICS},
                {name: _number(line[name]) for name in COSTS},
                line["model_digest"] or None,
            )
            for line in lines
            if not line.get("failed")
        )
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ResultsError(f"{path} is no results.csv ({error!r}); name one of a run") from error


def _number(text: str) -> float | None:
    return float(text) if text else None


def read_failed(run_dir: Path) -> tuple[FailedRow, ...]:
    """Return the strategies that failed, one entry per seed.

    Raises
    ------
    ResultsError
        As :func:`read_results`.
    """
    return _read(run_dir)[2]


def _read(run_dir: Path) -> tuple[dict[str, Any], tuple[Row, ...], tuple[FailedRow, ...]]:
    path = run_dir / "results.json"
    found = read_json(path)
    try:
        if not isinstance(found, dict):
            raise TypeError("not an object")
        whole = [row for row in found["rows"] if "failed" not in row]
        failed = [row for row in found["rows"] if "failed" in row]
        return (
            dict(found["config"]),
            tuple(Row(**row) for row in whole),
            tuple(
                FailedRow(**{name: row[name] for name in (*_IDENTITY, "failed")}) for row in failed
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(
            f"{path} has another shape than this version writes ({error}); run the experiment again"
        ) from error


def strategies(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the strategies in the order of every table: the controls first, then as they ran."""
    names = dict.fromkeys(row.strategy for row in rows)
    first = [name for name in CONTROLS if name in names]
    return (*first, *(name for name in names if name not in CONTROLS))


def by_seed(rows: Iterable[Row], strategy: str, name: str) -> dict[int, float | None]:
    """Return one metric or cost of one strategy for every seed."""
    return {row.seed: row.number(name) for row in rows if row.strategy == strategy}


def spread(rows: Iterable[Row], strategy: str, name: str) -> Spread | None:
    """Return mean and spread over the seeds that were measured, or None if none was.

    The interval stays within what the number can be.
    """
    values = [value for value in by_seed(rows, strategy, name).values() if value is not None]
    if not values:
        return None
    found = summarise(values)
    return bounded(found, *RANGES[name]) if name in RANGES else found

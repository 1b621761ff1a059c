"""What a run found: rows on disk (``results.json``, ``results.csv``), details, and one table.

``results.json`` is read by other programs and its shape is fixed; ``details.json`` serves the
report and may grow. A number that was not measured is None here, ``null`` and an empty cell there.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from unlearning.errors import FedUnlearnError
from unlearning.evaluation.scorecard import METRICS, Spread, summarise
from unlearning.records.files import write_atomically

__all__ = [
    "CONTROLS",
    "COSTS",
    "DASH",
    "FINE_TUNE",
    "ORIGINAL",
    "RETRAIN",
    "Details",
    "Extra",
    "Phases",
    "Point",
    "Refused",
    "ResultsError",
    "Roc",
    "Row",
    "Tallied",
    "TaskMeasure",
    "Work",
    "by_seed",
    "plain_table",
    "read_details",
    "read_results",
    "significant",
    "spread",
    "strategies",
    "table",
    "with_sd",
    "write_details",
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
DASH = "\N{EN DASH}"
_ROUNDING = 1e-9  # a relative deviation below this is float arithmetic, not spread
_IDENTITY = ("strategy", "seed", "scope", "guarantee")
_COLUMNS = (  # name, title, title for a narrow terminal
    ("retain_accuracy", "Retain accuracy", "Retain\nacc."),
    ("forget_accuracy", "Forget accuracy", "Forget\nacc."),
    ("test_accuracy", "Test accuracy", "Test\nacc."),
    ("mia_auc", "MIA AUC", "MIA\nAUC"),
    ("backdoor_success", "Backdoor success", "Back-\ndoor"),
    ("prediction_distance", "Prediction distance", "Dis-\ntance"),
    ("wall_s", "Wall time (s)", "Wall\n(s)"),
    ("speedup_examples", "Speed-up (examples)", "Speed-\nup"),
)


class ResultsError(FedUnlearnError):
    """The files a run left behind are missing, damaged or of another shape."""


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


class _Record(BaseModel):
    """A part of ``details.json``; unknown entries are kept, since the file may grow."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Point(_Record):
    """One measurement along the way; ``round`` is its position from the start of the run."""

    strategy: str
    seed: int
    phase: Literal["learn", "unlearn", "recover"]
    round: int
    test_accuracy: float | None = None
    retain_accuracy: float | None = None
    forget_accuracy: float | None = None
    backdoor_success: float | None = None
    wall_s: float | None = None


class Work(_Record):
    """What one phase cost; the names and units of :class:`unlearning.cost.Cost`."""

    wall_s: float | None = None
    client_rounds: float | None = None
    client_s: float | None = None
    examples: float | None = None
    bytes_up: float | None = None
    bytes_down: float | None = None


class Phases(_Record):
    """What one strategy cost at one seed, apart for unlearning and recovery."""

    strategy: str
    seed: int
    unlearn: Work = Work()
    recover: Work = Work()


class Extra(_Record):
    """What is worth knowing about one row beyond its numbers."""

    strategy: str
    seed: int
    array_distance: float | None = None
    mia_null_se: float | None = None
    notes: tuple[str, ...] = ()


class Roc(_Record):
    """The membership attack's curve on one model: an ``AttackRoc`` as it is written."""

    strategy: str
    seed: int
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    members: int
    non_members: int


class Tallied(_Record):
    """Right answers of one model; the entries of :class:`unlearning.evaluation.tally.Tally`."""

    strategy: str
    seed: int
    by: str = "class"
    clients: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    correct: tuple[tuple[int, ...], ...] = ()
    total: tuple[tuple[int, ...], ...] = ()
    test_columns: tuple[str, ...] = ()
    test_correct: tuple[int, ...] = ()
    test_total: tuple[int, ...] = ()


class Refused(_Record):
    """A strategy that did not answer, and why."""

    strategy: str
    reason: str


class TaskMeasure(_Record):
    """One measure of one model after a request for a task.

    Parameters
    ----------
    strategy, seed
        Whose model.
    measure : str
        ``accuracy`` of a task's own head; ``change`` against the retrained model, of a task that
        stays; ``retained``, the mean accuracy of those that stay, ``retained_worst`` and
        ``worst_change``, the least of them. Of a forgotten task: ``old_head``, the accuracy of the
        original's head on this trunk; ``probe``, that of a fresh head on the frozen trunk;
        ``relearn_rounds``, rounds of ordinary learning until it is back (one more than
        ``rounds["relearn"]`` if it was not by then); ``cka_original`` and ``cka_retrained``, how
        alike the trunks are on its inputs. Test data; fractions 0 to 1, and rounds.
    task : str or None
        Which; of ``retained_worst`` and ``worst_change`` the task it is; None: over several.
    value : float
        Never a stand-in: what was not measured is not there.
    """

    strategy: str
    seed: int
    measure: str
    task: str | None = None
    value: float


class Details(_Record):
    """Everything the report tells beside the rows."""

    command: str = ""
    versions: dict[str, str] = {}
    rounds: dict[str, int] = {}
    marker: dict[str, Any] | None = None
    requests: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] = {}
    timeline: tuple[Point, ...] = ()
    phases: tuple[Phases, ...] = ()
    extra: tuple[Extra, ...] = ()
    task_measures: tuple[TaskMeasure, ...] = ()
    refused: tuple[Refused, ...] = ()
    rocs: tuple[Roc, ...] = ()
    tallies: tuple[Tallied, ...] = ()
    ledger_head: str = ""
    history: dict[str, Any] = {}


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, default=str) + "\n").encode()


def write_results(run_dir: Path, config: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Write ``results.json`` and ``results.csv``, each whole or not at all.

    Parameters
    ----------
    run_dir : Path
        The run folder; it must exist.
    config : mapping
        The resolved configuration, plain values.
    rows : sequence of Row
        One per strategy and seed.
    """
    found = {"config": config, "rows": [row.to_json() for row in rows]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_IDENTITY, *METRICS, *COSTS, "model_digest"))
    for row in rows:
        identity = [getattr(row, name) for name in _IDENTITY]
        writer.writerow((*identity, *row.metrics.values(), *row.cost.values(), row.model_digest))
    write_atomically(run_dir / "results.json", _json_bytes(found))
    write_atomically(run_dir / "results.csv", text.getvalue().encode())


def write_details(run_dir: Path, details: Details | Mapping[str, object]) -> None:
    """Write ``details.json`` for the report.

    Raises
    ------
    ValueError
        If an entry has another shape than :class:`Details` tells.
    """
    checked = Details.model_validate(details).model_dump(mode="json")
    # On one line: with its curves and counts a line per number would be most of the file.
    text = json.dumps(checked, allow_nan=False, separators=(",", ":"))
    write_atomically(run_dir / "details.json", f"{text}\n".encode())


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ResultsError(
            f"{path} does not exist; the run has not finished or this is no run folder: "
            "see its state with `fedunlearn status`"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); run the experiment again") from error


def read_results(run_dir: Path) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Return configuration and rows of a finished run.

    Raises
    ------
    ResultsError
        If ``results.json`` is missing, damaged or of another shape.
    """
    path = run_dir / "results.json"
    found = _read(path)
    try:
        if not isinstance(found, dict):
            raise TypeError("not an object")
        return dict(found["config"]), tuple(Row(**row) for row in found["rows"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(
            f"{path} has another shape than this version writes ({error}); run the experiment again"
        ) from error


def read_details(run_dir: Path) -> Details:
    """Return what the report tells beside the rows; empty if the run kept no ``details.json``.

    Raises
    ------
    ResultsError
        If the file is damaged or of another shape.
    """
    path = run_dir / "details.json"
    if not path.exists():
        return Details()
    try:
        return Details.model_validate(_read(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ResultsError(
            f"{path} has another shape than this version writes ({place}: {first['msg']}); "
            "run the experiment again"
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
    """Return mean and spread over the seeds that were measured, or None if none was."""
    values = [value for value in by_seed(rows, strategy, name).values() if value is not None]
    return summarise(values) if values else None


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, and with commas in thousands.

    >>> significant(255123.4), significant(4.0), significant(0.0123), significant(0)
    ('255,123', '4.00', '0.0123', '0')
    """
    return f"{value:,.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int = 3) -> int:
    return 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))


def with_sd(found: Spread | None, decimals: int | None = None) -> str:
    """Return ``mean ± sd``; the mean alone for one seed or equal values, a dash for none.

    Parameters
    ----------
    found : Spread or None
        Over the seeds.
    decimals : int or None
        Digits after the point; None: three significant digits of the mean.
    """
    if found is None:
        return DASH
    places = _decimals(found.mean) if decimals is None else decimals
    mean = f"{found.mean:,.{places}f}"
    if found.sd is None or found.sd <= _ROUNDING * abs(found.mean):
        return mean
    return f"{mean} ± {found.sd:,.{places}f}"


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells of the table, one list per strategy."""
    lines = []
    for strategy in strategies(rows):
        guarantee = next(row.guarantee for row in rows if row.strategy == strategy)
        cells = [
            with_sd(spread(rows, strategy, name), 3 if name in METRICS else None)
            for name, *_ in _COLUMNS
        ]
        lines.append([strategy, guarantee or DASH, *cells])
    return lines


def _caption(rows: Sequence[Row]) -> str:
    seeds = len({row.seed for row in rows})
    kind = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    return f"{kind}; speed-up over retraining by examples processed; {DASH} = not measured"


def table(rows: Sequence[Row]) -> Table:
    """Return the comparison as a table that fits a terminal of 80 columns.

    One entry per strategy; its guarantee and the standard deviations stand on a second line.
    """
    out = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        caption=_caption(rows),
        caption_justify="left",
    )
    out.add_column("Strategy\nguarantee", overflow="fold")
    for *_, title in _COLUMNS:
        out.add_column(title, justify="right", no_wrap=True)
    for strategy, guarantee, *cells in _lines(rows):
        pairs = [(strategy, guarantee), *(cell.partition(" ± ")[::2] for cell in cells)]
        second = [pairs[0][1], *(f"±{sd}" if sd else "" for _, sd in pairs[1:])]
        out.add_row(*(Text(first) for first, _ in pairs))
        out.add_row(*(Text(text, style="dim") for text in second))
    return out


def plain_table(rows: Sequence[Row]) -> str:
    """Return the comparison as plain text, one line per strategy, for logs and pipes."""
    lines = [["Strategy", "Guarantee", *(title for _, title, _ in _COLUMNS)], *_lines(rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = (
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return "\n".join((*aligned, _caption(rows)))

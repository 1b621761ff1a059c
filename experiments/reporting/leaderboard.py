"""One page over many finished comparisons: who forgets how far, at what loss, at what cost.

A line is a strategy on one data set, model and kind of request, its numbers means over the seeds of
one run; no numbers of different runs are mixed. Every line leads to the command that made its run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting.leaderboard_template import TEMPLATE
from experiments.reporting.page import rendered
from experiments.runs.details import read_details
from experiments.runs.folder import COMPARE, RunFolder
from experiments.runs.results import ORIGINAL, RETRAIN, Row, read_results, read_table
from experiments.runs.results import strategies as named
from experiments.runs.table import DASH
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["Line", "leaderboard", "lines_of", "page"]

_GAPS = ("forget_gap", "backdoor_gap", "membership_gap", "utility_gap")
_SOURCES = dict(
    zip(_GAPS, ("forget_accuracy", "backdoor_success", "mia_auc", "test_accuracy"), strict=True)
)


@dataclass(frozen=True)
class Line:
    """A strategy in one run.

    Parameters
    ----------
    strategy, guarantee : str
        Alias and claim.
    seeds : int
        How many the means are over.
    numbers : tuple of float or None
        Forget, backdoor, membership and utility gap: mean absolute differences to retraining of
        the same seed, fractions; and the cost, examples processed over retraining's.
    run : int
        Position of its run.
    """

    strategy: str
    guarantee: str
    seeds: int
    numbers: tuple[float | None, ...]
    run: int = 0


@dataclass(frozen=True)
class _Made:
    name: str
    command: str


def leaderboard(folders: Sequence[Path], out: Path) -> Path:
    """Write the page over several finished comparisons, and return its path.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, and lists of recorded results: a TOML file whose ``[[recorded]]`` tables name
        a ``results.csv`` beside it (``file``), what it is about (``title``) and the command that
        made it (``command``).
    out : Path
        Where to write it.

    Raises
    ------
    ConfigError
        If a folder is no run folder, none of a comparison, or named twice; if a list is no such.
    ResultsError
        If a run has not finished or its files are damaged.
    """
    groups: dict[str, list[Line]] = {}
    runs: list[_Made] = []
    for number, place in enumerate(folders):
        if place.resolve() in [other.resolve() for other in folders[:number]]:
            raise ConfigError(f"{place} is named twice; name each run once")
        for title, made, rows in _recorded(place) if place.suffix == ".toml" else [_of_run(place)]:
            if RETRAIN not in named(rows):
                raise ConfigError(
                    f"{place} holds no retrained model to measure against; name a {COMPARE}, "
                    "`fedunlearn compare` makes one"
                )
            groups.setdefault(title, []).extend(lines_of(rows, len(runs)))
            runs.append(made)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page(groups, runs).encode())
    return out


def _of_run(place: Path) -> tuple[str, _Made, tuple[Row, ...]]:
    path = RunFolder.open(place).path.resolve()
    config, rows = read_results(path)
    return _title(config, rows), _Made(path.name, read_details(path).command), rows


def _recorded(place: Path) -> Iterator[tuple[str, _Made, tuple[Row, ...]]]:
    try:
        found = tomllib.loads(place.read_text(encoding="utf-8"))["recorded"]
        entries = [(one["title"], one["file"], one["command"]) for one in found]
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{place} is no list of recorded results ({error!r}); write [[recorded]] tables with "
            "title, file and command"
        ) from error
    for title, file, command in entries:
        yield title, _Made(Path(file).stem, command), read_table(place.parent / file)


def lines_of(rows: Sequence[Row], run: int = 0) -> list[Line]:
    """Return the lines of one comparison; the model before is no competitor."""
    base = {row.seed: row for row in rows if row.strategy == RETRAIN}
    found = []
    for name in named(rows):
        own = [row for row in rows if row.strategy == name and row.seed in base]
        if name == ORIGINAL or not own:
            continue
        gaps = [_gap(own, base, measure) for measure in _SOURCES.values()]
        found.append(Line(name, own[0].guarantee, len(own), (*gaps, _cost(own, base)), run))
    return found


def page(groups: Mapping[str, Sequence[Line]], runs: Sequence[object]) -> str:
    """Return the page as HTML that asks for nothing from anywhere."""
    ordered = [(title, sorted(lines, key=_rank)) for title, lines in sorted(groups.items())]
    content = {"title": "Leaderboard", "groups": ordered, "runs": runs, "dash": DASH}
    return rendered(TEMPLATE, content, kind="federated unlearning")


def _rank(line: Line) -> tuple[float, str]:
    """Return what puts lines in order: the mean of what was measured of the gaps."""
    gaps = [value for value in line.numbers[: len(_GAPS)] if value is not None]
    return float(np.mean(gaps)) if gaps else float("inf"), line.strategy


def _gap(own: Sequence[Row], base: Mapping[int, Row], measure: str) -> float | None:
    pairs = [(row.metrics[measure], base[row.seed].metrics[measure]) for row in own]
    gaps = [abs(ours - goal) for ours, goal in pairs if ours is not None and goal is not None]
    return float(np.mean(gaps)) if len(gaps) == len(pairs) else None


def _cost(own: Sequence[Row], base: Mapping[int, Row]) -> float | None:
    pairs = [(row.cost["examples"], base[row.seed].cost["examples"]) for row in own]
    shares = [ours / goal for ours, goal in pairs if ours is not None and goal]
    return float(np.mean(shares)) if len(shares) == len(pairs) else None


def _title(config: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return data set, model and kind of request in words."""
    data, model = config.get("data", {}), config.get("model", {})
    scope = next((row.scope for row in rows if row.strategy == RETRAIN), "")
    split = data.get("partitioner", "iid")
    return f"{data.get('name', 'data')} ({split}), {model.get('name', 'model')}: forget a {scope}"

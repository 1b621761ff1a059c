"""What every site told of the models on its own data, where the data are the sites' own."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.reporting.run import Cell, Run, number
from experiments.runs.details import SiteMeasure
from experiments.runs.table import DASH
from unlearning.told import LEAST, SPLITS

__all__ = ["SiteLine", "Sites", "site_table", "why_not_told"]

_FEW = f"fewer than {LEAST} examples: a site tells nothing of so few"
_NONE = "it has none, or was away"


@dataclass(frozen=True)
class SiteLine:
    """One site and one model."""

    strategy: str
    client: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Sites:
    """The table: a column for each split."""

    splits: tuple[str, ...]
    lines: tuple[SiteLine, ...]
    reasons: tuple[str, ...]


def site_table(run: Run) -> Sites | None:
    """Return the table by site, None in a simulation."""
    found: dict[tuple[str, int], dict[str, SiteMeasure]] = {}
    for one in run.details.site_measures:
        found.setdefault((one.strategy, one.client), {})[one.split] = one
    if not found:
        return None
    place = {name: at for at, name in enumerate(run.strategies)}
    lines = tuple(
        SiteLine(strategy, client, tuple(_cell(splits.get(split)) for split in SPLITS))
        for (strategy, client), splits in sorted(
            found.items(), key=lambda item: (place.get(item[0][0], len(place)), item[0][1])
        )
    )
    whys = dict.fromkeys(cell.why for line in lines for cell in line.cells if cell.why)
    return Sites(tuple(split.replace("_", "-") for split in SPLITS), lines, tuple(whys))


def _cell(found: SiteMeasure | None) -> Cell:
    if found is None:
        return Cell(DASH, why=_NONE)
    if found.accuracy is None:
        return Cell(DASH, why=_FEW)
    return Cell(number(found.accuracy), f"{found.examples} examples")


def why_not_told(name: str) -> str:
    """Return why a number is empty where the data are the sites' own."""
    if name == "test_accuracy":
        return "the server has no test file (data.test)"
    if name == "retain_accuracy":
        return f"no site told: all were away, or hold fewer than {LEAST} examples"
    if name == "forget_accuracy":
        return (
            f"its owners have deleted it, were away, or it is fewer than {LEAST} examples at each"
        )
    return "it needs single examples, and the sites tell sums alone"

"""The terminal's short table of what requests for tasks did; ``details.json`` has every number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.runs.details import TaskMeasure
from experiments.runs.results import CONTROLS
from experiments.runs.table import DASH, aligned, with_sd
from unlearning.evaluation.scorecard import Spread, summarise

__all__ = ["plain_task_table", "task_table"]

_ROUNDS = "relearn_rounds"
_COLUMNS = (  # measure, title
    ("retained", "Retained tasks"),
    ("retained_worst", "Worst of them"),
    ("worst_change", "Worst change"),
    ("old_head", "Old head"),
    ("probe", "Fresh probe"),
    (_ROUNDS, "Relearn rounds"),
    ("cka_retrained", "CKA to retrain"),
)


def _lines(measures: Sequence[TaskMeasure], limit: int | None) -> list[list[str]]:
    """Return the cells of the table, one list per strategy."""
    names = list(dict.fromkeys(found.strategy for found in measures))
    ordered = [*(n for n in CONTROLS if n in names), *(n for n in names if n not in CONTROLS)]
    return [
        [name, *(_cell(measures, name, measure, limit) for measure, _ in _COLUMNS)]
        for name in ordered
    ]


def _cell(measures: Sequence[TaskMeasure], strategy: str, name: str, limit: int | None) -> str:
    """Return mean and spread over the seeds; of several forgotten tasks their mean."""
    by_seed: dict[int, list[float]] = {}
    for found in measures:
        if (found.strategy, found.measure) == (strategy, name):
            by_seed.setdefault(found.seed, []).append(found.value)
    if not by_seed:
        return DASH
    counts = [value for values in by_seed.values() for value in values]
    if name == _ROUNDS and limit is not None:
        if min(counts) > limit:
            return f">{limit}"
        # A mean over relearnings that were given up is a lower bound.
        bound = "\N{GREATER-THAN OR EQUAL TO}" if max(counts) > limit else ""
        return bound + with_sd(_over(by_seed), 1)
    return with_sd(_over(by_seed), 3)


def _over(by_seed: dict[int, list[float]]) -> Spread:
    return summarise([float(np.mean(values)) for values in by_seed.values()])


def _caption(measures: Sequence[TaskMeasure], limit: int | None) -> str:
    gone = dict.fromkeys(str(found.task) for found in measures if found.measure == "probe")
    if not gone:
        return "tasks on test data; change: against retrain, of the task that lost most"
    given_up = "" if limit is None else f", given up after {limit}"
    return (
        f"tasks on test data; change: against retrain, of the task that lost most; old head and "
        f"fresh probe: what the trunk still gives of {', '.join(gone)}, to be as low as retrain's; "
        f"relearn: rounds until it is back{given_up}"
    )


def task_table(measures: Sequence[TaskMeasure], limit: int | None = None) -> Table:
    """Return the table for a terminal of 80 columns; standard deviations on a second line.

    Parameters
    ----------
    measures : sequence of TaskMeasure
        Of all strategies and seeds.
    limit : int or None
        Rounds after which relearning was given up.
    """
    out = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        caption=_caption(measures, limit),
        caption_justify="left",
    )
    out.add_column("Strategy", overflow="fold")
    for _, title in _COLUMNS:
        out.add_column(title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for strategy, *cells in _lines(measures, limit):
        pairs = [cell.partition(" ± ")[::2] for cell in cells]
        out.add_row(strategy, *(Text(mean) for mean, _ in pairs))
        if any(sd for _, sd in pairs):
            out.add_row("", *(Text(f"±{sd}" if sd else "", style="dim") for _, sd in pairs))
    return out


def plain_task_table(measures: Sequence[TaskMeasure], limit: int | None = None) -> str:
    """Return the same as plain text, one line per strategy, for logs and pipes."""
    lines = [["Strategy", *(title for _, title in _COLUMNS)], *_lines(measures, limit)]
    return "\n".join((*aligned(lines), _caption(measures, limit)))

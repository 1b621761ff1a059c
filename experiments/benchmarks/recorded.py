"""The recorded comparisons as one table each: ``python -m experiments.benchmarks.recorded``.

Prints what stands in ``experiments/results/families.md``, worked out from the files beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from experiments.runs.results import (
    FINE_TUNE,
    ORIGINAL,
    RETRAIN,
    Row,
    read_table,
    spread,
    strategies,
)
from experiments.runs.table import with_sd
from unlearning.evaluation.scorecard import (
    average_gap,
    improves,
    judge_marker,
    paired_differences,
    summarise,
)

__all__ = ["STRUCK", "Struck", "gaps", "main", "table"]

RESULTS = Path(__file__).parents[1] / "results"

_SHOWN = ("test_accuracy", "forget_accuracy", "backdoor_success", "mia_auc", "speedup_examples")
_TITLES = (
    "strategy",
    "test",
    "forget",
    "backdoor",
    "MIA AUC",
    "speed-up",
    "average gap",
    "closer than fine-tune",
    "verdict",
)
_ANSWERS = {True: "yes", False: "no", None: "not shown"}


@dataclass(frozen=True)
class Struck:
    """Figures of a file that are known to be wrong, until they are made again.

    Parameters
    ----------
    files : str
        Which files, as a pattern of names.
    titles : tuple of str
        The columns of the table that are wrong.
    why : str
        What was wrong.
    strategy : str
        Whose row; empty: everybody's.
    """

    files: str
    titles: tuple[str, ...]
    why: str
    strategy: str = ""

    def hits(self, strategy: str, title: str) -> bool:
        """Return whether a cell is wrong."""
        return title in self.titles and self.strategy in ("", strategy)


STRUCK: tuple[Struck, ...] = ()


def gaps(rows: Sequence[Row], strategy: str) -> dict[int, float | None]:
    """Return the average gap to the model retrained at the same seed, as a fraction, by seed."""
    cards = {row.seed: row.metrics for row in rows if row.strategy == RETRAIN}
    return {
        row.seed: average_gap(row.metrics, cards[row.seed])
        for row in rows
        if row.strategy == strategy and row.seed in cards
    }


def table(rows: Sequence[Row], struck: Sequence[Struck] = ()) -> str:
    """Return one comparison in Markdown: mean and standard deviation over seeds.

    What is ``struck`` is crossed out, and why stands below.

    ``closer`` says whether the average gap is smaller than fine-tuning's: yes if the whole 95 %
    interval of the paired differences says so, no if it is not smaller on average. The verdict is
    that of the planted backdoor, and of nothing else.
    """
    lines = [f"| {' | '.join(_TITLES)} |", "| --- " * len(_TITLES) + "|"]
    used: dict[str, None] = {}
    before = _known(rows, ORIGINAL, "backdoor_success")
    for strategy in strategies(rows):
        found = [value for value in gaps(rows, strategy).values() if value is not None]
        closer, verdict = "", ""
        if strategy not in (ORIGINAL, RETRAIN):
            lead = paired_differences(gaps(rows, strategy), gaps(rows, FINE_TUNE))
            closer = "" if strategy == FINE_TUNE else _ANSWERS[improves(lead)]
            judged = judge_marker(before, _above_retrained(rows, strategy))
            why_none = "none: no power" if before else "none: no marker"
            verdict = why_none if judged is None else judged.value
        cells = (
            f"`{strategy}`",
            *(with_sd(spread(rows, strategy, name), 3) for name in _SHOWN),
            with_sd(summarise(found), 3) if found else "",
            closer,
            verdict,
        )
        shown = []
        for title, cell in zip(_TITLES, cells, strict=True):
            wrong = [one for one in struck if cell and one.hits(strategy, title)]
            used |= {f"Struck out, {', '.join(one.titles)}: {one.why}.": None for one in wrong}
            shown.append(f"~~{cell}~~" if wrong else cell)
        lines.append(f"| {' | '.join(shown)} |")
    return "\n\n".join(["\n".join(lines), *used])


def main() -> None:
    """Print a table for every recorded comparison."""
    for path in sorted(RESULTS.glob("families_*.csv")):
        rows = read_table(path)
        struck = [one for one in STRUCK if fnmatch(path.name, one.files)]
        seeds = len({row.seed for row in rows})
        sys.stdout.write(f"## `{path.name}`, {seeds} seeds\n\n{table(rows, struck)}\n\n")


def _known(rows: Sequence[Row], strategy: str, name: str) -> list[float]:
    found = (row.number(name) for row in rows if row.strategy == strategy)
    return [value for value in found if value is not None]


def _above_retrained(rows: Sequence[Row], strategy: str) -> list[float]:
    ours, theirs = (
        {row.seed: row.number("backdoor_success") for row in rows if row.strategy == name}
        for name in (strategy, RETRAIN)
    )
    return paired_differences(ours, theirs)


if __name__ == "__main__":
    main()

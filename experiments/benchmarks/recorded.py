"""The recorded comparisons as one table each: ``python -m experiments.benchmarks.recorded``.

Prints what stands in ``experiments/results/families.md``, worked out from the files beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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

__all__ = ["gaps", "main", "table"]

RESULTS = Path(__file__).parents[1] / "results"

_SHOWN = ("test_accuracy", "forget_accuracy", "backdoor_success", "mia_auc", "speedup_examples")
_ANSWERS = {True: "yes", False: "no", None: "not shown"}


def gaps(rows: Sequence[Row], strategy: str) -> dict[int, float | None]:
    """Return the average gap to the model retrained at the same seed, as a fraction, by seed."""
    cards = {row.seed: row.metrics for row in rows if row.strategy == RETRAIN}
    return {
        row.seed: average_gap(row.metrics, cards[row.seed])
        for row in rows
        if row.strategy == strategy and row.seed in cards
    }


def table(rows: Sequence[Row]) -> str:
    """Return one comparison in Markdown: mean and standard deviation over seeds.

    ``closer`` says whether the average gap is smaller than fine-tuning's: yes if the whole 95 %
    interval of the paired differences says so, no if it is not smaller on average. The verdict is
    that of the planted backdoor, and of nothing else.
    """
    titles = ("test", "forget", "backdoor", "MIA AUC", "speed-up")
    head = f"| strategy | {' | '.join(titles)} | average gap | closer than fine-tune | verdict |"
    lines = [head, "| --- " * (len(titles) + 4) + "|"]
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table for every recorded comparison."""
    for path in sorted(RESULTS.glob("families_*.csv")):
        rows = read_table(path)
        seeds = len({row.seed for row in rows})
        sys.stdout.write(f"## `{path.name}`, {seeds} seeds\n\n{table(rows)}\n\n")


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

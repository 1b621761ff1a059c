"""Which methods came closer to retraining than both controls: fine-tuning and a random reset.

``python -m experiments.benchmarks.against_controls`` reads the recorded comparisons
``recent_client.csv``, ``recent_class.csv`` and ``recent_feature.csv`` and prints, per scope, the
average gap to the retrained model of the same seed (SalUn's), mean over the seeds. A method that is
no closer than both controls in any of them has to say so in its summary; a test reads this module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.runs.results import CONTROLS, FINE_TUNE, RETRAIN, Row, read_table
from unlearning.evaluation.scorecard import average_gap

__all__ = ["RANDOM_RESET", "RECENT", "beaten", "gaps", "main"]

RANDOM_RESET = "random-reset"
RESULTS = Path(__file__).parents[1] / "results"
RECENT = {scope: RESULTS / f"recent_{scope}.csv" for scope in ("client", "class", "feature")}


def gaps(rows: tuple[Row, ...]) -> dict[str, float]:
    """Return the average gap to retraining of every strategy, mean over the seeds."""
    reference = {row.seed: row.metrics for row in rows if row.strategy == RETRAIN}
    found: dict[str, list[float]] = {}
    for row in rows:
        gap = average_gap(row.metrics, reference[row.seed])
        if gap is not None:
            found.setdefault(row.strategy, []).append(gap)
    return {name: float(np.mean(values)) for name, values in found.items()}


def beaten(found: Mapping[str, float]) -> set[str]:
    """Return the methods that are no closer to retraining than the better of the two controls."""
    bound = min(found[FINE_TUNE], found[RANDOM_RESET])
    return {
        name
        for name, gap in found.items()
        if name not in (*CONTROLS, RANDOM_RESET) and gap >= bound
    }


def main() -> int:
    """Print the table."""
    print("| scope | strategy | average gap to retraining | closer than both controls |")
    print("| --- | --- | --- | --- |")
    for scope, path in RECENT.items():
        found = gaps(read_table(path))
        worse = beaten(found)
        for name, gap in sorted(found.items(), key=lambda item: item[1]):
            is_control = name in (*CONTROLS, RANDOM_RESET)
            said = "control" if is_control else "no" if name in worse else "yes"
            print(f"| {scope} | `{name}` | {gap:.3f} | {said} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

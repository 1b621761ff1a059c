"""Rows of figures: one about many deletions, a CSV file, a line to read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["CONFIGS", "RESULTS", "Row", "line", "parts_of", "summary", "write"]

RESULTS = Path(__file__).parents[1] / "results"
CONFIGS = Path(__file__).parents[1] / "configs"

Row = dict[str, object]


def parts_of(module: Mapping[str, Any]) -> dict[str, Callable[..., list[Row]]]:
    """Return the functions of a module that are called ``bench_<part>``, by part."""
    return {
        name.removeprefix("bench_").replace("_", "-"): value
        for name, value in module.items()
        if name.startswith("bench_")
    }


def line(row: Row) -> str:
    """Return a row as text, numbers with four digits."""
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())


def summary(name: str, rows: Sequence[Row]) -> Row:
    """Return one row about all deletions of a part."""
    if "ratio" not in rows[0]:
        return {"part": name, "rows": len(rows)}

    def column(key: str) -> list[float]:
        return [float(str(row[key])) for row in rows]

    return {
        "part": name,
        "deletions": len(rows),
        "identical": sum(bool(row["identical"]) for row in rows),
        "largest_difference": max(column("largest_difference")),
        "median_unlearn_s": median(column("unlearn_s")),
        "median_retrain_s": median(column("retrain_s")),
        "median_ratio": median(column("ratio")),
    }


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, numbers with six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
            for row in rows
        )

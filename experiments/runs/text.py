"""What the measures of models of text are called, and the terminal's table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from experiments.runs.details import TextMeasure
from experiments.runs.results import CONTROLS
from experiments.runs.table import DASH, with_sd
from unlearning.evaluation.scorecard import summarise
from unlearning.records.files import write_atomically

__all__ = ["EXPOSURE", "TITLES", "plain_text_table", "write_text_measures"]

EXPOSURE = "canary_exposure"
TITLES = {  # measure: title, decimals
    "retain_perplexity": ("Perplexity, retain set", 2),
    "forget_perplexity": ("Perplexity, forget set", 2),
    "held_out_perplexity": ("Perplexity, held-out text like it", 2),
    "test_perplexity": ("Perplexity, test set", 2),
    "forget_completion": ("Verbatim completion, forget set", 3),
    "held_out_completion": ("Verbatim completion, held-out text", 3),
    EXPOSURE: ("Exposure of canaries (bits)", 2),
    "canary_completion": ("Canaries completed", 3),
}


def write_text_measures(run_dir: Path, measures: Sequence[TextMeasure]) -> None:
    """Write ``text.csv``, a row per strategy, seed and measure, in the order they were made."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("strategy", "seed", "measure", "value"))
    writer.writerows((one.strategy, one.seed, one.measure, one.value) for one in measures)
    write_atomically(run_dir / "text.csv", text.getvalue().encode())


def plain_text_table(measures: Sequence[TextMeasure]) -> str:
    """Return a line per measure and a column per strategy, mean and spread over the seeds."""
    there = dict.fromkeys(found.strategy for found in measures)
    names = [*(n for n in CONTROLS if n in there), *(n for n in there if n not in CONTROLS)]
    lines = [["Text", *names]]
    for measure, (title, decimals) in TITLES.items():
        cells = []
        for name in names:
            values = [m.value for m in measures if (m.measure, m.strategy) == (measure, name)]
            cells.append(with_sd(summarise(values), decimals) if values else DASH)
        if any(cell != DASH for cell in cells):
            lines.append([title, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )

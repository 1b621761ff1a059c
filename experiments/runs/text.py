"""What the measures of models of text are called, and the terminal's table of them."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.runs.details import TextMeasure
from experiments.runs.results import CONTROLS
from experiments.runs.table import DASH, with_sd
from unlearning.evaluation.scorecard import summarise

__all__ = ["EXPOSURE", "TITLES", "plain_text_table"]

EXPOSURE = "canary_exposure"
TITLES = {  # measure: title, decimals
    "retain_perplexity": ("Perplexity, retain set", 2),
    "forget_perplexity": ("Perplexity, forget set", 2),
    "held_out_perplexity": ("Perplexity, held-out text like it", 2),
    "test_perplexity": ("Perplexity, test set", 2),
    "forget_completion": ("Word-for-word completion, forget set", 3),
    "held_out_completion": ("Word-for-word completion, held-out", 3),
    EXPOSURE: ("Exposure of canaries (bits)", 2),
    "canary_completion": ("Canaries completed", 3),
}


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

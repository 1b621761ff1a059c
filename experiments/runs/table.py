"""The comparison as one table for a terminal, a log or a pipe, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.runs.results import FailedRow, Row, spread, strategies
from unlearning.evaluation.scorecard import METRICS, Spread

__all__ = ["DASH", "aligned", "plain_table", "significant", "table", "with_sd"]

DASH = "\N{EN DASH}"
_FAILED = "failed"
_ROUNDING = 1e-9  # a relative deviation below this is float arithmetic, not spread
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


def _lines(rows: Sequence[Row], failed: Sequence[FailedRow]) -> list[list[str]]:
    """Return the cells of the table, one list per strategy; last, those without any result."""
    lines = []
    for strategy in strategies(rows):
        guarantee = next(row.guarantee for row in rows if row.strategy == strategy)
        cells = [
            with_sd(spread(rows, strategy, name), 3 if name in METRICS else None)
            for name, *_ in _COLUMNS
        ]
        lines.append([strategy, guarantee or DASH, *cells])
    lost = {row.strategy: row for row in failed} if failed else {}
    for name, row in lost.items():
        if name not in strategies(rows):
            lines.append([name, row.guarantee or DASH, _FAILED, *[DASH] * (len(_COLUMNS) - 1)])
    return lines


def _reasons(failed: Sequence[FailedRow]) -> list[str]:
    return [f"{row.strategy} {_FAILED} (seed {row.seed}): {row.failed}" for row in failed]


def _caption(rows: Sequence[Row]) -> str:
    seeds = len({row.seed for row in rows})
    kind = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    return f"{kind}; speed-up over retraining by examples processed; {DASH} = not measured"


def table(rows: Sequence[Row], failed: Sequence[FailedRow] = ()) -> Table:
    """Return the comparison as a table that fits a terminal of 80 columns.

    One entry per strategy; its guarantee and the standard deviations stand on a second line. One
    that failed has a line as well, and below the table the reason.
    """
    out = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        caption="\n".join((*_reasons(failed), _caption(rows))),
        caption_justify="left",
    )
    out.add_column("Strategy\nguarantee", overflow="fold")
    for *_, title in _COLUMNS:
        out.add_column(title, justify="right", no_wrap=True)
    for strategy, guarantee, *cells in _lines(rows, failed):
        pairs = [(strategy, guarantee), *(cell.partition(" ± ")[::2] for cell in cells)]
        second = [pairs[0][1], *(f"±{sd}" if sd else "" for _, sd in pairs[1:])]
        out.add_row(*(Text(first) for first, _ in pairs))
        out.add_row(*(Text(text, style="dim") for text in second))
    return out


def plain_table(rows: Sequence[Row], failed: Sequence[FailedRow] = ()) -> str:
    """Return the comparison as plain text, one line per strategy, for logs and pipes."""
    titles = (title for _, title, _ in _COLUMNS)
    lines = [["Strategy", "Guarantee", *titles], *_lines(rows, failed)]
    return "\n".join((*aligned(lines, left=2), *_reasons(failed), _caption(rows)))


def aligned(lines: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    r"""Return lines of cells as text in columns, the first ``left`` of them to the left.

    Examples
    --------
    >>> print("\n".join(aligned([["Strategy", "n"], ["no-t", "12"]])))
    Strategy   n
    no-t      12
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]

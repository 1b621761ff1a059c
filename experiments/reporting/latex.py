r"""The report's tables for a paper: ``table.tex``, to be ``\input`` with booktabs and graphicx.

Names are escaped; numbers are set in mathematics, an interval below its mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from experiments.reporting.closeness import Differences
from experiments.reporting.cost import WORK, Costs
from experiments.reporting.run import Cell
from experiments.reporting.scorecard import Scorecard

__all__ = ["tables"]

_SEEDS = "Mean over {seeds} training seeds, below it the 95\\,\\% interval."
_ONE = "One training seed, so no interval."
_DASH = "--"
_SPECIAL = {letter: rf"\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash ",
    "~": r"\textasciitilde ",
    "^": r"\textasciicircum ",
}
_ACROSS = 4  # columns of numbers side by side at most; more are shared out evenly over tables
# Never wider than the column it stands in, and never enlarged (needs graphicx, as pictures do).
_FLOAT = r"""\begin{{table}}[tbp]
\centering
\caption{{{caption}}}
\label{{{label}}}
\footnotesize\setlength{{\tabcolsep}}{{3pt}}%
\resizebox{{\ifdim\width>\columnwidth\columnwidth\else\width\fi}}{{!}}{{%
{tabular}%
}}
\end{{table}}"""


def tables(
    card: Scorecard, differences: Differences | None, costs: Costs, *, seeds: int, command: str
) -> str:
    """Return the scorecard, the paired differences and the total cost as LaTeX tables.

    Parameters
    ----------
    card, differences, costs : Scorecard, Differences or None, Costs
        As the page shows them.
    seeds : int
        Number of training seeds.
    command : str
        What made them, for a comment on top.
    """
    note = _SEEDS.format(seeds=seeds) if seeds > 1 else _ONE
    parts = [f"% {' '.join(command.split())}"] if command.strip() else []
    parts.append(r"% \usepackage{booktabs,graphicx}")
    lines = [((line.strategy, line.guarantee), (*line.cells, line.verdict)) for line in card.lines]
    parts.append(
        _table(["Strategy", "Guarantee"], [*card.titles, "Marker"], lines, note, "scorecard")
    )
    if differences is not None:
        margins = [
            f"{title} (±{margin:g})"
            for title, margin in zip(differences.titles, differences.margins, strict=True)
        ]
        words = f"Paired differences to the retrained model; in brackets the margin. {note}"
        found = [((line.strategy,), line.cells) for line in differences.lines]
        parts.append(_table(["Strategy"], margins, found, words, "differences"))
    titles = [f"{title} ({unit})" if unit else title for _, title, unit in WORK]
    titles += ["History (MB)", "Speed-up (wall)", "Speed-up (examples)"]
    strategy, totals = "", []
    for work in costs.lines:
        strategy = work.strategy if work.span else strategy
        if len(work.cells) == len(titles):
            totals.append(((strategy,), work.cells))
    words = f"Cost of unlearning and recovery together; of the original model, of learning. {note}"
    parts.append(_table(["Strategy"], titles, totals, words, "cost"))
    return "\n".join(parts)


def _table(
    names: Sequence[str],
    titles: Sequence[str],
    lines: Sequence[tuple[tuple[str, ...], Sequence[Cell]]],
    caption: str,
    label: str,
) -> str:
    """Return floating tables of a few columns each; ``caption`` is LaTeX already."""
    made = []
    across = math.ceil(len(titles) / math.ceil(len(titles) / _ACROSS)) if titles else 1
    for start in range(0, len(titles), across):
        some = slice(start, start + across)
        part = [(given, cells[some]) for given, cells in lines]
        which = f"-{start // across + 1}" if len(titles) > across else ""
        words = f"{caption} (Continued.)" if start else caption
        tabular = _tabular(names, titles[some], part)
        made.append(_FLOAT.format(tabular=tabular, caption=words, label=f"tab:{label}{which}"))
    return "\n".join(made).replace("±", r"$\pm$")


def _tabular(
    names: Sequence[str],
    titles: Sequence[str],
    lines: Sequence[tuple[tuple[str, ...], Sequence[Cell]]],
) -> str:
    words = {place for place, title in enumerate(titles) if title == "Marker"}
    rows: list[list[str]] = []
    for given, cells in lines:
        numbers = [
            _escaped(text) if place in words else text
            for place, text in enumerate(map(_number, cells))
        ]
        rows.append([*map(_escaped, given), *numbers])
        if any(cell.low is not None for cell in cells):
            rows.append([*("" for _ in given), *map(_interval, cells)])
    made = [
        rf"\begin{{tabular}}{{{'l' * len(names)}{'r' * len(titles)}}}",
        r"\toprule",
        _row(map(_escaped, [*names, *titles])),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(made)


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    """Return a name as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _number(cell: Cell) -> str:
    if cell.why:
        return _DASH
    return cell.text if cell.value is None else _mathematics(cell.text.partition(" ± ")[0])


def _interval(cell: Cell) -> str:
    if cell.low is None or cell.high is None or cell.value is None:
        return ""
    digits = len(cell.text.partition(" ± ")[0].partition(".")[2])
    ends = ", ".join(f"{end:,.{digits}f}" for end in (cell.low, cell.high))
    return rf"{{\scriptsize {_mathematics(f'[{ends}]')}}}"


def _mathematics(text: str) -> str:
    """Return a number as LaTeX; commas in thousands must not be spaced as in a list."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    inner = ", ".join(part.replace(",", "{,}") for part in plain.split(", "))
    return f"${inner}$"

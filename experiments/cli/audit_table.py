"""An audit's findings on a terminal: the cards, then a row per control and strategy."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.audit.results import Audit, Estimate, MetricRecord, RowRecord
from experiments.runs.table import DASH, significant

__all__ = ["cards_table", "closing", "rows_table"]

_DEAD = "dim strike"  # a metric that failed its card
_COLOURS = {"forgotten": "green", "not forgotten": "red", "inconclusive": "yellow"}


def cards_table(audit: Audit) -> Table:
    """Return which metrics may be trusted in this scenario, and why others may not."""
    table = _table("Validity cards")
    for title in ("Metric", "Card", "False\nalarms", "Separation\nAUC", "Dose\nrank"):
        table.add_column(title, justify="left" if title in ("Metric", "Card") else "right")
    table.add_column("Why not", overflow="fold")
    for metric in audit.metrics:
        card = metric.card
        table.add_row(
            Text(f"{metric.id} {metric.name}", style="" if card.passes else "dim"),
            Text(card.word, style="green" if card.passes else "dim"),
            _number(card.false_alarm_rate),
            _number(card.separation_auc),
            _number(card.dose_spearman),
            Text(card.reason, style="dim"),
        )
    return table


def rows_table(audit: Audit) -> Table:
    """Return what each measured metric says of each row; those that failed their card greyed."""
    measured = [m for m in audit.metrics if any(m.id in row.metrics for row in audit.rows)]
    shown = [m for m in measured if m.card.separation_auc is not None]
    table = _table("Value, and place between retraining (0) and no unlearning (1)")
    table.add_column("Strategy\nguarantee", overflow="fold")
    for metric in shown:
        style = "" if metric.card.passes else _DEAD
        table.add_column(Text(metric.id, style=style), justify="right", no_wrap=True)
    table.add_column("Verdict", overflow="fold")
    for row in audit.rows:
        cells = [_cell(row, metric) for metric in shown]
        style = _COLOURS.get(row.verdict or "", "")
        table.add_row(
            Text(f"{row.strategy}\n{row.guarantee}"), *cells, Text(_verdict(row), style=style)
        )
    return table


def closing(audit: Audit) -> str:
    """Return what it took and how far it goes, in words."""
    lines = [
        f"{audit.federations} federations ({audit.reused} were there already), "
        f"{audit.models_per_side} models per side; {audit.seconds:.0f} s with {audit.workers} "
        f"workers, {audit.cpu_seconds or 0:.0f} s of processors, "
        f"{audit.peak_rss_bytes / 1e6:.0f} MB at most"
    ]
    if audit.exploratory:
        lines.append("few models per side: a first look, no more")
    lines += [
        f"{refused['strategy']} did not answer: {refused['reason']}" for refused in audit.refused
    ]
    return "\n".join(lines)


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def _cell(row: RowRecord, metric: MetricRecord) -> Text:
    found = row.metrics.get(metric.id)
    if found is None or found.value is None:
        return Text(DASH)
    return Text(
        f"{significant(found.value)}\n{_place(found)}", style="" if metric.card.passes else "dim"
    )


def _place(found: Estimate) -> str:
    return DASH if found.calibrated is None else f"({found.calibrated:+.2f})"


def _verdict(row: RowRecord) -> str:
    if row.verdict is None:
        return f"no verdict: {row.why}"
    more = f"; {row.more_seeds} more seeds" if row.more_seeds else ""
    return f"{row.verdict} ({row.why}{more})"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"

"""Average gap to retraining against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from matplotlib.transforms import offset_copy

from experiments.reporting.svg import (
    FORGET,
    INK,
    MUTED,
    PAPER,
    TEST,
    WIDTH_IN,
    document,
    style,
)

__all__ = ["Trade", "trade_off"]

_LINE_PT, _LETTER_PT = 12.0, 5.5  # size of a label


@dataclass(frozen=True)
class Trade:
    """Where one strategy stands: what it cost and how far it is from retraining.

    Parameters
    ----------
    strategy : str
        Its alias.
    cost, gap : float
        Means over seeds.
    low, high : float or None
        95 % interval of the gap; None for one seed.
    control : bool
        Drawn hollow.
    """

    strategy: str
    cost: float
    gap: float
    low: float | None = None
    high: float | None = None
    control: bool = False


def trade_off(
    trades: Sequence[Trade], *, cost_label: str, untouched: float | None = None
) -> str | None:
    """Return average gap to retraining against cost, one point per strategy.

    Parameters
    ----------
    trades : sequence of Trade
        Retraining among them, at gap 0.
    cost_label : str
        What the horizontal axis shows, with its unit.
    untouched : float or None
        Gap of the original model, drawn as a line: what doing nothing gives.

    Returns
    -------
    str or None
        A whole SVG document; None if there is nothing to compare.
    """
    if not trades:
        return None
    with style("trade-off"):
        figure = Figure(figsize=(WIDTH_IN, 3.3), dpi=72)  # one dot is one point
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for trade in trades:
            if trade.low is not None and trade.high is not None:
                low = max(trade.low, 0.0)  # a gap is a distance
                axes.plot([trade.cost] * 2, [low, trade.high], color=MUTED, linewidth=0.9)
            axes.plot(
                trade.cost,
                trade.gap,
                marker="s" if trade.control else "o",
                markersize=7,
                markerfacecolor=PAPER if trade.control else TEST,
                markeredgecolor=INK if trade.control else TEST,
                markeredgewidth=1.2,
            )
        highest = max([*(t.high or t.gap for t in trades), untouched or 0.0, 0.01])
        axes.set_ylim(-0.06 * highest, 1.14 * highest)
        axes.set_xlim(0, 1.14 * max([*(t.cost for t in trades), 1e-9]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel(cost_label)
        axes.set_ylabel("average gap to retraining")
        if untouched is not None:
            axes.axhline(untouched, color=FORGET, linestyle="--", linewidth=1.2)
            axes.annotate(
                "original model: nothing done",
                (1, untouched),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
                color=FORGET,
            )
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.145, top=0.975)
        _label(axes, figure, trades)
        return document(figure)


def _label(axes: Axes, figure: Figure, trades: Sequence[Trade]) -> None:
    """Write each name right of its point, moved up as far as another name is in the way.

    A name that would run out of the picture is written left of its point.
    """
    placed: list[tuple[float, float, float]] = []  # left, right, height of the names written
    edge = float(axes.transAxes.transform((1, 0))[0])
    for trade in sorted(trades, key=lambda trade: trade.gap):
        x, y = (float(v) for v in axes.transData.transform((trade.cost, trade.gap)))
        width = _LETTER_PT * (len(trade.strategy) + 3)
        is_outside = x + width > edge
        left, height = x - is_outside * width, y
        for low, high, taken in sorted(placed, key=lambda item: item[2]):
            if left < high and low < left + width and abs(height - taken) < _LINE_PT:
                height = taken + _LINE_PT
        placed.append((left, left + width, height))
        aside = -9 if is_outside else 9
        place = offset_copy(axes.transData, fig=figure, x=aside, y=height - y, units="points")
        side = "right" if is_outside else "left"
        axes.text(
            trade.cost, trade.gap, trade.strategy, transform=place, va="center", ha=side, color=INK
        )

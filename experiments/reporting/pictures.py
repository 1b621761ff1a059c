"""The pictures of a report beside its timeline: cost, differences, attack, who gains or loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from experiments.reporting.svg import (
    FORGET,
    GRID,
    INK,
    MUTED,
    PAPER,
    TEST,
    UNLEARN,
    WIDTH_IN,
    document,
    style,
)

__all__ = ["Change", "Curves", "Gap", "Trade", "attack", "change_map", "differences", "trade_off"]

Floats = NDArray[np.float64]

_LINE_PT, _LETTER_PT = 12.0, 5.5  # size of a label
_MOST_ACROSS = 4  # panels side by side
_LEAST_CHANGE = 0.05  # changes below this are never drawn in full colour
_MOST_WRITTEN = 1000  # cells beyond which a map shows colours only
_DARK, _BRIGHT = "#101418", "#fbfbfb"  # upon the map's own colours, whatever the page's are
_LOSS_TO_GAIN = "PuOr"  # told apart by the colour-blind, too


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


@dataclass(frozen=True)
class Gap:
    """One paired difference to the retrained model; the interval is None for one seed."""

    strategy: str
    mean: float
    low: float | None = None
    high: float | None = None
    control: bool = False


@dataclass(frozen=True)
class Curves:
    """Attack curves of one strategy and the band in which they lie if there is nothing to find.

    Parameters
    ----------
    strategy : str
        Its alias.
    title : str
        What stands beside the name, the area for example.
    fpr, tpr : array of shape (n,)
        The mean curve.
    single : sequence of (fpr, tpr)
        The seeds' own curves; empty where there is one.
    band : tuple of three arrays or None
        Shares of false alarms, lower and upper end.
    steps : bool
        Between two points a curve stays at the earlier one; False: it is a straight line.
    """

    strategy: str
    title: str
    fpr: Floats
    tpr: Floats
    single: Sequence[tuple[Floats, Floats]] = ()
    band: tuple[Floats, ...] | None = None
    steps: bool = True


@dataclass(frozen=True)
class Change:
    """Change in accuracy of one strategy.

    Parameters
    ----------
    strategy : str
        Its alias.
    cells : array of shape (clients, columns)
        On every client's own data, per class or task; NaN: no example.
    clients : array of shape (clients,)
        Over all of a client's data.
    test : array of shape (test columns,)
        On the test data.
    """

    strategy: str
    cells: Floats
    clients: Floats
    test: Floats


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
    """Write each name right of its point, moved up as far as another name is in the way."""
    placed: list[tuple[float, float, float]] = []  # left, right, height of the names written
    for trade in sorted(trades, key=lambda trade: trade.gap):
        x, y = (float(v) for v in axes.transData.transform((trade.cost, trade.gap)))
        left, right, height = x, x + _LETTER_PT * (len(trade.strategy) + 3), y
        for low, high, taken in sorted(placed, key=lambda item: item[2]):
            if left < high and low < right and abs(height - taken) < _LINE_PT:
                height = taken + _LINE_PT
        placed.append((left, right, height))
        place = offset_copy(axes.transData, fig=figure, x=9, y=height - y, units="points")
        axes.text(trade.cost, trade.gap, trade.strategy, transform=place, va="center", color=INK)


def differences(panels: Mapping[str, Sequence[Gap]], margins: Mapping[str, float]) -> str | None:
    """Return paired differences to retraining, one panel per metric, one line per strategy.

    Parameters
    ----------
    panels : mapping of str to sequence of Gap
        By the metric's title; the same strategies may stand in all.
    margins : mapping of str to float
        By the metric's title; drawn as a band around 0.

    Returns
    -------
    str or None
        A whole SVG document; None if there is no difference.
    """
    shown = {title: gaps for title, gaps in panels.items() if gaps}
    names = list(dict.fromkeys(gap.strategy for gaps in shown.values() for gap in gaps))
    if not names:
        return None
    place = {name: len(names) - 1 - i for i, name in enumerate(names)}
    height = 0.85 + 0.27 * len(names)
    with style("differences"):
        figure = Figure(figsize=(WIDTH_IN, height))
        FigureCanvasAgg(figure)
        row = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (title, gaps) in zip(row, shown.items(), strict=True):
            if title in margins:
                axes.axvspan(-margins[title], margins[title], color=UNLEARN, linewidth=0, zorder=0)
            axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
            for gap in gaps:
                y = place[gap.strategy]
                if gap.low is not None and gap.high is not None:
                    axes.plot([gap.low, gap.high], [y, y], color=MUTED, linewidth=1.6)
                axes.plot(
                    gap.mean,
                    y,
                    marker="s" if gap.control else "o",
                    markersize=5.5,
                    markerfacecolor=PAPER if gap.control else TEST,
                    markeredgecolor=INK if gap.control else TEST,
                )
            axes.set_title(title, loc="left", fontsize=8.5)
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(axis="x", labelsize=7)
        row[0].set_ylim(-0.6, len(names) - 0.4)
        row[0].set_yticks(list(place.values()), list(place), color=INK)
        longest = max(map(len, names))
        figure.subplots_adjust(
            left=min(0.3, 0.03 + 0.0092 * longest),
            right=0.985,
            bottom=0.3 / height,
            top=1 - 0.52 / height,
            wspace=0.14,
        )
        handles: list[Artist] = [
            Patch(facecolor=UNLEARN, edgecolor=GRID, label="margin declared before the run"),
            Line2D([], [], color=MUTED, linewidth=1.6, label="95 % interval"),
        ]
        figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=8.5)
        return document(figure)


def attack(found: Sequence[Curves]) -> str | None:
    """Return the attack's curves, one panel per strategy, each with its null band.

    Returns
    -------
    str or None
        A whole SVG document; None if there is no curve.
    """
    if not found:
        return None
    lines = -(-len(found) // _MOST_ACROSS)
    columns = -(-len(found) // lines)
    height = 0.75 + 2.2 * lines
    with style("attack"):
        figure = Figure(figsize=(WIDTH_IN, height))
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        for axes, curves in zip(grid.flat, found, strict=False):
            if curves.band is not None:
                shares, low, high = curves.band
                step = "post" if curves.steps else None
                axes.fill_between(shares, low, high, step=step, color=UNLEARN, linewidth=0)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
            drawn = "steps-post" if curves.steps else "default"
            for fpr, tpr in curves.single:
                axes.plot(fpr, tpr, drawstyle=drawn, color=TEST, linewidth=0.6, alpha=0.45)
            axes.plot(curves.fpr, curves.tpr, drawstyle=drawn, color=TEST, linewidth=1.7)
            axes.set_title(curves.strategy, loc="left", fontsize=9, fontweight="bold")
            axes.text(
                0.97,
                0.05,
                curves.title,
                transform=axes.transAxes,
                ha="right",
                fontsize=8,
                color=INK,
            )
        first = grid[0, 0]
        first.set_xlim(0, 1)
        first.set_ylim(0, 1.02)
        first.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        first.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        for axes in grid[:, 0]:
            axes.set_ylabel("share found")
        for column in range(columns):
            last = grid[(len(found) - 1 - column) // columns, column]
            last.set_xlabel("share of false alarms")
            last.tick_params(labelbottom=True)
        figure.subplots_adjust(
            left=0.07,
            right=0.975,
            bottom=0.47 / height,
            top=1 - 0.52 / height,
            hspace=0.3,
            wspace=0.14,
        )
        handles: list[Artist] = [
            Line2D([], [], color=TEST, linewidth=1.7, label="attack"),
            Patch(facecolor=UNLEARN, edgecolor=GRID, label="nothing to find: 95 % of curves"),
        ]
        if any(curves.single for curves in found):
            thin = Line2D([], [], color=TEST, linewidth=0.6, alpha=0.6, label="single seeds")
            handles.insert(1, thin)
        figure.legend(handles=handles, loc="upper left", ncols=3, frameon=False, fontsize=8.5)
        return document(figure)


def change_map(
    found: Sequence[Change], clients: Sequence[str], columns: Sequence[str], *, by: str = "class"
) -> str | None:
    """Return the change in accuracy per remaining client and class, one panel per strategy.

    Parameters
    ----------
    found : sequence of Change
        All over the same clients and columns.
    clients, columns : sequence of str
        Names of the rows and of the columns.
    by : str
        What the columns are.

    Returns
    -------
    str or None
        A whole SVG document; None if there is no change to show.
    """
    if not found or not clients:
        return None
    tables = [_table(change) for change in found]
    reach = max(_LEAST_CHANGE, *(float(np.nanmax(np.abs(t), initial=0)) for t in tables))
    rows, width = tables[0].shape
    across = min(len(found), 2 if width <= 24 else 1)
    lines = -(-len(found) // across)
    panel = min(4.5, max(1.3, 0.2 * rows))
    top, bottom, between = 0.85, 0.5, 0.62
    height = top + bottom + lines * panel + (lines - 1) * between
    with style("change-map"):
        figure = Figure(figsize=(WIDTH_IN, height))
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, across, squeeze=False)
        norm, colors = Normalize(-reach, reach), colormaps[_LOSS_TO_GAIN]
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        written = len(found) * tables[0].size <= _MOST_WRITTEN
        for axes, change, table in zip(grid.flat, found, tables, strict=False):
            # The picture of a large map is a few bytes per cell, and asks for no file.
            axes.imshow(table, cmap=colors, norm=norm, interpolation="none", aspect="auto")
            if written:
                _write(axes, table, reach)
            axes.set_title(change.strategy, loc="left", fontsize=9, fontweight="bold")
            axes.grid(visible=False)
            axes.tick_params(length=0, labelsize=7)
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)
            _ticks(axes, clients, columns, single=change.cells.shape[1] == 1)
            axes.set_xlabel(by, fontsize=8)
        for axes in grid[:, 0]:
            axes.set_ylabel("client", fontsize=8)
        figure.subplots_adjust(
            left=0.085,
            right=0.985,
            bottom=bottom / height,
            top=1 - top / height,
            hspace=between / panel,
            wspace=0.16,
        )
        _key(figure, height, reach)
        return document(figure)


def _table(change: Change) -> Floats:
    """Return one table: clients by columns, then a gap, all columns and the test data."""
    rows, columns = change.cells.shape
    if columns == 1:  # too many cells for a map: the clients' totals alone
        return change.clients[:, None]
    table = np.full((rows + 2, columns + 2), np.nan)
    table[:rows, :columns] = change.cells
    table[:rows, -1] = change.clients
    table[-1, :columns] = change.test
    return table


def _ticks(axes: Axes, clients: Sequence[str], columns: Sequence[str], *, single: bool) -> None:
    rows = [*clients] if single else [*clients, "", "test"]
    across = ["all"] if single else [*columns, "", "all"]
    for axis, names, most in ((axes.yaxis, rows, 24), (axes.xaxis, across, 26)):
        step = -(-len(names) // most)
        some = [i for i, name in enumerate(names) if name and (i % step == 0 or i > len(names) - 3)]
        axis.set_ticks(some, [names[i] for i in some])


def _write(axes: Axes, table: Floats, reach: float) -> None:
    """Write each change into its cell, in percentage points."""
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            color = _BRIGHT if abs(value) > 0.62 * reach else _DARK
            axes.text(
                column, row, _points(value), ha="center", va="center", fontsize=5.5, color=color
            )


def _points(value: float) -> str:
    """Return a change in percentage points."""
    text = f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}")
    return "0" if text[1:] == "0" else text


def _key(figure: Figure, height: float, reach: float) -> None:
    """Draw the scale of the colours."""
    axes = figure.add_axes((0.085, 1 - 0.3 / height, 0.3, 0.12 / height))
    steps = np.linspace(-reach, reach, 65)[None, :]
    axes.imshow(
        steps, cmap=_LOSS_TO_GAIN, interpolation="none", aspect="auto", extent=(-reach, reach, 0, 1)
    )
    axes.set_yticks([])
    axes.set_xticks([-reach, 0, reach])
    axes.xaxis.set_major_formatter(lambda value, _: _points(value))
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=7.5)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.text(
        0.4,
        1 - 0.24 / height,
        "change in accuracy, percentage points, original model to strategy",
        fontsize=8.5,
        va="center",
        color=MUTED,
    )

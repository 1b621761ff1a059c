"""Change in accuracy per remaining client and class: who gains, who loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.reporting.svg import (
    MUTED,
    WIDTH_IN,
    document,
    style,
)

__all__ = ["Change", "change_map"]

Floats = NDArray[np.float64]

_LEAST_CHANGE = 0.05  # changes below this are never drawn in full colour
_MOST_WRITTEN = 1000  # cells beyond which a map shows colours only
_DARK, _BRIGHT = "#101418", "#fbfbfb"  # upon the map's own colours, whatever the page's are
_LOSS_TO_GAIN = "PuOr"  # told apart by the colour-blind, too


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
        norm = Normalize(-reach, reach)
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        written = len(found) * tables[0].size <= _MOST_WRITTEN
        for axes, change, table in zip(grid.flat, found, tables, strict=False):
            _map(axes, table, norm)
            if written:
                _write(axes, table, reach)
            axes.set_title(change.strategy, loc="left", fontsize=9, fontweight="bold")
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


def _map(axes: Axes, table: Floats, norm: Normalize) -> None:
    """Draw a table as colours, without a frame."""
    # The picture of a large map is a few bytes per cell, and asks for no file.
    axes.imshow(
        table, cmap=colormaps[_LOSS_TO_GAIN], norm=norm, interpolation="none", aspect="auto"
    )
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=7)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


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

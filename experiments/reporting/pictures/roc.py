"""The membership attack's curves, each with its null band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from experiments.reporting.svg import (
    GRID,
    INK,
    MUTED,
    TEST,
    UNLEARN,
    WIDTH_IN,
    document,
    style,
)

__all__ = ["Curves", "attack"]

Floats = NDArray[np.float64]

_MOST_ACROSS = 4  # panels side by side


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
            _panel(axes, curves)
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


def _panel(axes: Axes, curves: Curves) -> None:
    """Draw one strategy's curves upon the band of an attack that finds nothing."""
    if curves.band is not None:
        shares, low, high = curves.band
        step: Literal["post"] | None = "post" if curves.steps else None
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

"""Paired differences to retraining beside the margins declared for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from experiments.reporting.svg import (
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

__all__ = ["Gap", "differences"]


@dataclass(frozen=True)
class Gap:
    """One paired difference to the retrained model; the interval is None for one seed."""

    strategy: str
    mean: float
    low: float | None = None
    high: float | None = None
    control: bool = False


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
            _panel(axes, title, gaps, place, margins.get(title))
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


def _panel(
    axes: Axes, title: str, gaps: Sequence[Gap], place: Mapping[str, int], margin: float | None
) -> None:
    """Draw one metric: its margin as a band, a line per strategy."""
    if margin is not None:
        axes.axvspan(-margin, margin, color=UNLEARN, linewidth=0, zorder=0)
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
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="x", labelsize=7)

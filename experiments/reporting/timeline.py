"""The course of a federation as a picture: accuracy over learning, unlearning and recovery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.reporting.svg import (
    BACKDOOR,
    FORGET,
    GRID,
    INK,
    RECOVER,
    RETAIN,
    TEST,
    UNLEARN,
    WIDTH_IN,
    collecting,
    document,
    style,
)
from experiments.runs.details import Point
from experiments.runs.results import ORIGINAL, RETRAIN
from unlearning.evaluation.scorecard import summarise

__all__ = ["timeline"]

_SHADES = {"unlearn": UNLEARN, "recover": RECOVER}
_DELETED = (0, (1, 2))  # dots


@dataclass(frozen=True)
class _Series:
    name: str
    label: str
    color: str
    dash: Literal["-", "--", ":"]
    marker: str
    width: float


_SERIES = (
    _Series("test_accuracy", "test accuracy", TEST, "-", "", 1.5),
    _Series("retain_accuracy", "retain accuracy", RETAIN, "--", "", 1.5),
    _Series("forget_accuracy", "forget accuracy", FORGET, "-", "o", 1.9),
    _Series("backdoor_success", "backdoor success", BACKDOOR, ":", "^", 1.6),
)


def _mean_curves(points: Iterable[Point], name: str) -> list[tuple[int, float, float, float]]:
    """Return round, mean, lowest and highest value over seeds, in order of rounds."""
    found: dict[int, list[float]] = {}
    for point in points:
        value: float | None = getattr(point, name)
        if value is not None:
            found.setdefault(point.round, []).append(value)
    return [(r, summarise(v).mean, min(v), max(v)) for r, v in sorted(found.items())]


def _phases(points: Iterable[Point]) -> list[tuple[str, float, float]]:
    """Return the phases in order, each with the rounds halfway to its neighbours."""
    at = sorted({point.round: point.phase for point in points}.items())
    runs = [(phase, [r for r, _ in run]) for phase, run in groupby(at, key=lambda item: item[1])]
    out = []
    for i, (phase, rounds) in enumerate(runs):
        low = rounds[0] if i == 0 else (runs[i - 1][1][-1] + rounds[0]) / 2
        high = rounds[-1] if i == len(runs) - 1 else (rounds[-1] + runs[i + 1][1][0]) / 2
        out.append((phase, low, high))
    return out


def _marks(phases: Sequence[tuple[str, float, float]]) -> tuple[list[float], list[float]]:
    """Return where requests were served, and where the owners then deleted for good.

    A request is served where unlearning begins, or, if it takes no round, where learning ends;
    deletion comes between unlearning and recovery.
    """
    served, deleted = [], []
    for (before, _, at), (phase, _, end) in pairwise(phases):
        if phase == "unlearn":
            served.append(at)
            deleted.append(end)
        elif before == "learn":
            served.append(at)
            deleted.append(at)
    return served, deleted


def _shade(axes: Axes, points: Sequence[Point]) -> None:
    """Shade the phases; mark where requests are served and where their data are deleted."""
    phases = _phases(points)
    for phase, low, high in phases:
        if phase in _SHADES:
            axes.axvspan(low, high, color=_SHADES[phase], linewidth=0, zorder=0)
    served, deleted = _marks(phases)
    for number, at in enumerate(served, 1):
        axes.axvline(at, color=INK, linewidth=0.9, zorder=1.5)
        if len(served) > 1:
            axes.annotate(
                str(number),
                (at, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, -7),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
            )
    for at in deleted:
        axes.axvline(at, color=INK, linewidth=0.9, linestyle=_DELETED, zorder=1.5)


def _panel(axes: Axes, strategy: str, points: Sequence[Point], levels: Mapping[str, float]) -> None:
    """Draw one strategy; ``levels`` are the retrained model's last values."""
    _shade(axes, points)
    for series in _SERIES:
        curve = _mean_curves(points, series.name)
        if not curve:
            continue
        rounds, means, lows, highs = zip(*curve, strict=True)
        if lows != highs:
            axes.fill_between(rounds, lows, highs, color=series.color, alpha=0.16, linewidth=0)
        axes.plot(
            rounds,
            means,
            color=series.color,
            linestyle=series.dash,
            linewidth=series.width,
            marker=series.marker,
            markersize=3.2,
            markevery=max(1, len(rounds) // 12),
        )
        if strategy != RETRAIN and series.name in levels:
            axes.plot(
                rounds[-1] + 1.5,
                levels[series.name],
                marker="D",
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=series.color,
                clip_on=False,
            )
    axes.set_title(strategy, loc="left", fontsize=10, fontweight="bold")


def _legend(figure: Figure, points: Sequence[Point], *, levels: bool) -> None:
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=series.color,
            linestyle=series.dash,
            linewidth=series.width,
            marker=series.marker,
            markersize=3.5,
            label=series.label,
        )
        for series in _SERIES
        if any(getattr(point, series.name) is not None for point in points)
    ]
    handles.append(Line2D([], [], color=INK, linewidth=0.9, label="request served"))
    if any(point.phase == "unlearn" for point in points):
        dots = Line2D([], [], color=INK, linewidth=0.9, linestyle=_DELETED)
        dots.set_label("data deleted for good")
        handles.append(dots)
    for phase, label in (("unlearn", "unlearning"), ("recover", "recovery")):
        if any(point.phase == phase for point in points):
            handles.append(Patch(facecolor=_SHADES[phase], edgecolor=GRID, label=label))
    if levels:
        diamond = Line2D(
            [], [], color=INK, marker="D", markersize=4.5, markerfacecolor="none", linestyle=""
        )
        diamond.set_label("retrained model at the end")
        handles.append(diamond)
    figure.legend(
        handles=handles, loc="upper left", ncols=4, frameon=False, fontsize=8.5, handlelength=2.6
    )


def timeline(points: Sequence[Point]) -> str | None:
    """Return accuracy over learning, unlearning and recovery, one panel per strategy.

    Parameters
    ----------
    points : sequence of Point
        Measurements of all strategies and seeds; what ``original`` learned begins every panel.

    Returns
    -------
    str or None
        A whole SVG document; None if there is no measurement.
    """
    # A run writes it as a file and again into its report.
    return _drawn.__wrapped__(tuple(points)) if collecting() else _drawn(tuple(points))


@lru_cache(maxsize=1)
def _drawn(points: tuple[Point, ...]) -> str | None:
    shared = [point for point in points if point.strategy == ORIGINAL]
    learned = [point for point in shared if point.phase == "learn"]
    names = list(dict.fromkeys(p.strategy for p in points if p.strategy != ORIGINAL))
    panels = {name: [*learned, *(p for p in points if p.strategy == name)] for name in names}
    if len(shared) > len(learned) or not panels:
        panels = {ORIGINAL: shared, **panels}
    if not points:
        return None
    levels = {
        series.name: curve[-1][1]
        for series in _SERIES
        if (curve := _mean_curves((p for p in points if p.strategy == RETRAIN), series.name))
    }
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 6 else 3
    lines = -(-len(panels) // columns)
    top = 1.03  # of the legend
    height = top + 2.15 * lines
    with style("timeline"):
        figure = Figure(figsize=(WIDTH_IN, height))
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, found) in zip(grid.flat, panels.items(), strict=False):
            _panel(axes, name, found, levels)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        grid[0, 0].set_ylim(0, 1.02)
        grid[0, 0].set_yticks([0, 0.25, 0.5, 0.75, 1])
        for axes in grid[:, 0]:
            axes.set_ylabel("fraction")
        for column in range(columns):
            last = (len(panels) - 1 - column) // columns
            grid[last, column].set_xlabel("round")
            grid[last, column].tick_params(labelbottom=True)
        figure.subplots_adjust(
            left=0.07,
            right=0.975,
            bottom=0.47 / height,
            top=1 - top / height,
            hspace=0.34,
            wspace=0.1,
        )
        _legend(figure, points, levels=RETRAIN in panels and len(panels) > 1)
        return document(figure)

"""The report's pictures as SVG text: accuracy over the rounds, and gap against cost.

Text stays text, lines differ in dash and marker as well as in colour (Okabe and Ito's colour-blind
safe set), and the same picture serves a file of its own, a page in light or dark, and grey print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter
from matplotlib.transforms import offset_copy

from experiments.results import ORIGINAL, RETRAIN, Point
from unlearning.scorecard import summarise

__all__ = ["Trade", "inline", "timeline", "trade_off"]

_PAPER, _INK, _MUTED, _GRID = "#ffffff", "#1c2127", "#5a6370", "#dde1e6"
_UNLEARN, _RECOVER = "#e3e7ec", "#f2f4f6"
_TEST, _RETAIN, _FORGET, _BACKDOOR = "#0072b2", "#009e73", "#d55e00", "#a3528f"
_VARIABLES = {  # the page may set these; its own colours are the fallback
    _INK: "ink",
    _MUTED: "muted",
    _GRID: "grid",
    _PAPER: "paper",
    _UNLEARN: "shade-2",
    _RECOVER: "shade-1",
    _TEST: "c-test",
    _RETAIN: "c-retain",
    _FORGET: "c-forget",
    _BACKDOOR: "c-backdoor",
}
_SHADES = {"unlearn": _UNLEARN, "recover": _RECOVER}
_FONT = "var(--font, sans-serif)"
_WIDTH_IN = 8.6
_LINE_PT, _LETTER_PT = 12.0, 5.5  # size of a label


@dataclass(frozen=True)
class _Series:
    name: str
    label: str
    color: str
    dash: Literal["-", "--", ":"]
    marker: str
    width: float


_SERIES = (
    _Series("test_accuracy", "test accuracy", _TEST, "-", "", 1.5),
    _Series("retain_accuracy", "retain accuracy", _RETAIN, "--", "", 1.5),
    _Series("forget_accuracy", "forget accuracy", _FORGET, "-", "o", 1.9),
    _Series("backdoor_success", "backdoor success", _BACKDOOR, ":", "^", 1.6),
)


@dataclass(frozen=True)
class Trade:
    """Where one strategy stands: what it cost and how far it is from retraining.

    Parameters
    ----------
    strategy : str
        Its alias.
    cost, gap : float
        Means over seeds.
    gap_sd : float or None
        Standard deviation of the gap; None for one seed.
    control : bool
        Drawn hollow.
    """

    strategy: str
    cost: float
    gap: float
    gap_sd: float | None = None
    control: bool = False


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Set what Matplotlib reads from its global settings, for one figure only."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 9.0,
        "text.color": _INK,
        "axes.edgecolor": _MUTED,
        "axes.labelcolor": _MUTED,
        "axes.facecolor": "none",
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "figure.facecolor": _PAPER,
        "savefig.facecolor": _PAPER,
    }
    with mpl.rc_context(settings):
        yield


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(text, format="svg", metadata=metadata)
    return re.sub(r"[ \t]+\n", "\n", text.getvalue())


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


def _shade(axes: Axes, points: Sequence[Point]) -> None:
    """Shade the phases and mark where the request is served."""
    before = ""
    for phase, low, high in _phases(points):
        if phase in _SHADES:
            axes.axvspan(low, high, color=_SHADES[phase], linewidth=0, zorder=0)
        if before == "learn":
            axes.axvline(low, color=_INK, linewidth=0.9, zorder=1.5)
        before = phase


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
    handles.append(Line2D([], [], color=_INK, linewidth=0.9, label="request served"))
    for phase, label in (("unlearn", "unlearning"), ("recover", "recovery")):
        if any(point.phase == phase for point in points):
            handles.append(Patch(facecolor=_SHADES[phase], edgecolor=_GRID, label=label))
    if levels:
        diamond = Line2D(
            [], [], color=_INK, marker="D", markersize=4.5, markerfacecolor="none", linestyle=""
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
    height = 0.85 + 2.15 * lines
    with _style("timeline"):
        figure = Figure(figsize=(_WIDTH_IN, height))
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
            top=1 - 0.85 / height,
            hspace=0.34,
            wspace=0.1,
        )
        _legend(figure, points, levels=RETRAIN in panels and len(panels) > 1)
        return _svg(figure)


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
        axes.text(trade.cost, trade.gap, trade.strategy, transform=place, va="center", color=_INK)


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
    with _style("trade-off"):
        figure = Figure(figsize=(_WIDTH_IN, 3.3), dpi=72)  # one dot is one point
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for trade in trades:
            if trade.gap_sd is not None:
                axes.errorbar(
                    trade.cost, trade.gap, yerr=trade.gap_sd, color=_MUTED, linewidth=0.9, capsize=2
                )
            axes.plot(
                trade.cost,
                trade.gap,
                marker="s" if trade.control else "o",
                markersize=7,
                markerfacecolor=_PAPER if trade.control else _TEST,
                markeredgecolor=_INK if trade.control else _TEST,
                markeredgewidth=1.2,
            )
        highest = max([*(t.gap + (t.gap_sd or 0) for t in trades), untouched or 0.0, 0.01])
        axes.set_ylim(-0.06 * highest, 1.14 * highest)
        axes.set_xlim(0, 1.14 * max([*(t.cost for t in trades), 1e-9]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel(cost_label)
        axes.set_ylabel("average gap to retraining")
        if untouched is not None:
            axes.axhline(untouched, color=_FORGET, linestyle="--", linewidth=1.2)
            axes.annotate(
                "original model: nothing done",
                (1, untouched),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
                color=_FORGET,
            )
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.145, top=0.975)
        _label(axes, figure, trades)
        return _svg(figure)


def inline(svg: str, prefix: str, title: str) -> str:
    """Return an SVG document as an element for a page: its colours may be set by the page.

    Parameters
    ----------
    svg : str
        As :func:`timeline` and :func:`trade_off` return it.
    prefix : str
        Put before every id, so that several pictures can stand on one page.
    title : str
        Alternative text, escaped already.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # would style the page
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r"font-family: [^;\"]*", f"font-family: {_FONT}", body)
    body = re.sub(r"(font: [^;\"']*?[\d.]+px) [^;\"]*", rf"\1 {_FONT}", body)
    for color, name in _VARIABLES.items():
        body = body.replace(color, f"var(--{name}, {color})")
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    return body.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)

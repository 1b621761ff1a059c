"""Pictures and tables of a run for notebooks: Matplotlib's axes, and the scorecard as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.runs.folder import COMPARE, RUN
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.runs.table import DASH
from unlearning.errors import ConfigError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["curves", "intervals", "points", "scorecard"]

# Okabe and Ito's colours, told apart by everyone; the controls have those of their own.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a3528f", "#e69f00", "#56b4e9", "#8c6d31", "#636b78")
_CONTROLS = {ORIGINAL: "#8a929d", RETRAIN: "#1c2127"}
_SHOWN = (
    ("test_accuracy", "Test accuracy"),
    ("retain_accuracy", "Retain accuracy"),
    ("forget_accuracy", "Forget accuracy"),
    ("mia_auc", "MIA AUC"),
    ("backdoor_success", "Backdoor success"),
    ("prediction_distance", "Prediction distance"),
    ("speedup_examples", "Speed-up (examples)"),
)


class Shown(Protocol):
    """What a scorecard in a notebook needs of a run."""

    @property
    def path(self) -> Path:
        """The folder."""

    @property
    def kind(self) -> str:
        """What made it."""

    @property
    def state(self) -> str:
        """How far it is."""

    def to_frame(self) -> pd.DataFrame:
        """Return a row per strategy and seed."""


def curves(
    table: pd.DataFrame, metric: str, strategies: Iterable[str] | None, ax: Axes | None
) -> Axes:
    """Draw a measure over the rounds: a line per strategy, the range over the seeds behind it.

    Raises
    ------
    ConfigError
        If a column or a strategy is unknown, or nothing was measured.
    """
    _expect(table, metric, ("strategy", "seed", "phase", "round"))
    from matplotlib.ticker import MaxNLocator

    axes = ax if ax is not None else _axes()
    learned = table[(table.strategy == ORIGINAL) & (table.phase == "learn")]
    if table[metric].notna().sum() == 0:
        raise ConfigError(f"{metric!r} was not measured along the way; take another measure")
    for name, colour in _coloured(table, strategies).items():
        own = table[table.strategy == name].dropna(subset=[metric])
        if own.empty:
            continue
        if name != ORIGINAL and not learned.empty:
            # The curve begins where learning ended.
            last = learned[learned["round"] == learned["round"].max()]
            own = own if metric not in last else _below(last, own)
        over = own.groupby("round")[metric].agg(["mean", "min", "max"])
        axes.plot(over.index, over["mean"], color=colour, label=name, linewidth=1.6)
        axes.fill_between(over.index, over["min"], over["max"], color=colour, alpha=0.15, lw=0)
    if not learned.empty:
        axes.axvline(learned["round"].max(), color="#8a929d", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _labelled(axes, "round", metric)


def points(
    table: pd.DataFrame,
    metric: str,
    against: str,
    strategies: Iterable[str] | None,
    ax: Axes | None,
) -> Axes:
    """Draw one column against another, a point per strategy and seed.

    Raises
    ------
    ConfigError
        If a column or a strategy is unknown.
    """
    for column in (metric, against):
        _expect(table, column, ("strategy", "seed", "scope", "guarantee", "model_digest", "failed"))
    axes = ax if ax is not None else _axes()
    for name, colour in _coloured(table, strategies).items():
        own = table[table.strategy == name].dropna(subset=[metric, against])
        axes.scatter(own[against], own[metric], color=colour, label=name, s=28)
    return _labelled(axes, against, metric)


def intervals(
    table: pd.DataFrame, metric: str, strategies: Iterable[str] | None, ax: Axes | None
) -> Axes:
    """Draw one metric of an audit: a line per row, with its 95 % interval.

    Raises
    ------
    ConfigError
        If the metric or a strategy is unknown.
    """
    known = list(dict.fromkeys(table.metric))
    if metric not in known:
        raise ConfigError(unknown("metric", metric, known))
    axes = ax if ax is not None else _axes()
    own = table[table.metric == metric]
    chosen = _coloured(own, strategies)
    own = own[own.strategy.isin(chosen)].iloc[::-1]
    spans = [own.value - own.low, own.high - own.value]
    axes.errorbar(own.value, range(len(own)), xerr=spans, fmt="o", color=_COLOURS[0], capsize=3)
    axes.set_yticks(range(len(own)), list(own.strategy))
    axes.set_xlabel(metric)
    return axes


def scorecard(run: Shown) -> str:
    """Return a run as HTML for a notebook: its scorecard, or how far it is."""
    from unlearning.errors import FedUnlearnError

    head = f"<p><b>{escape(run.kind)}</b> <code>{escape(str(run.path))}</code>, {run.state}</p>"
    try:
        table = run.to_frame()
    except FedUnlearnError as error:
        return f"<div>{head}<p>{escape(str(error))}</p></div>"
    if run.kind not in (RUN, COMPARE):
        return f"<div>{head}{_html(table)}</div>"
    return f"<div>{head}{_html(_summary(table))}{_caption(table)}</div>"


# Inside -------------------------------------------------------------------------------------------


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over the seeds, a row per strategy, as text."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for name, own in table.groupby("strategy", sort=False):
        row: dict[str, Any] = {"Strategy": name, "Guarantee": own.guarantee.iloc[0]}
        for column, title in _SHOWN:
            found = own[column].dropna()
            spread = f" ± {found.std():.3f}" if len(found) > 1 else ""
            row[title] = f"{found.mean():.3f}{spread}" if len(found) else DASH
        rows.append(row)
    return pd.DataFrame(rows)


def _html(table: pd.DataFrame) -> str:
    return str(table.to_html(index=False, border=0, na_rep=DASH, float_format="{:.3f}".format))


def _caption(table: pd.DataFrame) -> str:
    seeds = table.seed.nunique()
    kind = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    return f"<p><small>{kind}; speed-up over retraining; {DASH} = not measured</small></p>"


def _axes() -> Axes:
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    return axes


def _below(last: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    seeds = set(own.seed)
    return pd.concat([last[last.seed.isin(seeds)], own], ignore_index=True)


def _expect(table: pd.DataFrame, column: str, odd: tuple[str, ...]) -> None:
    known = [name for name in table.columns if name not in odd]
    if column not in known:
        raise ConfigError(unknown("column", column, known))


def _coloured(table: pd.DataFrame, strategies: Iterable[str] | None) -> dict[str, str]:
    """Return the strategies to draw, each with its colour; the same in every picture of a run."""
    names = list(dict.fromkeys(table.strategy))
    wanted = list(names) if strategies is None else list(strategies)
    for name in wanted:
        if name not in names:
            raise ConfigError(unknown("strategy", name, names))
    others = [name for name in names if name not in _CONTROLS]
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(others)}
    return {name: {**_CONTROLS, **colours}[name] for name in wanted}


def _labelled(axes: Axes, x: str, y: str) -> Axes:
    axes.set_xlabel(x.replace("_", " "))
    axes.set_ylabel(y.replace("_", " "))
    axes.grid(color="#dde1e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return axes

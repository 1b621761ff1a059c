"""What a search leaves: the options as TOML, everything as JSON, a page in Markdown, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from experiments.runs.table import DASH
from experiments.tuning.study import Found
from experiments.tuning.trials import MEASURES, Measured
from unlearning.records.files import write_atomically

__all__ = ["markdown", "write"]

_DIGITS = 4


def write(found: Sequence[Found], folder: Path, command: str) -> list[Path]:
    """Write ``options.toml``, ``tuning.json``, ``tuning.md`` and ``pareto.svg``; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {one.strategy: _rounded(one.best) for one in found}
    texts = {
        "options.toml": _heading(found) + tomli_w.dumps({"options": options}),
        "tuning.json": json.dumps(
            {"command": command, "strategies": [asdict(one) for one in found]}, indent=2
        ),
        "tuning.md": markdown(found, command),
        "pareto.svg": _picture(found),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def markdown(found: Sequence[Found], command: str) -> str:
    """Return the result of a search as a page."""
    lines = ["# What tuning found", "", "```", command, "```", ""]
    for one in found:
        spans = ", ".join(f"{n} {s.low:g} to {s.high:g}" for n, s in one.spans.items())
        lines += [
            f"## {one.strategy}",
            "",
            f"Searched on {one.searched} ({len(one.trials)} trials; {spans}). "
            f"The table is of {one.reported}, which no trial saw.",
            "",
            f"- defaults: {_shown(one.defaults)}",
            f"- found: {_shown(one.best)}",
            "",
            "| | distance to retraining | examples of retraining | "
            + " | ".join(name.replace("_", " ") for name in MEASURES)
            + " |",
            "| --- |" + " ---: |" * (2 + len(MEASURES)),
            *(_line(name, measured) for name, measured in one.shown.items()),
            "",
        ]
        if "random reset" not in one.shown:
            lines += [
                "Before its first round this strategy edits no weight, so that there is no share "
                "of weights to reset at random beside it.",
                "",
            ]
    lines += [
        "The distance is the mean absolute difference to retraining over the measures shown. "
        "Plain training is fine-tuning at the strategy's own rate (its option `fine_tune_factor`, "
        "else that of training) for as many rounds as cost the same examples; the random reset "
        "puts the share of weights that the strategy edits back to their initial values first. "
        "One seed and one forget set are no evidence of a difference: see `fedunlearn audit`.",
        "",
    ]
    return "\n".join(lines)


def _line(name: str, measured: Measured) -> str:
    if measured.failed:
        return f"| {name} | {measured.failed} |" + f" {DASH} |" * (1 + len(MEASURES))
    scores = (measured.scores.get(m) for m in MEASURES)
    cells = [f"{measured.distance:.3f}", f"{measured.cost:.2f}"]
    cells += [DASH if value is None else f"{value:.3f}" for value in scores]
    return f"| {name} | {' | '.join(cells)} |"


def _heading(found: Sequence[Found]) -> str:
    return "".join(f"# {one.strategy}: found on {one.searched}\n" for one in found)


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: round(v, _DIGITS) if isinstance(v, float) else v for n, v in values.items()}


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name} = {value}`" for name, value in _rounded(values).items())


def _picture(found: Sequence[Found]) -> str:
    """Return distance against cost of all trials, those on the front joined by a line."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Without a date, and with fixed names inside: the same search is the same file.
    with mpl.rc_context({"svg.hashsalt": "fedunlearn"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for one in found:
            tried = [one.trials[i] for i in one.front]
            front = sorted((t.measured.cost, t.measured.distance) for t in tried)
            (line,) = axes.plot(
                [x for x, _ in front], [y for _, y in front], marker="o", label=one.strategy
            )
            costs = [t.measured.cost for t in one.trials]
            distances = [t.measured.distance for t in one.trials]
            axes.scatter(costs, distances, s=14, alpha=0.4, color=line.get_color())
        axes.set_xlabel("Examples processed, share of retraining's")
        axes.set_ylabel("Distance to retraining")
        axes.set_ylim(bottom=0)
        axes.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()

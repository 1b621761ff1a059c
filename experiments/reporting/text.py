"""Text: what models still say of it, one line per measure, the retrained model beside them."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.reporting.run import Cell, Run, measured, reasons
from experiments.runs.text import EXPOSURE, TITLES
from unlearning.evaluation.scorecard import summarise
from unlearning.evaluation.text import exposure_null

__all__ = ["Text", "TextLine", "text_table"]


@dataclass(frozen=True)
class TextLine:
    """One measure; ``cells`` are the strategies'."""

    measure: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Text:
    """The table, and a note: who was asked to be forgotten, and what canaries say."""

    strategies: tuple[str, ...]
    lines: tuple[TextLine, ...]
    note: str
    reasons: tuple[str, ...]


def text_table(run: Run) -> Text | None:
    """Return what was measured of models of text, None if nothing was."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in run.details.text_measures:
        found.setdefault(one.measure, {}).setdefault(one.strategy, []).append(one.value)
    names = tuple(name for name in run.strategies if any(name in by for by in found.values()))
    if not names:
        return None
    lines = tuple(
        TextLine(
            title,
            tuple(
                measured(
                    summarise(found[measure][name]) if name in found[measure] else None,
                    "its model was not kept, or the set is empty",
                    decimals,
                )
                for name in names
            ),
        )
        for measure, (title, decimals) in TITLES.items()
        if measure in found
    )
    note = " ".join(filter(None, [_who(run), _note(run) if EXPOSURE in found else ""]))
    return Text(names, lines, note, tuple(reasons(names, [line.cells for line in lines])))


def _who(run: Run) -> str:
    """Return the names of the clients that requests name; empty where clients have none."""
    names = run.details.data.get("owners") or []
    asked = dict.fromkeys(
        client for request in run.details.requests for client in request.get("clients", ())
    )
    told = [f"client {c} is {names[c]}" for c in asked if 0 <= c < len(names)]
    return f"C{'; '.join(told)[1:]}." if told else ""


def _note(run: Run) -> str:
    """Return what exposure is where nothing is known of a canary."""
    rules = run.details.rounds
    size, canaries = rules.get("canary_ranks", 0), (run.details.marker or {}).get("canaries", 1)
    if not size:
        return ""
    mean, error = exposure_null(size, int(canaries))
    return (
        f"A canary of which nothing is known has an exposure of {mean:.2f} bits on average "
        f"(standard error {error:.2f} for the mean of {canaries}); one that is known best of "
        f"{size} has {(size - 1).bit_length()}."
    )

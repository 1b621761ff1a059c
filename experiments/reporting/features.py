"""Requests for features: how each model still reacts to them, one line per measure."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.reporting.run import Cell, Run, measured, reasons
from unlearning.evaluation.scorecard import summarise

__all__ = ["FeatureLine", "Features", "feature_table"]

_WORDS = {
    "sensitivity": "Sensitivity to the features",
    "accuracy_without": "Test accuracy without them",
    "attribute_auc": "Attribute inference, rows trained on (AUC)",
    "attribute_null": "The same on rows never trained on: its null (AUC)",
    "attribute_se": "Standard error of the AUC if there is nothing to tell",
}


@dataclass(frozen=True)
class FeatureLine:
    """One measure; ``cells`` are the strategies'."""

    measure: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Features:
    """The table of measures."""

    strategies: tuple[str, ...]
    lines: tuple[FeatureLine, ...]
    reasons: tuple[str, ...]


def feature_table(run: Run) -> Features | None:
    """Return what was measured of requests for features, None if nothing was."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in run.details.feature_measures:
        found.setdefault(one.measure, {}).setdefault(one.strategy, []).append(one.value)
    names = tuple(name for name in run.strategies if any(name in by for by in found.values()))
    if not names:
        return None
    lines = tuple(
        FeatureLine(
            _WORDS.get(measure, measure.replace("_", " ")),
            tuple(
                measured(summarise(values[name]) if name in values else None, "was not measured")
                for name in names
            ),
        )
        for measure, values in sorted(found.items(), key=lambda item: _place(item[0]))
    )
    return Features(names, lines, tuple(reasons(names, [line.cells for line in lines])))


def _place(measure: str) -> int:
    return list(_WORDS).index(measure) if measure in _WORDS else len(_WORDS)

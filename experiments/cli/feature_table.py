"""The terminal's short table of what requests for features did; ``details.json`` has it all."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.runs.details import FeatureMeasure
from experiments.runs.results import CONTROLS
from experiments.runs.table import DASH, aligned, with_sd
from unlearning.evaluation.scorecard import summarise

__all__ = ["feature_table"]

_COLUMNS = (  # measure, title
    ("sensitivity", "Sensitivity"),
    ("accuracy_without", "Accuracy without"),
    ("attribute_auc", "Inference"),
    ("attribute_null", "Its null"),
)
_CAPTION = (
    "features: change of the logits per unit of noise on them; test accuracy with 0 for them; AUC "
    "of attribute inference\non rows trained on and on others, its null; all to be as retrain's"
)


def feature_table(measures: Sequence[FeatureMeasure]) -> str:
    """Return the table as plain text, one line per strategy."""
    names = list(dict.fromkeys(one.strategy for one in measures))
    ordered = [*(n for n in CONTROLS if n in names), *(n for n in names if n not in CONTROLS)]
    lines = [["Strategy", *(title for _, title in _COLUMNS)]]
    for name in ordered:
        cells = []
        for measure, _ in _COLUMNS:
            found = [m.value for m in measures if (m.strategy, m.measure) == (name, measure)]
            cells.append(with_sd(summarise(found), 3) if found else DASH)
        lines.append([name, *cells])
    return "\n".join((*aligned(lines), _CAPTION))

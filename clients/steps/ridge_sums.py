"""The sums that ridge regression needs of a client's examples.

References
----------
Quan, Wu, Montana, "Exact Federated Continual Unlearning for Ridge Heads on Frozen Foundation
Models", 2026 (arXiv 2603.12977).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from clients.training import number
from unlearning.models import ridge
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def ridge_sums(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with X'X, X'Y and the class counts of one split.

    Settings: ``split`` (``retain``, or ``forget``: then also the triangular factor R of X'X, of no
    more rows than examples; of one example X'X is left empty, as it is R'R to the last bit),
    ``num_classes``.
    """
    forgets = settings.get("split") == "forget"
    x, labels = (local.forget if forgets else local.retain).table()
    rows = ridge.design(x)
    arrays = ridge.labelled(rows, labels, int(number(settings, "num_classes")))
    is_one = forgets and len(rows) == 1
    arrays["gram"] = np.zeros((0, 0)) if is_one else rows.T @ rows
    if forgets:
        arrays["factor"] = ridge.factor(rows)
    # An owner without such an example still answers: it holds others, and they stay.
    count = len(local.retain) + (len(local.forget) if forgets else 0)
    return Outcome(count, len(labels), arrays)

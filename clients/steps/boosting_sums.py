"""Sum gradients at the nodes of boosted trees: the client half of federated boosting.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754).
"""

from __future__ import annotations

from clients.remembered import Remembered
from clients.steps import Local, Outcome
from unlearning.models.boosting_sums import Scored, sums_at
from unlearning.models.trees import Plan
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False

_scored: Remembered[Scored] = Remembered()


def boosting_sums(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Return sums of gradient, curvature and number of the retained examples.

    At the nodes that the extra array ``rows`` names, as ``total``, and left of their candidates,
    as ``left``. Settings: those of the boosted trees; ``of`` = ``"total"``: no candidates.
    """
    count = len(local.retain)
    x, labels = local.retain.table()
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    scored = _scored.of(x, repr((plan, num_classes)), lambda: Scored(plan, x, num_classes))
    found = sums_at(settings, local.arrays, local.extras["rows"], x, labels, scored)
    return Outcome(count, count, {"total": found.total, "left": found.left})

"""Sum gradients at the nodes of boosted trees: the client half of federated boosting.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from unlearning.models.boosting import sums_at
from unlearning.protocol import Settings

NEEDS_MODEL = False


def boosting_sums(
    model: None, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return sums of gradient, curvature and number of the retained examples.

    At the nodes that the extra array ``rows`` names, as ``total``, and left of their candidates,
    as ``left``. Settings: those of the boosted trees; ``of`` = ``"total"``: no candidates.
    """
    count = len(local.retain)
    found = sums_at(settings, local.arrays, local.extras["rows"], *local.retain.table())
    return Outcome(count, count, {"total": found.total, "left": found.left})

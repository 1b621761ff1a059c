"""Count classes at the nodes of a growing forest: the client half of the histogram forest.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from unlearning.arrays import Arrays
from unlearning.models.forest import counts_of_forgotten, counts_of_open
from unlearning.protocol import Settings

NEEDS_MODEL = False


def forest_counts(
    model: None, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return class counts of the retained examples at open nodes, as ``total`` and ``left``.

    Settings: those of the forest; ``of`` = ``"forget"``: of the forget set, at all nodes that its
    examples pass, named by ``rows``.
    """
    forget = settings.get("of") == "forget"
    shard = local.forget if forget else local.retain
    count = counts_of_forgotten if forget else counts_of_open
    found = count(settings, local.arrays, *shard.table())
    arrays: Arrays = {"total": found.total, "left": found.left.astype(np.int32)}
    if forget:
        arrays["rows"] = found.rows
    return Outcome(num_examples=len(shard), examples_processed=len(shard), arrays=arrays)

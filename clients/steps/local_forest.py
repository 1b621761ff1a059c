"""Grow one's own trees: the client half of a union of local forests.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from unlearning.models.local_forests import grow
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def local_forest(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Return the nodes of ``num_trees`` trees of the retained examples, and ``examples``.

    Settings: those of the forest, and ``first``, the number of the first tree. A client that holds
    nothing any more says so by sending no tree.
    """
    count = len(local.retain)
    nodes = grow(settings, *local.retain.table())
    arrays = {**nodes, "examples": np.array([count])}
    # An answer of weight 0 would be taken for none, and one owner is often all that is asked.
    return Outcome(max(count, 1), count if len(nodes["tree"]) else 0, arrays)

"""Momentum of the server in rounds of recovery.

References
----------
Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019 (arXiv 1909.06335): FedAvgM.
"""

from __future__ import annotations

import numpy as np

from strategies.federation import RECOVER, Federation
from unlearning import arrays as named
from unlearning.arrays import Arrays

__all__ = ["carried_on"]


def carried_on(federation: Federation, before: Arrays, after: Arrays) -> Arrays:
    """Return the model of a round, carried on by momentum where the round is one of recovery.

    ``v <- beta v + (after - before)``, ``before + v``. A request begins without any: what it edits
    must not be undone by a step from before it.

    Parameters
    ----------
    federation : Federation
        Says ``server_momentum`` (beta) and keeps ``velocity`` (v).
    before, after : Arrays
        The model at the start of the round and what the round made of it; buffers stay those of
        ``after``.
    """
    beta = federation.server_momentum
    if federation.phase != RECOVER or not beta or federation.model is not None:
        return after
    last = federation.velocity
    steps: Arrays = {}
    for name, array in named.parameters(after).items():
        step = array.astype(np.float64) - before[name]
        steps[name] = step + beta * last[name] if name in last else step
    federation.velocity = steps
    moved = {name: (before[name] + step).astype(after[name].dtype) for name, step in steps.items()}
    return {**after, **moved}

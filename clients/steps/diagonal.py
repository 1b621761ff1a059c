"""The diagonal of the Gauss-Newton matrix of the loss: how sharply data determine each parameter.

References
----------
Martens, "New Insights and Perspectives on the Natural Gradient Method", JMLR 2020
(arXiv 1412.1193): for cross-entropy it is the Fisher matrix under the model's own labels.
"""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from clients.derivatives import gauss_newton_diagonal, named_arrays
from clients.steps import Local, Outcome
from clients.training import number
from unlearning.arrays import Arrays
from unlearning.protocol import Settings


def diagonal(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return, per parameter, the diagonal over the retained data and over the forget set.

    Answers ``retain/<parameter>`` and ``forget/<parameter>``, whichever has data; no labels are
    read. Settings: ``share`` (of the examples of each, drawn at random, rounded up; 1: all).
    """
    share = number(settings, "share", 1.0)
    found: Arrays = {}
    processed = 0
    for name, data in (("retain", local.retain), ("forget", local.forget)):
        if not len(data):
            continue
        data = data.drawn(math.ceil(share * len(data)), generator)
        values, classes = gauss_newton_diagonal(model, data)
        found |= {f"{name}/{key}": array for key, array in named_arrays(values).items()}
        processed += classes * len(data)
    return Outcome(len(local.retain) + len(local.forget), processed, found)

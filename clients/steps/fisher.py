"""The diagonal of the Fisher matrix on the retained data: how much each parameter matters to it.

References
----------
Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017
(arXiv 1612.00796).
"""

from __future__ import annotations

import numpy as np
from torch import nn

from clients.derivatives import mean_squared_gradient, named_arrays
from clients.steps import Local, Outcome
from clients.training import number
from unlearning.protocol import Settings


def fisher(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return, per parameter, the mean squared gradient of log p(y | x) over the retained data.

    Settings: ``fisher_examples`` (so many, drawn at random; 0: all).
    """
    data = local.retain
    wanted = int(number(settings, "fisher_examples", 0))
    if wanted > 0:
        data = data.drawn(wanted, generator)
    if not len(data):
        return Outcome(0, 0, {})
    return Outcome(len(data), len(data), named_arrays(mean_squared_gradient(model, data)))

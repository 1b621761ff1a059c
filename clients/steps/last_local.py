"""Handing out a leaver's last local model: the client half of a common reference for several.

References
----------
Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to Efficiently Erase a Client in FL?",
2022 (arXiv 2207.05521), for the reference without a client's share; for several it is this
project's.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from clients.local import Local, Outcome
from clients.training import number
from unlearning.protocol import Settings


def last_local(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Answer with the last local model, if it is that of ``last_round``; else with nothing.

    Settings: ``last_round`` (round whose average made the global model).
    """
    same = local.facts.get("round") == int(number(settings, "last_round"))
    if local.remembered is None or not same:
        return Outcome(0, 0, arrays={})
    return Outcome(len(local.forget), 0, arrays=dict(local.remembered))

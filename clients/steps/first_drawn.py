"""The round in which a client first drew something that it is asked to forget.

References
----------
Tao, Wang, Pan, Yu, Cheng, Wang, "Communication Efficient and Provable Federated Unlearning", VLDB
2024 (arXiv 2401.11018).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from clients.training import number
from unlearning.draws import first_drawn as first_of
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def first_drawn(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with one integer, ``first-drawn``: the round, or 0 if nothing was ever drawn.

    Settings: ``rounds``, those in which the client was drawn, separated by commas; the others are
    those of training by stable sampling. The draws are worked out again; nothing was stored.
    """
    held = np.union1d(local.positions, local.forget_positions)
    rounds = [int(word) for word in str(settings.get("rounds", "")).split(",") if word]
    found = first_of(
        int(number(settings, "draw_seed")),
        int(number(settings, "draw_client")),
        rounds,
        int(number(settings, "stable_steps")),
        held,
        local.forget_positions.tolist(),
        int(number(settings, "batch_size")),
    )
    return Outcome(len(held), 0, {}, {"first-drawn": float(found)})

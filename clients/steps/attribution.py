"""Handing out what a task has done to the trunk: the client half of task subtraction.

References
----------
Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023 (arXiv 2212.04089), for subtracting
what a task has added; the federated form is this project's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clients.multitask import MultiTask
from clients.steps import Local, Outcome
from clients.tasktraining import settled
from unlearning.arrays import Arrays
from unlearning.protocol import Settings


def attribution(
    model: Any, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Settle the account of every task, and answer with the sum of those in ``tasks``.

    Settings: ``tasks`` (names, separated by commas; none: settle only), ``share`` and
    ``share_round`` as in ``train``. Answers the parameters of the trunk, or nothing if the client
    keeps nothing of these tasks.
    """
    wanted = [name for name in str(settings.get("tasks", "")).split(",") if name]
    total: Arrays = {}
    kept = {}
    for task in model.heads if isinstance(model, MultiTask) else ():
        done = settled(local, task, settings)
        if done:
            kept[f"attribution-{task}"] = (done, {"round": 0})
        for key, array in done.items() if task in wanted else ():
            name = key.removeprefix("done/")
            total[name] = total[name] + array if name in total else array
    rows = len(local.retain) + len(local.forget)
    return Outcome(min(rows, _capacity(local)), 0, arrays=total, kept=kept)


def _capacity(local: Local) -> int:
    """Return the most examples that the two parts may stand for together.

    An input with labels of several tasks is in both.
    """
    return max(len(local.retain), len(local.forget))

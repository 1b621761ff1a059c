"""Gradients of the trunk, task by task: the client half of FedOSD for tasks.

References
----------
Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict
Mitigation", AAAI 2025 (arXiv 2412.20200).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from clients.multitask import NONE, MultiTask, task_loss
from clients.steps import Local, Outcome, Shard
from unlearning.arrays import Arrays
from unlearning.models.heads import EXAMPLES
from unlearning.protocol import Settings

_CHUNK = 1024  # examples per forward pass


def task_gradients(
    model: Any, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return the gradient of each task's mean loss with respect to the trunk.

    Answers ``retain/<task>/<parameter>``: of the cross-entropy on what is retained of a task, and
    ``forget/<task>/<parameter>``: of the unlearning cross-entropy on what is to be forgotten of it,
    through the head as it is. The metrics ``examples-of/<part>/<task>`` say on how many examples
    each rests.
    """
    arrays: Arrays = {}
    metrics: dict[str, float] = {}
    if isinstance(model, MultiTask):
        for part, shard, loss in (
            ("retain", local.retain, functional.cross_entropy),
            ("forget", local.forget, unlearning_cross_entropy),
        ):
            for place, task in enumerate(model.tasks):
                count = int((shard.labels[:, place] != NONE).sum())
                if task in model.heads and count:
                    found = _gradient(model, shard, task, place, count, loss)
                    arrays |= {f"{part}/{task}/{name}": array for name, array in found.items()}
                    metrics[f"{EXAMPLES}{part}/{task}"] = count
    rows = max(len(local.retain), len(local.forget))
    return Outcome(rows, len(local.retain) + len(local.forget), arrays, metrics)


def unlearning_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - p_y / 2)``, p_y the probability of the label (UCE).

    It lies in [0, ln 2] and is least where p_y = 0: to forget is to descend.
    """
    p = functional.softmax(logits, dim=1).gather(1, labels[:, None])
    return -torch.log1p(-p / 2).mean()


def _gradient(
    model: MultiTask,
    shard: Shard,
    task: str,
    place: int,
    count: int,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Arrays:
    model.eval()
    named = {f"trunk.{n}": w for n, w in model.trunk.named_parameters() if w.requires_grad}
    names, weights = list(named), list(named.values())
    total = [torch.zeros_like(w) for w in weights]
    for start in range(0, len(shard), _CHUNK):
        labels = shard.labels[start : start + _CHUNK, place]
        there = int((labels != NONE).sum())
        logits = model.heads[task](model.trunk(shard.features[start : start + _CHUNK]))
        value = task_loss(logits, labels, loss)
        if value is not None:
            found = torch.autograd.grad(value * (there / count), weights)
            total = [t + g for t, g in zip(total, found, strict=True)]
    return {name: t.cpu().numpy() for name, t in zip(names, total, strict=True)}

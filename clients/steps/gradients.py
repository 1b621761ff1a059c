"""Full-batch gradients on what stays and on what goes: the client half of FedOSD.

References
----------
Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict
Mitigation", AAAI 2025 (arXiv 2412.20200).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.derivatives import mean_gradient, named_arrays
from clients.steps import Local, Outcome
from clients.training import loss_of
from unlearning.arrays import Arrays
from unlearning.protocol import Settings


def gradients(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return the gradient of the loss on each part of the data that is not empty.

    Answers ``retain/<name>``: gradient of the mean loss on the retained data, and
    ``forget/<name>``: of the mean unlearning cross-entropy on the forget set; the metrics
    ``retain-examples`` and ``forget-examples`` say on how many examples each rests.
    """
    arrays: Arrays = {}
    metrics: dict[str, float] = {}
    for part, shard, loss in (
        ("retain", local.retain, loss_of(model)),
        ("forget", local.forget, unlearning_cross_entropy),
    ):
        if len(shard):
            found, value = mean_gradient(model, shard, loss)
            arrays |= {f"{part}/{name}": array for name, array in named_arrays(found).items()}
            metrics |= {f"{part}-loss": value, f"{part}-examples": len(shard)}
    used = len(local.retain) + len(local.forget)
    return Outcome(used, used, arrays, metrics)


def unlearning_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - p_y / 2)``, p_y the probability of the label (UCE).

    It lies in [0, ln 2] and is least where p_y = 0: to forget is to descend, and no gradient
    explodes on the way.

    Parameters
    ----------
    logits : torch.Tensor
        ``(n, num_classes)``.
    labels : torch.Tensor
        ``(n,)``, int64.
    """
    p = functional.softmax(logits, dim=1).gather(1, labels[:, None])
    return -torch.log1p(-p / 2).mean()

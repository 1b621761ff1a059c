"""Gradients on what stays and on what goes: the client half of FedOSD.

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
from clients.local import Shard
from clients.state import parameters_of
from clients.steps import Local, Outcome
from clients.training import Loss, batches, loss_of, mean_accuracy, number, optimiser, trained
from unlearning.arrays import Arrays
from unlearning.protocol import Settings


def gradients(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return the gradient of the loss on each part of the data that is not empty.

    Answers ``retain/<name>``: gradient of the mean loss on the retained data, and
    ``forget/<name>``: of the mean unlearning cross-entropy on the forget set; the metrics
    ``retain-examples`` and ``forget-examples`` say on how many examples each rests, and
    ``forget-accuracy`` how many of the forget set the model as it came gets right.

    Settings: ``gradient_epochs`` (0, the default: full-batch gradients). From 1: pseudo-gradients,
    ``(w - w_local) / learning_rate`` after so many local epochs of plain SGD from the model as it
    came, with ``batch_size`` and ``learning_rate`` as in training; they are as long as the sum of
    the gradients along the way. Reported losses are those before the first step.
    """
    epochs = int(number(settings, "gradient_epochs", 0))
    arrays: Arrays = {}
    metrics: dict[str, float] = {}
    passes = 0
    for part, shard, loss in (
        ("retain", local.retain, loss_of(model)),
        ("forget", local.forget, unlearning_cross_entropy),
    ):
        if len(shard):
            found, value = mean_gradient(model, shard, loss)
            if epochs:
                found = _pseudo_gradient(model, shard, loss, settings, generator)
                passes += epochs * len(shard)
            arrays |= {f"{part}/{name}": array for name, array in named_arrays(found).items()}
            metrics |= {f"{part}-loss": value, f"{part}-examples": len(shard)}
            if part == "forget":
                metrics["forget-accuracy"] = mean_accuracy(model, shard)
    used = len(local.retain) + len(local.forget)
    return Outcome(used, used + passes, arrays, metrics)


def _pseudo_gradient(
    model: nn.Module, shard: Shard, loss: Loss, settings: Settings, generator: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Return the way that SGD goes, over its step size; the model is left as it was."""
    before = {name: w.detach().clone() for name, w in parameters_of(model).items()}
    rate = number(settings, "learning_rate")
    plain = {"learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0}
    sgd = optimiser(plain, trained(model))
    unlimited = {**settings, "max_steps": 0}
    epochs = int(number(settings, "gradient_epochs"))
    model.eval()  # buffers do not move, and the answer is a function of the parameters
    for batch in batches(shard, unlimited, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(model(batch.features), batch.labels))
        sgd.step()
    sgd.zero_grad(set_to_none=True)
    weights = parameters_of(model)
    found = {name: (before[name] - w.detach()) / rate for name, w in weights.items()}
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(before[name])
    return found


def unlearning_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - p_y / 2)``, p_y the probability of the label (UCE).

    It lies in [0, ln 2] and is least where p_y = 0: to forget is to descend, and no gradient
    explodes on the way.

    Parameters
    ----------
    logits : torch.Tensor
        ``(n, num_classes)``, or ``(n, num_classes, length)``.
    labels : torch.Tensor
        ``(n,)``, int64, or ``(n, length)``.
    """
    p = functional.softmax(logits, dim=1).gather(1, labels[:, None])
    return -torch.log1p(-p / 2).mean()

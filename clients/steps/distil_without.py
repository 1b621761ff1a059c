"""Distillation from the global model with the true class pushed down: the client half of FedQUIT.

References
----------
Mora, Valerio, Bellavista, Passarella, "FedQUIT: On-Device Federated Unlearning via a
Quasi-Competent Virtual Teacher", 2024 (arXiv 2408.07587).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.multitask import MultiTask
from clients.steps import Local, Outcome, Shard
from clients.training import batches, kl_divergence, loss_of, number, optimiser, trained
from unlearning.errors import FederationError
from unlearning.protocol import Settings

_CHUNK = 1024


def virtual_logits(logits: torch.Tensor, labels: torch.Tensor, value: str) -> torch.Tensor:
    """Return logits whose entry at the label is replaced; all others are as they came.

    Parameters
    ----------
    logits : torch.Tensor
        ``(n, classes)``, of the teacher (z); or ``(n, classes, length)``.
    labels : torch.Tensor
        ``(n,)``, int64; or ``(n, length)``.
    value : str
        ``min``: the smallest logit; ``entropy``: the mean of the others by their own softmax, which
        no other value beats in entropy. With two classes ``min`` would flip the label: the other
        class's logit is taken, which is what ``entropy`` gives.
    """
    at_label = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).bool()
    others = logits.masked_fill(at_label, -torch.inf)
    if value == "entropy" or logits.shape[1] == 2:
        new = (others.softmax(1) * logits.masked_fill(at_label, 0.0)).sum(1)
    else:
        new = logits.min(1).values
    return torch.where(at_label, new[:, None], logits)


def distil_without(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Pull ``model`` towards itself without the true class, on the forget set.

    Where the client keeps other data (requests for samples or classes), each step descends their
    ordinary loss as well, a batch of the same size beside each of the forget set. The model is used
    as it is deployed, in evaluation mode; its statistics stay.

    Settings: ``epochs``, ``value`` (see :func:`virtual_logits`), ``temperature``, and
    ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay`` of the run.
    """
    forget, retain = local.forget, local.retain
    if not len(forget):
        return Outcome(0, 0)
    if isinstance(model, MultiTask):
        raise FederationError(
            "distil_without works on one label per example, not on several tasks; use retrain"
        )
    model.eval()
    with torch.inference_mode():
        said = torch.cat([model(x) for x in torch.split(forget.features, _CHUNK)])
    target = virtual_logits(said.clone(), forget.labels, str(settings["value"]))
    epochs, heat = int(number(settings, "epochs")), number(settings, "temperature")
    unlimited = {**settings, "max_steps": 0}
    places = Shard(forget.features, torch.arange(len(forget), device=forget.labels.device))
    passes = epochs * (1 + len(forget) // max(1, len(retain))) if len(retain) else 0
    beside = batches(retain, unlimited, generator, epochs=passes)
    sgd = optimiser(settings, trained(model))
    processed = len(forget)
    for batch in batches(places, unlimited, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        loss = kl_divergence(target[batch.labels], model(batch.features), heat)
        if (other := next(beside, None)) is not None:
            loss = loss + loss_of(model)(model(other.features), other.labels)
            processed += len(other)
        torch.autograd.backward(loss)
        sgd.step()
        processed += len(batch)
    return Outcome(len(forget), processed)

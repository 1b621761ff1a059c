"""Local training of some entries of a model, all others held where they are.

References
----------
McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017 (arXiv 1602.05629), for the training itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from clients.state import parameters_of
from clients.steps import Local, Outcome
from clients.training import batches, loss_of, number, optimiser, trained
from unlearning.protocol import FREE, Settings, Wire


def train_masked(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train as ``train`` does; what the extras do not free is, bit for bit, as it came.

    Extras ``free/<parameter>``, booleans of the parameter's shape: True entries are trained. A
    parameter without one stands still. With the setting ``hold_state``, buffers stay as they came:
    normalisation then goes by its running statistics.
    """
    weights = parameters_of(model)
    free = {
        name: torch.from_numpy(np.array(local.extras[f"{FREE}{name}"])).to(weight.device)
        for name, weight in weights.items()
        if f"{FREE}{name}" in local.extras
    }
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    model.train(not settings.get("hold_state", False))
    sgd = optimiser(settings, trained(model))
    processed = 0
    total = torch.zeros((), device=local.retain.labels.device)
    epochs = int(number(settings, "local_epochs"))
    for batch in batches(local.retain, settings, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(model)(model(batch.features), batch.labels)
        torch.autograd.backward(loss)
        sgd.step()
        with torch.no_grad():
            for name, weight in weights.items():
                held = before[name]
                weight.copy_(torch.where(free[name], weight, held) if name in free else held)
        total += loss.detach() * len(batch)
        processed += len(batch)
    metrics = {Wire.LOSS: float(total) / processed} if processed else {}
    return Outcome(len(local.retain), processed, metrics=metrics)

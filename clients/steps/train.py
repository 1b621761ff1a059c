"""Local training on the retained data: the client half of FedAvg.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.steps import Local, Outcome
from clients.training import batches, number, optimiser
from unlearning.protocol import Settings


def train(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train ``model`` in place for ``local_epochs`` passes over the retained data.

    Settings: ``local_epochs``, ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay``,
    ``max_steps`` (0: no limit).
    """
    model.train()
    sgd = optimiser(settings, model.parameters())
    processed = 0
    epochs = int(number(settings, "local_epochs"))
    for batch in batches(local.retain, settings, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(batch.features), batch.labels)
        torch.autograd.backward(loss)
        sgd.step()
        processed += len(batch)
    return Outcome(num_examples=len(local.retain), examples_processed=processed)

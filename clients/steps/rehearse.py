"""Training on a handful of synthetic examples, upwards or downwards: the client half of QuickDrop.

References
----------
Dhasade, Ding, Guo, Kermarrec, De Vos, Wu, "QuickDrop: Efficient Federated Unlearning via Synthetic
Data Generation", Middleware 2024 (arXiv 2311.15603).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from clients.steps import Local, Outcome, Shard
from clients.steps.synthetic import examples
from clients.training import batches, loss_of, number, optimiser, trained
from unlearning.protocol import Settings


def rehearse(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train ``model`` in place on the synthetic examples of the forget set or of the rest.

    Settings: ``ascend`` (climb the loss on the forget set's; otherwise descend on the others'),
    ``share`` (synthetic examples per real one of a class), ``mix`` (real examples of the rest per
    synthetic one), ``clip`` (gradient norm; 0: no limit), and ``local_epochs``, ``batch_size``,
    ``learning_rate``, ``momentum``, ``weight_decay`` as in ``train``. The weight of the answer is
    the number of synthetic examples.
    """
    model.train()
    ascend = bool(settings["ascend"])
    real = local.forget if ascend else local.retain
    parts = examples(local, real, number(settings, "share"), generator)
    count = sum(map(len, parts))
    if not count:
        return Outcome(0, 0)
    if not ascend:
        mixed = round(number(settings, "mix") * count)
        order = torch.from_numpy(generator.permutation(len(real))[:mixed])
        parts.append(real.take(order.to(real.labels.device)))
    data = Shard(
        torch.cat([part.features for part in parts]), torch.cat([part.labels for part in parts])
    )
    weights = trained(model)
    sgd, clip = optimiser(settings, weights), number(settings, "clip")
    epochs, processed = int(number(settings, "local_epochs")), 0
    for batch in batches(data, {**settings, "max_steps": 0}, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(model)(model(batch.features), batch.labels)
        torch.autograd.backward(-loss if ascend else loss)
        if clip:
            nn.utils.clip_grad_norm_(weights, clip)
        sgd.step()
        processed += len(batch)
    return Outcome(count, processed)

"""Fresh normalisation statistics of a model whose weights were edited, from the retained data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from clients.steps import Local, Outcome
from clients.training import batches, number
from unlearning.protocol import Settings


def statistics(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Forget the running means and variances and take them again in one pass over what is retained.

    The parameters stay. Layers of PyTorch's own start afresh and weigh all batches alike; other
    layers that keep statistics while training go on from the ones they have.

    Settings: ``batch_size``.
    """
    layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    usual = [layer.momentum for layer in layers]
    settings = {"batch_size": max(2, int(number(settings, "batch_size"))), "max_steps": 0}
    processed = 0
    model.train()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
        with torch.no_grad():
            for batch in batches(local.retain, settings, generator, epochs=1):
                if len(batch) > 1 or not layers:  # a single example has no variance
                    model(batch.features)
                    processed += len(batch)
    finally:
        # The model is shared by the clients of one process: its layers must be as they were.
        for layer, momentum in zip(layers, usual, strict=True):
            layer.momentum = momentum
    return Outcome(num_examples=len(local.retain), examples_processed=processed)

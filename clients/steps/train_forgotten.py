"""Ordinary local training, on the forget set: the update that a server can take back.

References
----------
Mora, Mazzocca, Montanari, Bellavista, "Federated Unlearning Made Practical: Seamless Integration
via Negated Pseudo-Gradients", IEEE Transactions on Big Data, 2025 (arXiv 2504.05822).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from clients.steps import Local, Outcome
from clients.steps.train import train
from unlearning.protocol import Settings


def train_forgotten(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train ``model`` in place on the forget set alone, with the settings of ``train``."""
    alone = replace(local, retain=local.forget, extras={})
    return train(model, alone, {**settings, "attribute": False}, generator)

"""Training on the retained data as they are and on the forget set as another model labels it.

References
----------
Zhao, Wang, Qi, Huang, Wei, Zhang, "Federated Unlearning With Momentum Degradation", IEEE Internet
of Things Journal, 2023 (doi 10.1109/jiot.2023.3321594).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from clients.state import arrays_of, load_arrays
from clients.steps import Local, Outcome, Shard
from clients.steps.train import train
from unlearning.arrays import Arrays
from unlearning.protocol import Settings

_CHUNK = 1024  # examples in one forward pass


def guide(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train as in learning; examples of the forget set carry the labels the teacher gives them.

    The teacher's arrays are the extras of the message: a model of the same architecture that has
    never seen the forget set. No label of the forget set is looked at.

    Settings: those of ``train``.
    """
    forget = local.forget
    if len(forget):
        forget = Shard(forget.features, _labels(model, local.extras, forget.features))
    kept = local.retain
    both = Shard(
        torch.cat([kept.features, forget.features]), torch.cat([kept.labels, forget.labels])
    )
    outcome = train(model, replace(local, retain=both), settings, generator)
    processed = outcome.examples_processed + len(forget)  # a forward pass each, counted as one
    return replace(outcome, examples_processed=processed)


def _labels(model: nn.Module, teacher: Arrays, features: torch.Tensor) -> torch.Tensor:
    """Return the classes that the teacher finds most likely; the model is left as it was."""
    own = arrays_of(model)
    load_arrays(model, teacher, source="teacher")
    model.eval()
    with torch.no_grad():
        parts = [model(x) for x in torch.split(features, _CHUNK)]
    load_arrays(model, own)
    return torch.cat(parts).argmax(1)

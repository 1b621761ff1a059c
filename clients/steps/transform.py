"""Training in which the examples of a class that is forgotten carry the label of a neighbour.

References
----------
Guo, Tian, Yao, Qi, Qi, Li, Dong, "Forgetting Through Transforming", ICCV 2025 (arXiv 2410.06848).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from clients.steps import Local, Outcome, Shard
from clients.steps.confusions import KEPT
from clients.steps.train import train
from unlearning.protocol import Settings

SET = "set/"  # prefix of extras: which classes may stand for a forgotten one


def transform(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train as ``train`` does, on the retained data and on the relabelled forget set.

    Extras ``set/<class>``: the labels of which an example of that class gets the likeliest, by what
    the model said in the step ``confusions``, else by what it says now.
    """
    data = local.forget
    if not len(data):
        return train(model, local, settings, generator)
    known = local.recall(KEPT)
    if known is not None and len(known[0]["chances"]) == len(data):
        chances = torch.from_numpy(np.array(known[0]["chances"])).to(data.labels.device)
    else:
        model.eval()
        with torch.no_grad():
            chances = model(data.features).softmax(1)
    labels = data.labels.clone()
    for label in torch.unique(data.labels).tolist():
        allowed = torch.from_numpy(np.array(local.extras[f"{SET}{label}"])).to(labels.device)
        mine = data.labels == label
        labels[mine] = allowed[chances[mine][:, allowed].argmax(1)]
    features = torch.cat([local.retain.features, data.features])
    both = Shard(features, torch.cat([local.retain.labels, labels]))
    return train(model, replace(local, retain=both), settings, generator)

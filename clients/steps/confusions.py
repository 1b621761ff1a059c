"""What a model takes the examples of a class for, if not for their class.

References
----------
Guo, Tian, Yao, Qi, Qi, Li, Dong, "Forgetting Through Transforming", ICCV 2025 (arXiv 2410.06848).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from clients.steps import Local, Outcome
from unlearning.arrays import Arrays
from unlearning.protocol import Settings

KEPT = "confusions"


def confusions(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Answer, per class of the forget set, with the probabilities of the second choices.

    ``seconds/<class>`` holds for every class j the sum of p_j over the correctly classified
    examples whose second choice is j; ``right/<class>`` how many these are. What the model says
    of each example is kept here until the request is over, to relabel it by.
    """
    data = local.forget
    if not len(data):
        return Outcome(0, 0, {})
    model.eval()
    with torch.inference_mode():
        chances = torch.cat([model(x).softmax(1) for x in torch.split(data.features, 1024)])
    order = chances.argsort(dim=1, descending=True, stable=True)
    found: Arrays = {}
    for label in torch.unique(data.labels).tolist():
        right = (data.labels == label) & (order[:, 0] == label)
        seconds = order[right, 1]
        sums = torch.zeros(chances.shape[1], dtype=torch.float64, device=chances.device)
        values = chances[right].gather(1, seconds[:, None])[:, 0].double()
        sums.index_add_(0, seconds, values)
        found[f"seconds/{label}"] = sums.cpu().numpy()
        found[f"right/{label}"] = np.array(int(right.sum()))
    kept = {KEPT: ({"chances": chances.cpu().numpy()}, dict[str, int]())}
    return Outcome(len(data), len(data), found, kept=kept)

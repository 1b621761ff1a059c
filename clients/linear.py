"""Linear classifiers that are trained as networks are: the support vector machine in the primal.

References
----------
Crammer, Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines",
JMLR 2, 2001: the loss for several classes. Shalev-Shwartz, Singer, Srebro, "Pegasos: Primal
Estimated sub-GrAdient SOlver for SVM", ICML 2007: training in the primal, example by example.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["LinearSvm", "hinge"]


class LinearSvm(nn.Module):
    """One score per class, linear in the input; trained on the hinge loss.

    Parameters
    ----------
    inputs, num_classes : int
        Sizes.
    penalty : float
        lambda, 0 or more: half of it times the squared length of the weights, the biases left out,
        is added to the mean hinge loss.

    Notes
    -----
    Scores are no logits: their softmax names the right class first but is no probability that
    anything was fitted to.
    """

    def __init__(self, inputs: int, num_classes: int, penalty: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= penalty < math.inf:
            raise ValueError(f"penalty is {penalty}; it must be 0 or more")
        self.penalty = penalty
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores, ``(n, num_classes)``."""
        scores: torch.Tensor = self.linear(x.flatten(1))
        return scores

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean hinge loss of a batch, the penalty added."""
        return hinge(logits, labels) + self.penalty / 2 * self.linear.weight.square().sum()


def hinge(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``max(0, 1 + max_{j != y} s_j - s_y)``.

    Parameters
    ----------
    scores : torch.Tensor
        ``(n, num_classes)``, at least two classes.
    labels : torch.Tensor
        ``(n,)``, int64.
    """
    own = labels[:, None] == torch.arange(scores.shape[1], device=scores.device)
    right = torch.where(own, scores, torch.zeros_like(scores)).sum(1)
    other = torch.where(own, torch.full_like(scores, -torch.inf), scores).amax(1)
    return (1 + other - right).clamp(min=0).mean()

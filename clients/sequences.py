"""Networks that answer at every position of a sequence: what follows each of its tokens.

Such a network bears ``every_position = True`` and returns ``(n, classes, length)``; a client then
holds a label for every position, ``(n, length)``. PyTorch's losses take both as they take
``(n, classes)`` and ``(n,)``, so that a step which asks :func:`clients.training.loss_of` needs to
know nothing of it.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_sequential", "per_example", "positions_last"]


def is_sequential(model: nn.Module) -> bool:
    """Return whether a network answers at every position."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    return bool(getattr(model, "every_position", False))


def per_example(losses: torch.Tensor, *, total: bool = False) -> torch.Tensor:
    """Return a loss per example, ``(n,)``: its mean over positions, or their sum.

    Parameters
    ----------
    losses : torch.Tensor
        ``(n,)`` or ``(n, length)``.
    total : bool
        The sum: the loss of a whole sequence as one event, -log p(sequence).
    """
    if losses.dim() == 1:
        return losses
    return losses.sum(1) if total else losses.mean(1)


def positions_last(scores: torch.Tensor) -> torch.Tensor:
    """Return scores of a dense layer, ``(n, length, classes)``, as a network answers them."""
    return scores.transpose(1, 2) if scores.dim() == 3 else scores

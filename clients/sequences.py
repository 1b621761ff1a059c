"""Networks that answer at every position of a sequence: what follows each of its tokens.

Such a network bears ``every_position = True`` and returns ``(n, classes, length)``; a client then
holds a label for every position, ``(n, length)``. PyTorch's losses take both as they take
``(n, classes)`` and ``(n,)``, so that a step which asks :func:`clients.training.loss_of` needs to
know nothing of it.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["AtTheEnd", "is_sequential", "per_example", "positions_last"]


class AtTheEnd(nn.Module):
    """A network for sequences as one that answers once: what follows the last token."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(n, classes)``."""
        said: torch.Tensor = self.inner(x)
        return said[..., -1]


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

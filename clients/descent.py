"""Plain SGD, whose first step costs no import.

``torch.optim`` imports PyTorch's compiler, some 900 modules and a second of CPU, at its first use
in every process. These are the same operations in the same order, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

__all__ = ["PlainSGD", "descend"]


def descend(weights: Sequence[torch.Tensor], steps: Sequence[torch.Tensor], rate: float) -> None:
    """Move every weight in place by ``-rate`` times its step.

    The one place that knows ``torch._foreach_add_``, which is private to PyTorch: one call for all
    weights. Should it go, a loop of ``weight.add_(step, alpha=-rate)`` does the same.
    """
    torch._foreach_add_(list(weights), list(steps), alpha=-rate)


class PlainSGD:
    """Stochastic gradient descent with momentum and weight decay, as ``torch.optim.SGD`` does it.

    Parameters
    ----------
    weights : iterable of nn.Parameter
        What is trained; one without a gradient is left as it is.
    rate : float
        Learning rate.
    momentum : float
        Share of the last step that goes into the next one; 0 for none.
    weight_decay : float
        Times the weight, added to its gradient; 0 for none.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        rate: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._weights = list(weights)
        self._rate = rate
        self._momentum = momentum
        self._decay = weight_decay
        self._velocities: dict[nn.Parameter, torch.Tensor] = {}

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zeros."""
        for weight in self._weights:
            if set_to_none or weight.grad is None:
                weight.grad = None
            else:
                weight.grad = torch.zeros_like(weight.grad)

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        moving: list[nn.Parameter] = []
        steps: list[torch.Tensor] = []
        for weight in self._weights:
            step = weight.grad
            if step is None:
                continue
            if self._decay:
                step = step.add(weight, alpha=self._decay)
            if self._momentum:
                step = self._velocity(weight, step)
            moving.append(weight)
            steps.append(step)
        if moving:
            descend(moving, steps, self._rate)

    def reset(self) -> None:
        """Forget the momentum."""
        self._velocities.clear()

    def _velocity(self, weight: nn.Parameter, step: torch.Tensor) -> torch.Tensor:
        known = self._velocities.get(weight)
        if known is None:
            self._velocities[weight] = known = step.detach().clone()
        else:
            known.mul_(self._momentum).add_(step)
        return known

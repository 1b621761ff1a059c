"""Local training with every step divided by the curvature: the client half of rapid retraining.

References
----------
Liu, Xu, Yuan, Wang, Li, "The Right to be Forgotten in Federated Learning: An Efficient Realization
with Rapid Retraining", INFOCOM 2022 (arXiv 2203.07320).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from clients.curvature import Tensors, empirical_fisher, hutchinson
from clients.steps import Local, Outcome
from clients.training import batches, number, trained
from unlearning.errors import ConfigError, unknown
from unlearning.protocol import Settings

TINY = 1e-8  # a curvature below it is none
_ESTIMATORS = {"empirical-fisher": empirical_fisher, "adahessian": hutchinson}


def precondition(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train ``model`` in place by quasi-Newton steps on the retained data.

    With mean gradient D and diagonal curvature C of each batch, both remembered exponentially from
    the first step of this call on, ``w <- w - learning_rate * m / (v + damping * mean(v))`` where
    ``m`` is the mean of D and ``v`` the root mean square of C.

    Settings: ``local_epochs``, ``batch_size``, ``max_steps`` and ``weight_decay`` as in ``train``;
    ``learning_rate``, ``curvature`` (``empirical-fisher``, ``adahessian``), ``beta1``, ``beta2``
    (memory of D and C), ``block`` (entries that share one curvature), ``damping`` (share of the
    mean curvature), ``max_step`` (L2 norm of a step; 0: no limit).
    """
    model.train()
    name = str(settings["curvature"])
    if name not in _ESTIMATORS:
        raise ConfigError(unknown("curvature", name, _ESTIMATORS))
    beta1, beta2 = number(settings, "beta1"), number(settings, "beta2")
    rate, damping = number(settings, "learning_rate"), number(settings, "damping")
    decay, limit = number(settings, "weight_decay", 0.0), number(settings, "max_step")
    block = int(number(settings, "block"))
    weights = trained(model)
    mean = [torch.zeros_like(w) for w in weights]
    square = [torch.zeros_like(w) for w in weights]
    processed = 0
    epochs = int(number(settings, "local_epochs"))
    for count, batch in enumerate(batches(local.retain, settings, generator, epochs=epochs), 1):
        found = _ESTIMATORS[name](model, batch)
        with torch.no_grad():
            for m, w, slope in zip(mean, weights, found.slopes, strict=True):
                m.lerp_(slope + decay * w, 1 - beta1)
            for s, curvature in zip(square, found.curvatures, strict=True):
                s.lerp_(block_mean(curvature, block).square_(), 1 - beta2)
            step = newton_step(
                [m / (1 - beta1**count) for m in mean],
                [(s / (1 - beta2**count)).sqrt_() for s in square],
                damping,
            )
            factor = shortened(rate, limit, rate * _length(step))
            for w, change in zip(weights, step, strict=True):
                w.sub_(change, alpha=factor)
        processed += found.passes * len(batch)
    return Outcome(num_examples=len(local.retain), examples_processed=processed)


def newton_step(slopes: Tensors, curvatures: Tensors, damping: float) -> Tensors:
    """Return ``slope / (curvature + damping * mean curvature)``, entry by entry.

    Parameters
    ----------
    slopes, curvatures : list of tensor
        Of the same shapes; curvatures are not negative.
    damping : float
        Share of the mean curvature over all entries; at least 1e-8 is added in any case.
    """
    total = sum(float(c.sum(dtype=torch.float64)) for c in curvatures)
    floor = max(TINY, damping * total / max(1, sum(c.numel() for c in curvatures)))
    return [slope / (c + floor) for slope, c in zip(slopes, curvatures, strict=True)]


def block_mean(values: torch.Tensor, size: int) -> torch.Tensor:
    """Return a copy of ``values`` in which the entries of each block are replaced by their mean.

    Parameters
    ----------
    values : torch.Tensor
        Of any shape. Blocks of convolution kernels (three dimensions and more) are the spatial
        ones, everything behind the first two; of other tensors, ``size`` consecutive entries, the
        last block being what is left.
    size : int
        1: every entry for itself, kernels included.
    """
    if size <= 1:
        return values.clone()
    if values.dim() > 2:
        spatial = tuple(range(2, values.dim()))
        return values.mean(spatial, keepdim=True).expand_as(values).clone()
    flat = values.flatten()
    whole = len(flat) - len(flat) % size
    parts = [flat[:whole].view(-1, size).mean(1).repeat_interleave(size)]
    if whole < len(flat):
        parts.append(flat[whole:].mean().expand(len(flat) - whole))
    return torch.cat(parts).view_as(values)


def shortened(rate: float, limit: float, length: float) -> float:
    """Return the rate of a step that would be ``length`` long: no longer than ``limit``, if any."""
    return rate * (min(1.0, limit / length) if limit and length else 1.0)


def _length(step: Tensors) -> float:
    return math.sqrt(sum(float(s.square().sum(dtype=torch.float64)) for s in step))

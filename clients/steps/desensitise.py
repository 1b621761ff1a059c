"""Training that makes a model stop reacting to a feature: the client half of Ferrari.

References
----------
Gu, Ong, Chan, Fan L., "Ferrari: Federated Feature Unlearning via Optimizing Feature Sensitivity",
NeurIPS 2024 (arXiv 2405.17462).
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import nn

from clients.steps import Local, Outcome
from clients.training import batches, number, optimiser, trained
from unlearning.errors import FederationError
from unlearning.protocol import Settings


def sensitivity(
    model: nn.Module, x: torch.Tensor, noise: torch.Tensor, *, stop_gradient: bool = False
) -> torch.Tensor:
    """Return the mean of ``|f(x) - f(x + noise)| / |noise|``, f being logits, norms L2.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    x : torch.Tensor
        ``(n, ...)``, examples.
    noise : torch.Tensor
        ``(draws, n, ...)``, not 0 for any example.
    stop_gradient : bool
        Take the second branch for a constant, as the authors' code does. For a linear model the
        gradients at noise and -noise then cancel.
    """
    clean, total = model(x), torch.zeros((), device=x.device, dtype=x.dtype)
    for one in noise:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not stop_gradient):
            moved = model(x + one)
        total = total + ((clean - moved).norm(dim=1) / one.flatten(1).norm(dim=1)).mean()
    return total / len(noise)


def drawn(
    x: torch.Tensor, features: list[int], settings: Settings, generator: np.random.Generator
) -> torch.Tensor:
    """Return Gaussian noise on some values of examples, its size drawn anew for every draw."""
    draws = int(number(settings, "draws"))
    sizes = generator.uniform(
        number(settings, "smallest"), number(settings, "largest"), size=(draws, 1, 1)
    )
    values = generator.normal(size=(draws, len(x), len(features))) * sizes
    flat = torch.zeros(draws, len(x), x[0].numel(), dtype=x.dtype)
    flat[:, :, features] = torch.from_numpy(values).to(x.dtype)
    return flat.view(draws, *x.shape).to(x.device)


def desensitise(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Descend the sensitivity to ``features`` until it is that of a fresh model.

    A model that was trained without the values never moved what reads them, so its sensitivity is
    about that of a fresh one: to go further would be to forget more than there was. The model is
    used as it is deployed, in evaluation mode; its statistics stay.

    Settings: ``features`` (positions in an example, as JSON list), ``epochs``, ``draws``,
    ``smallest``, ``largest`` (of the noise, in units of the inputs), ``stop_gradient``,
    ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay``.
    """
    features = [int(i) for i in json.loads(str(settings["features"]))]
    data = local.forget
    if not len(data):
        return Outcome(0, 0)
    if not features or max(features) >= data.features[0].numel():
        raise FederationError(
            f"features {features} are asked for; an example has {data.features[0].numel()} values"
        )
    draws, stop = int(number(settings, "draws")), bool(settings.get("stop_gradient"))
    sample = data.features[:256]
    noise = drawn(sample, features, settings, generator)
    fresh = local.fresh_model(int(generator.integers(2**31))).to(sample.device).eval()
    model.eval()
    with torch.no_grad():
        goal = float(sensitivity(fresh, sample, noise))
        before = float(sensitivity(model, sample, noise))
    sgd = optimiser(settings, trained(model))
    steps = 0
    processed, epochs = 3 * len(sample) * (draws + 1), int(number(settings, "epochs"))
    for batch in batches(data, {**settings, "max_steps": 0}, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        x = batch.features
        loss = sensitivity(model, x, drawn(x, features, settings, generator), stop_gradient=stop)
        processed += len(batch) * (draws + 1)
        if float(loss.detach()) <= goal:
            break
        torch.autograd.backward(loss)
        sgd.step()
        steps += 1
    with torch.no_grad():
        found = float(sensitivity(model, sample, noise))
    metrics = {
        "sensitivity-before": before,
        "sensitivity-after": found,
        "sensitivity-fresh": goal,
        "steps": steps,
    }
    return Outcome(len(data), processed, metrics=metrics)

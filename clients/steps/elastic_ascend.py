"""Ascent on the forget set, held back where a parameter matters to others: the client half of EWC.

References
----------
Wu, Guo, Wang, Hong, Zhang, Ding, "Federated Unlearning: Guarantee the Right of Clients to Forget",
IEEE Network 36(5), 2022.
Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017
(arXiv 1612.00796).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from clients.derivatives import mean_loss
from clients.state import parameters_of
from clients.steps import Local, Outcome
from clients.training import batches, loss_of, number
from unlearning.errors import FederationError
from unlearning.protocol import Settings

_FREE_STEPS = 5  # taken before an automatic penalty is set: at the start there is nothing to weigh


def elastic_ascend(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Minimise ``-loss(forget set) + penalty / 2 * sum_i F_i (w_i - w0_i)^2`` from ``w0`` on.

    The diagonal F comes as the extras of the message, one array per parameter. The penalty is
    taken implicitly, as a proximal step, so that no weight of it makes the ascent unstable. The
    model is used as it is deployed, in evaluation mode; its statistics stay.

    Settings: ``ascent_rate``, ``ascent_steps`` (batches at most), ``batch_size``, ``clip``
    (gradient norm), ``penalty`` (0: as strong as the loss after five steps), ``stop_loss`` (mean
    loss on the forget set that ends the ascent; 0: that of a blind guess, ln(number of classes) for
    cross-entropy, if ``forget_class``, else the mean loss on the held-out data, or that of a blind
    guess where there are none).
    """
    forget = local.forget
    if not len(forget):
        return Outcome(0, 0)
    weights = parameters_of(model)
    pull = _matching(weights, local)
    start = {name: w.detach().clone() for name, w in weights.items()}
    limit = number(settings, "stop_loss") or _unseen_loss(model, local, settings)
    penalty = given = number(settings, "penalty")
    rate, clip = number(settings, "ascent_rate"), number(settings, "clip")
    allowed = int(number(settings, "ascent_steps"))
    steps, processed = 0, len(forget)  # a look at the loss is counted as a pass over the data
    loss = first = mean_loss(model, forget)
    for batch in batches(forget, {**settings, "max_steps": allowed}, generator, epochs=allowed):
        if loss >= limit:
            break
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss_of(model)(model(batch.features), batch.labels))
        length = float(nn.utils.clip_grad_norm_(list(weights.values()), clip))
        if not given and steps == _FREE_STEPS:
            penalty = _balanced(weights, start, pull, min(length, clip))
        _step(weights, start, pull, rate, penalty)
        loss = mean_loss(model, forget)
        steps += 1
        processed += len(batch) + len(forget)
    metrics = {
        "steps": steps,
        "penalty": penalty,
        "stop-loss": limit,
        "loss-before": first,
        "loss-after": loss,
    }
    return Outcome(len(forget), processed, metrics=metrics)


def _unseen_loss(model: nn.Module, local: Local, settings: Settings) -> float:
    """Return the loss at which the forget set looks as if it had never been seen."""
    if len(local.held_out) and not settings.get("forget_class"):
        return mean_loss(model, local.held_out)
    one = local.forget.take(torch.zeros(1, dtype=torch.int64))
    with torch.inference_mode():
        return float(loss_of(model)(torch.zeros_like(model.eval()(one.features)), one.labels))


def _matching(weights: Mapping[str, torch.Tensor], local: Local) -> dict[str, torch.Tensor]:
    """Return the diagonal that came with the message, on the model's device."""
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    if {name: array.shape for name, array in local.extras.items()} != shapes:
        raise FederationError("the Fisher diagonal that came with the message fits another model")
    return {n: torch.from_numpy(np.array(local.extras[n])).to(w) for n, w in weights.items()}


def _step(
    weights: Mapping[str, torch.Tensor],
    start: Mapping[str, torch.Tensor],
    pull: Mapping[str, torch.Tensor],
    rate: float,
    penalty: float,
) -> None:
    """Climb along the gradient, then draw each entry back to its start as much as it matters."""
    with torch.no_grad():
        for name, w in weights.items():
            step = w - start[name]
            if w.grad is not None:
                step += rate * w.grad
            w.copy_(start[name] + step / (1 + rate * penalty * pull[name]))


def _balanced(
    weights: Mapping[str, torch.Tensor],
    start: Mapping[str, torch.Tensor],
    pull: Mapping[str, torch.Tensor],
    length: float,
) -> float:
    """Return the penalty whose gradient is as long as the loss's is now."""
    with torch.no_grad():
        parts = [(pull[n] * (w - start[n])).double().square().sum() for n, w in weights.items()]
    own = float(torch.stack(parts).sum().sqrt())
    return length / own if own > 0 else 0.0

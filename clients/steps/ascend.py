"""Projected gradient ascent on the forget set: the client half of PGA.

References
----------
Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to Efficiently Erase a Client in FL?",
2022 (arXiv 2207.05521).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from clients.state import parameters_of
from clients.steps import Local, Outcome, Shard
from clients.training import batches, loss_of, mean_accuracy, number, optimiser, trained
from unlearning.protocol import Settings

_FRESH_MODELS = 10  # models that the radius is averaged over, as in the paper


def ascend(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Climb the loss on the forget set inside a ball around the reference model.

    The reference is the global model without this client's share, ``(w - p w_u) / (1 - p)``, where
    the client kept its last local model ``w_u`` from the global model's own round; otherwise it is
    the global model ``w``. With ``centred`` it is the model as it came: the server has taken
    several leavers out of it together, which none of them could.

    Settings: ``ascent_rate``, ``momentum``, ``batch_size``, ``ascent_epochs``, ``clip`` (gradient
    norm), ``share`` (p, 0 to switch the reference off), ``last_round`` (round whose average made
    w), ``stop_distance`` (L2 distance to w_u, or to w, that ends the ascent; 0: never),
    ``stop_accuracy`` (accuracy on the forget set that ends it once it falls below; 0: never),
    ``radius`` (L2; 0: from fresh models; below 0: no ball), ``restart`` (whether the optimiser
    begins anew after every projection, as the authors' notebook makes a new one; the default).
    Extras ``from/<parameter>``: where to climb on, in a later round; the ball stays where it was.
    """
    weights = trained(model)
    anchor = [w.detach().clone() for w in weights]
    centre, last = _reference(model, local, settings)
    radius = number(settings, "radius", 0.0) or _radius(local, centre, generator)
    radius = radius if radius > 0 else float("inf")
    _assign(weights, _going_on(model, local) or centre)
    model.train()
    sgd = optimiser({**settings, "learning_rate": number(settings, "ascent_rate")}, weights)
    processed = 0
    epochs = int(number(settings, "ascent_epochs"))
    unlimited = {**settings, "max_steps": 0}
    for batch in batches(local.forget, unlimited, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(model)(model(batch.features), batch.labels)
        torch.autograd.backward(-loss)
        nn.utils.clip_grad_norm_(weights, number(settings, "clip"))
        sgd.step()
        processed += len(batch)
        if _project(weights, centre, radius) and settings.get("restart", True):
            sgd.reset()  # momentum points out of the ball: it must not carry over
        if _should_stop(model, weights, last or anchor, local.forget, settings):
            break
    metrics = {"distance": _distance(weights, centre)}
    if np.isfinite(radius):
        metrics["radius"] = radius
    return Outcome(len(local.forget), processed, metrics=metrics)


def _reference(
    model: nn.Module, local: Local, settings: Settings
) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    """Return the centre of the ball, and the last local model if it belongs to this round."""
    current = {name: w.detach().clone() for name, w in parameters_of(model).items()}
    share, centred = number(settings, "share", 0.0), bool(settings.get("centred"))
    same_round = local.facts.get("round") == int(number(settings, "last_round", -1))
    if local.remembered is None or not same_round or not (centred or 0 < share < 1):
        return list(current.values()), None
    last = {n: torch.from_numpy(local.remembered[n]).to(w) for n, w in current.items()}
    if centred:
        return list(current.values()), list(last.values())
    centre = [(w - share * last[n]) / (1 - share) for n, w in current.items()]
    return centre, list(last.values())


def _going_on(model: nn.Module, local: Local) -> list[torch.Tensor]:
    """Return the weights that the server sent to climb on from; none in the first round."""
    sent = {n: local.extras.get(f"from/{n}") for n in parameters_of(model)}
    return [
        torch.from_numpy(np.array(sent[name])).to(w)
        for name, w in parameters_of(model).items()
        if sent[name] is not None
    ]


def _radius(local: Local, centre: list[torch.Tensor], generator: np.random.Generator) -> float:
    """Return sqrt(1/3) of the root mean square distance from the centre to fresh models."""
    squares = []
    for seed in generator.integers(2**31, size=_FRESH_MODELS):
        fresh = [w.detach() for w in trained(local.fresh_model(int(seed)))]
        squares.append(_distance(fresh, centre) ** 2)
    return float(np.sqrt(np.mean(squares) / 3))


def _project(weights: list[nn.Parameter], centre: list[torch.Tensor], radius: float) -> bool:
    """Pull the weights back into the ball; return whether they were outside."""
    distance = _distance(weights, centre)
    if distance <= radius:
        return False
    with torch.no_grad():
        for w, c in zip(weights, centre, strict=True):
            w.copy_(c + (w - c) * (radius / distance))
    return True


def _should_stop(
    model: nn.Module,
    weights: list[nn.Parameter],
    start: list[torch.Tensor],
    forget: Shard,
    settings: Settings,
) -> bool:
    limit = number(settings, "stop_distance", 0.0)
    if limit and _distance(weights, start) > limit:
        return True
    floor = number(settings, "stop_accuracy", 0.0)
    if not floor:
        return False
    return mean_accuracy(model, forget) < floor


def _assign(weights: list[nn.Parameter], values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for w, value in zip(weights, values, strict=True):
            w.copy_(value)


def _distance(left: list[torch.Tensor] | list[nn.Parameter], right: list[torch.Tensor]) -> float:
    with torch.no_grad():
        parts = [(a.double() - b.double()).square().sum() for a, b in zip(left, right, strict=True)]
    return float(torch.stack(parts).sum().sqrt())

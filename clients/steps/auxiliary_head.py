"""An auxiliary head that says what should be said of the forget set: the client half of FedAU.

References
----------
Gu, Zhu, Zhang J., Zhao, Han, Fan, Yang, "Unlearning during Learning: An Efficient Federated Machine
Unlearning Method", IJCAI 2024 (arXiv 2405.15474).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.sequences import is_sequential, positions_last
from clients.steps import Local, Outcome, Shard
from clients.training import batches, loss_of, number, optimiser
from unlearning.errors import FederationError
from unlearning.protocol import Settings

_CHUNK = 1024


def auxiliary_head(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train a second last layer on what the first layers make of the data, and combine the two.

    With ``class_mode`` it begins at zero, learns the forget set with its own labels and is
    subtracted: ``W - strength W_a``. Otherwise it begins between the head and a fresh one,
    learns wrong labels on the forget set, drawn once, and the true ones on the rest, and is mixed
    in: ``(1 - strength) W + strength W_a``. Nothing but the last layer changes.

    Settings: ``class_mode``, ``strength``, ``fresh`` (share of the fresh head in the start),
    ``epochs``, and ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay``.
    """
    forget = local.forget
    if not len(forget):
        return Outcome(0, 0)
    head, name = _head(model, forget.features[:1])
    whole = forget
    class_mode, strength = bool(settings["class_mode"]), number(settings, "strength")
    if not class_mode:
        wrong = generator.integers(1, max(2, head.out_features), size=tuple(forget.labels.shape))
        labels = (forget.labels + torch.from_numpy(wrong).to(forget.labels)) % head.out_features
        whole = Shard(
            torch.cat([forget.features, local.retain.features]),
            torch.cat([labels, local.retain.labels]),
        )
    second = _start(head, name, local, settings, generator)
    sgd = optimiser(settings, second)
    data = Shard(_fed(model, head, whole.features), whole.labels)
    processed = len(whole)
    epochs = int(number(settings, "epochs"))
    for batch in batches(data, {**settings, "max_steps": 0}, generator, epochs=epochs):
        sgd.zero_grad(set_to_none=True)
        logits = positions_last(functional.linear(batch.features, *second))
        torch.autograd.backward(loss_of(model)(logits, batch.labels))
        sgd.step()
        processed += len(batch)
    with torch.no_grad():
        for weight, other in zip(_parts(head), second, strict=True):
            kept = weight if class_mode else (1 - strength) * weight
            weight.copy_(kept - strength * other if class_mode else kept + strength * other)
    return Outcome(len(forget), processed)


def _start(
    head: nn.Linear, name: str, local: Local, settings: Settings, generator: np.random.Generator
) -> list[nn.Parameter]:
    """Return the auxiliary layer's weight and bias as it begins."""
    if settings["class_mode"]:
        return [nn.Parameter(torch.zeros_like(w)) for w in _parts(head)]
    drawn = local.fresh_model(int(generator.integers(2**31))).get_submodule(name)
    assert isinstance(drawn, nn.Linear)  # the same architecture
    mixed, share = [], number(settings, "fresh")
    for own, other in zip(_parts(head), _parts(drawn), strict=True):
        mixed.append(nn.Parameter((1 - share) * own.detach() + share * other.detach().to(own)))
    return mixed


def _parts(head: nn.Linear) -> list[nn.Parameter]:
    """Return the weight, and the bias where there is one."""
    return list(head.parameters(recurse=False))


def _head(model: nn.Module, one: torch.Tensor) -> tuple[nn.Linear, str]:
    """Return the layer whose output is the model's, and its name.

    Raises
    ------
    FederationError
        If no dense layer makes the model's output.
    """
    said: dict[str, torch.Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            said[name] = output

        return note

    found = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear))
    layers = {n: m for n, m in found if _parts(m)}  # of adapters' frozen ones none is a weight
    handles = [layer.register_forward_hook(noting(name)) for name, layer in layers.items()]
    try:
        model.eval()
        with torch.no_grad():
            logits = model(one)
    finally:
        for handle in handles:
            handle.remove()
    for name, output in said.items():
        # Of sequences the network answers with the layer's output, its axes in another order.
        if output is logits or (is_sequential(model) and output.data_ptr() == logits.data_ptr()):
            return layers[name], name
    raise FederationError(
        "auxiliary_head needs a network whose last layer is dense and learns, and this one's is "
        "not; use another strategy"
    )


def _fed(model: nn.Module, head: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Return what the head is fed of some examples, ``(n, width)`` or ``(n, length, width)``."""
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    try:
        model.eval()
        with torch.no_grad():
            for chunk in torch.split(x, _CHUNK):
                model(chunk)
    finally:
        handle.remove()
    return torch.cat(seen)

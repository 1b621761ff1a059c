"""How strongly each channel answers to each class: the client half of class-wise pruning.

References
----------
Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022
(arXiv 2110.11794).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.steps import Local, Outcome, Shard
from unlearning.protocol import Settings

_CHUNK = 512  # examples per forward pass


def activations(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return, per layer, the activations summed over this client's examples of each class.

    Answers ``counts``, ``(C,)``, and for every layer ``sums/<names>``, ``(C, channels)``: ReLU of
    the output, averaged over positions. ``<names>`` are the layer and the normalisation that
    follows it at once, if any, joined by ``+``; the output is then taken behind both. Layers are
    convolutions and, with the setting ``hidden_units``, linear layers but the last.
    """
    model.eval()
    data = Shard(
        torch.cat([local.retain.features, local.forget.features]),
        torch.cat([local.retain.labels, local.forget.labels]),
    )
    seen: dict[str, torch.Tensor] = {}
    handles, layers = _watch(model, seen, hidden_units=bool(settings.get("hidden_units")))
    sums: dict[str, Any] = {}
    counts: Any = 0
    try:
        with torch.inference_mode():
            for start in range(0, len(data), _CHUNK):
                features = data.features[start : start + _CHUNK]
                labels = data.labels[start : start + _CHUNK]
                logits = model(features)
                one_hot = nn.functional.one_hot(labels, logits.shape[1]).double()
                counts = counts + one_hot.sum(0)
                for name, channels in seen.items():
                    sums[name] = sums.get(name, 0) + one_hot.T @ channels.double()
    finally:
        for handle in handles:
            handle.remove()
    chosen = layers(sums)
    arrays = {f"sums/{label}": sums[name].cpu().numpy() for label, name in chosen.items()}
    if len(data):
        arrays["counts"] = counts.cpu().numpy()
    return Outcome(num_examples=len(data), examples_processed=len(data), arrays=arrays)


def _watch(
    model: nn.Module, seen: dict[str, torch.Tensor], *, hidden_units: bool
) -> tuple[list[Any], Callable[[dict[str, Any]], dict[str, str]]]:
    """Note the pooled output of every layer and normalisation, in the order they run.

    Returns the handles to remove, and a function from all that was noted to the layers that
    count: label to the name under which their activations were noted.
    """
    kinds: dict[str, nn.Module] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            positive = output.relu()
            seen[name] = positive.flatten(2).mean(2) if positive.ndim > 2 else positive

        return note

    handles = []
    norms = (nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, *norms)):
            kinds[name] = module
            handles.append(module.register_forward_hook(noting(name)))

    def layers(noted: dict[str, Any]) -> dict[str, str]:
        order = [name for name in noted if name in kinds]
        linear = [name for name in order if isinstance(kinds[name], nn.Linear)]
        found: dict[str, str] = {}
        for place, name in enumerate(order):
            module = kinds[name]
            hidden = hidden_units and name in linear[:-1]
            if not (isinstance(module, nn.Conv2d) or hidden):
                continue
            after = order[place + 1] if place + 1 < len(order) else ""
            width = noted[name].shape[1]
            if after and isinstance(kinds[after], norms) and noted[after].shape[1] == width:
                found[f"{name}+{after}"] = after
            else:
                found[name] = name
        return found

    return handles, layers

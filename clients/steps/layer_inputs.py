"""What every layer sees: second moments of its inputs, never the inputs.

References
----------
Li G., Shen, Sun, Hu Y., Hu H., Tao, "Subspace based Federated Unlearning", TMLR 2026
(arXiv 2302.12448).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.state import parameters_of, to_array
from clients.steps import Local, Outcome
from clients.training import number
from unlearning.protocol import Settings


def layer_inputs(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return, per dense and convolutional layer, the sum of ``x x^T`` over what it is fed.

    ``moment/<weight>`` is ``(d, d)``, d the inputs of one output, plus one where the layer has a
    bias, whose input is 1. A convolution is fed the patches of its images, those of
    ``max_patches`` places at most. Grouped and otherwise padded convolutions are left out.

    Settings: ``examples`` (drawn from the retained data), ``max_patches`` (per layer).
    """
    data = local.retain
    drawn = generator.permutation(len(data))[: int(number(settings, "examples"))]
    if not len(drawn):
        return Outcome(0, 0, {})
    x = data.features[torch.from_numpy(np.sort(drawn)).to(data.labels.device)]
    most = int(number(settings, "max_patches"))
    names = {id(tensor): name for name, tensor in parameters_of(model).items()}
    moments: dict[str, torch.Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            rows = _rows(layer, inputs[0])
            if len(rows) > most:
                step = torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()
                rows = rows[step]
            if layer.bias is not None:
                rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
            product = (rows.T.double() @ rows.double()).float()
            moments[name] = moments[name] + product if name in moments else product

        return note

    handles = [
        layer.register_forward_hook(noting(names[id(layer.weight)]))
        for layer in model.modules()
        if _is_plain(layer) and id(layer.weight) in names
    ]
    try:
        model.eval()
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    found = {f"moment/{name}": to_array(moment) for name, moment in moments.items()}
    return Outcome(len(x), len(x), found)


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        padded = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return padded and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what a layer multiplies its weights with, one row per output place."""
    if isinstance(layer, nn.Conv2d):
        patches = functional.unfold(
            x,
            layer.kernel_size,
            dilation=layer.dilation,
            padding=layer.padding,  # type: ignore[arg-type]
            stride=layer.stride,
        )
        return patches.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)

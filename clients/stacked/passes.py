"""Through stacked networks, forward and back, and back once more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from clients.stacked.layers import Layers, product

__all__ = ["Pass", "gradients", "slopes"]

Tensors = dict[str, torch.Tensor]


class Pass(NamedTuple):
    """What K networks saw and said on n examples each.

    Attributes
    ----------
    seen : list of torch.Tensor
        What went into each layer, ``(K, n, width)``.
    said : torch.Tensor
        Log-probabilities, ``(K, n, classes)``.
    pulled : torch.Tensor
        What each of them counts in the mean cross-entropy, of the same shape.
    backs : dict of int to torch.Tensor
        What came back to each linear layer, ``(K, n, width)``, by its place.
    """

    seen: list[torch.Tensor]
    said: torch.Tensor
    pulled: torch.Tensor
    backs: dict[int, torch.Tensor]


def gradients(
    layers: Layers, weights: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[Tensors, Pass]:
    """Return the gradient of each network's mean cross-entropy, and the pass it came from.

    Parameters
    ----------
    layers : tuple
        K networks have them.
    weights : mapping of str to torch.Tensor
        ``(K, ...)`` each.
    x : torch.Tensor
        ``(K, n, d)``.
    y : torch.Tensor
        ``(K, n)``, int64.
    """
    seen: list[torch.Tensor] = []
    now = x
    for layer in layers:
        seen.append(now)
        if layer is None:
            now = now.relu()
            continue
        bias = weights[layer.bias] if layer.bias else None
        now = product(now, weights[layer.weight].transpose(1, 2), bias)
    said = now.log_softmax(2)
    pulled = torch.zeros_like(said).scatter_(2, y[..., None], -1 / y.shape[1])
    back = _through_softmax(pulled, said)
    backs: dict[int, torch.Tensor] = {}
    found: Tensors = {}
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if layer is None:
            back.masked_fill_(seen[place] <= 0, 0)
            continue
        backs[place] = back
        found[layer.weight] = product(back.transpose(1, 2), seen[place])
        if layer.bias:
            found[layer.bias] = back.sum(1)
        if place:
            back = product(back, weights[layer.weight])
    return found, Pass(seen, said, pulled, backs)


def slopes(
    layers: Layers,
    weights: Mapping[str, torch.Tensor],
    gone: Pass,
    pulls: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Return how a function of the networks' gradients changes with the examples, ``(K, n, d)``.

    Parameters
    ----------
    layers, weights
        As for :func:`gradients`.
    gone : Pass
        The pass that the gradients came from.
    pulls : mapping of str to torch.Tensor
        How the function changes with each gradient, by name.

    Notes
    -----
    A gradient is made of what a layer saw and of what came back to it. So the pulls are followed up
    through all that came back, turn round at the softmax, and are followed down through all that
    was seen. Sums of more than two are added in the order in which PyTorch would.
    """
    beside: dict[int, torch.Tensor] = {}  # what pulls at what a layer saw, by its own gradient
    up = torch.zeros(())  # nothing comes back to the examples
    for place, layer in enumerate(layers):
        if layer is None:
            up = up.masked_fill(gone.seen[place] <= 0, 0)
            continue
        pull = pulls[layer.weight]
        here = product(gone.seen[place], pull.transpose(1, 2))
        if layer.bias:
            here = pulls[layer.bias][:, None] + here
        if beside:
            here = here + product(up, weights[layer.weight].transpose(1, 2))
        beside[place], up = product(gone.backs[place], pull), here
    down = _through_softmax(-gone.pulled.sum(2, keepdim=True) * gone.said.exp() * up, gone.said)
    for place in reversed(range(len(layers))):
        layer = layers[place]
        if layer is None:
            down.masked_fill_(gone.seen[place] <= 0, 0)
        else:
            down = product(down, weights[layer.weight]) + beside[place]
    return down


def _through_softmax(back: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    through: torch.Tensor = torch.ops.aten._log_softmax_backward_data(back, said, 2, torch.float32)
    return through

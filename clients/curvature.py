"""The diagonal of the curvature of a batch's loss, found beside its gradient.

References
----------
Goodfellow, "Efficient Per-Example Gradient Computations", 2015 (arXiv 1510.01799): the squares of
a linear layer without its per-example gradients.

Yao, Gholami, Shen, Mustafa, Keutzer, Mahoney, "ADAHESSIAN: An Adaptive Second Order Optimizer for
Machine Learning", AAAI 2021 (arXiv 2006.00719).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from clients.derivatives import mean_squared_gradient
from clients.local import Shard
from clients.training import loss_of

__all__ = ["Curvature", "Tensors", "empirical_fisher", "hutchinson"]

Tensors = list[torch.Tensor]

_ENTRIES = 2**25  # entries of single examples' gradients held at once: 128 MiB in float32


class Curvature(NamedTuple):
    """Mean gradient and diagonal curvature, one tensor per trained weight, and what they cost."""

    slopes: Tensors
    curvatures: Tensors
    passes: int


def empirical_fisher(model: nn.Module, batch: Shard) -> Curvature:
    """Return the mean gradient of a batch and the mean of its examples' squared gradients.

    Notes
    -----
    A model of linear and convolution layers alone takes one pass, in which the squares follow from
    what goes into each layer and what comes back to it. Any other takes a second pass, example by
    example and in evaluation mode: where examples share statistics (BatchNorm), they have no
    gradients of their own while the model trains.
    """
    if (found := _by_layer(model, batch)) is not None:
        return found
    slopes = _gradient(model, batch)
    squares = mean_squared_gradient(model, batch)
    model.train()
    names = [name for name, w in model.named_parameters() if w.requires_grad]
    return Curvature(slopes, [squares[name] for name in names], 2)


def hutchinson(model: nn.Module, batch: Shard) -> Curvature:
    """Return the mean gradient of a batch and one estimate of the size of the Hessian's diagonal.

    The estimate is ``|z * Hz|`` with a random vector z of +1 and -1; magnitudes, so that the
    entries of a block do not cancel. A product with the Hessian counts as two passes.
    """
    weights = _trained(model)
    loss = loss_of(model)(model(batch.features), batch.labels)
    slopes = torch.autograd.grad(
        loss, weights, create_graph=True, allow_unused=True, materialize_grads=True
    )
    signs = [torch.randint_like(w, 2).mul_(2).sub_(1) for w in weights]
    # A slope that depends on no weight, as that of a hinge, has no graph to go back through.
    bent = [(slope, z) for slope, z in zip(slopes, signs, strict=True) if slope.requires_grad]
    if not bent:
        return Curvature([s.detach() for s in slopes], [torch.zeros_like(w) for w in weights], 3)
    products = torch.autograd.grad(
        [slope for slope, _ in bent],
        weights,
        [z for _, z in bent],
        allow_unused=True,
        materialize_grads=True,
    )
    sizes = [(z * product).abs_() for z, product in zip(signs, products, strict=True)]
    return Curvature([slope.detach() for slope in slopes], sizes, 3)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [w for w in model.parameters() if w.requires_grad]


def _gradient(model: nn.Module, batch: Shard) -> Tensors:
    loss = loss_of(model)(model(batch.features), batch.labels)
    found = torch.autograd.grad(loss, _trained(model), allow_unused=True, materialize_grads=True)
    return list(found)


def _by_layer(model: nn.Module, batch: Shard) -> Curvature | None:
    """Find the squares layer by layer in one ordinary pass; None where that is not possible."""
    if any(True for _ in model.buffers()):
        return None
    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    weights = _trained(model)
    # Shared weights are counted once per layer, frozen ones are not among the trained.
    held = sum(1 for layer in layers for _ in layer.parameters(recurse=False))
    if not all(_is_simple(layer) for layer in layers) or held != len(weights):
        return None
    seen: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []

    def note(
        layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        seen.append((layer, inputs[0].detach(), output))
        return output.clone()  # what follows may overwrite its input

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        loss = loss_of(model)(model(batch.features), batch.labels)
    finally:
        for handle in handles:
            handle.remove()
    fits = all(x.dim() == (2 if isinstance(layer, nn.Linear) else 4) for layer, x, _ in seen)
    if not fits or sorted(map(id, layers)) != sorted(id(layer) for layer, _, _ in seen):
        return None  # a layer used twice, or not at all, or on more than a batch of vectors
    found = torch.autograd.grad(loss, [*weights, *(output for _, _, output in seen)])
    squares: dict[int, torch.Tensor] = {}
    for (layer, x, _), back in zip(seen, found[len(weights) :], strict=True):
        squares |= _layer_squares(layer, x, back * len(batch))
    return Curvature(list(found[: len(weights)]), [squares[id(w)] for w in weights], 1)


def _layer_squares(
    layer: nn.Module, x: torch.Tensor, back: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Return id of weight -> mean of squared per-example gradients.

    ``x`` goes into the layer, ``back`` is each example's gradient with respect to what comes out.
    """
    if isinstance(layer, nn.Conv2d):
        squares = {id(layer.weight): _kernel_squares(layer, x, back)}
        back = back.sum((2, 3))
    else:
        weight = layer.get_parameter("weight")
        squares = {id(weight): back.square().T @ x.square() / len(x)}
    if layer.bias is not None:
        squares[id(layer.bias)] = back.square().mean(0)
    return squares


def _kernel_squares(layer: nn.Conv2d, x: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Return the mean over examples of the squared gradient of a convolution's kernels."""
    padding = (0, 0) if isinstance(layer.padding, str) else layer.padding  # "valid" is none
    total = torch.zeros_like(layer.weight)
    chunk = max(1, _ENTRIES // layer.weight.numel())
    for start in range(0, len(x), chunk):
        some = slice(start, start + chunk)
        columns = functional.unfold(
            x[some], layer.kernel_size, layer.dilation, padding, layer.stride
        )
        each = torch.bmm(back[some].flatten(2), columns.transpose(1, 2))
        total += each.square_().sum(0).view_as(total)
    return total / len(x)


def _is_simple(layer: nn.Module) -> bool:
    """Return whether a layer's squares follow from its input and what comes back to it."""
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and layer.padding != "same"
    return type(layer) is nn.Linear

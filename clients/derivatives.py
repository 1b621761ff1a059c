"""Gradients of a whole shard: the arithmetic that the steps which send no model share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from clients.local import Shard
from clients.state import parameters_of, to_array
from clients.training import Loss, loss_of
from unlearning.arrays import Arrays

__all__ = [
    "gauss_newton_diagonal",
    "mean_gradient",
    "mean_loss",
    "mean_squared_gradient",
    "named_arrays",
]

_CHUNK = 1024  # examples in one forward pass
_DRAWS = 4  # of all labels of a shard, where each example has several
_GRADIENT_VALUES = 2**25  # values of single examples' gradients held at once (128 MiB)


def named_arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    """Return tensors as arrays."""
    return {name: to_array(tensor) for name, tensor in tensors.items()}


def mean_gradient(
    model: nn.Module, shard: Shard, loss: Loss
) -> tuple[dict[str, torch.Tensor], float]:
    """Return the gradient of the mean loss over a shard, and the mean loss.

    Parameters
    ----------
    model : nn.Module
        Used in evaluation mode: the gradient is a function of the parameters alone, and chunks add
        up to the whole. Its own gradients are overwritten.
    shard : Shard
        At least one example.
    loss : callable
        The mean over a batch.

    Returns
    -------
    tuple
        Gradients by name as in :func:`clients.state.parameters_of`, zero where the loss does not
        depend on the parameter; the loss.
    """
    model.eval()
    model.zero_grad(set_to_none=True)
    total = 0.0
    for chunk in _chunks(shard):
        part = loss(model(chunk.features), chunk.labels) * (len(chunk) / len(shard))
        torch.autograd.backward(part)
        total += float(part.detach())
    found = {
        name: torch.zeros_like(tensor) if tensor.grad is None else _dense(tensor.grad).clone()
        for name, tensor in parameters_of(model).items()
    }
    model.zero_grad(set_to_none=True)
    return found, total


def mean_loss(model: nn.Module, shard: Shard) -> float:
    """Return the mean loss over a shard of at least one example, in evaluation mode."""
    loss = loss_of(model)
    model.eval()
    with torch.inference_mode():
        parts = [loss(model(chunk.features), chunk.labels) * len(chunk) for chunk in _chunks(shard)]
    return float(torch.stack(parts).sum()) / len(shard)


def gauss_newton_diagonal(model: nn.Module, shard: Shard) -> tuple[dict[str, torch.Tensor], int]:
    """Return the diagonal of the Gauss-Newton matrix of the mean cross-entropy over a shard.

    It is the mean over examples of ``sum_c p_c (d log p_c / dw)^2``: no label is read. Of
    sequences, with a label per position, it is estimated: the mean over a few draws of all labels
    by the model's own law, under which what positions say of the weights is uncorrelated.

    Parameters
    ----------
    model : nn.Module
        A classifier, used in evaluation mode.
    shard : Shard
        At least one example.

    Returns
    -------
    tuple
        By name as in :func:`clients.state.parameters_of`; the passes over the shard: the number of
        classes, or of draws.
    """
    model.eval()
    with torch.inference_mode():
        chances = torch.cat([model(c.features).softmax(1) for c in _chunks(shard)])
    if chances.dim() > 2:
        return _drawn_diagonal(model, shard, chances), _DRAWS
    classes = chances.shape[1]
    total: dict[str, torch.Tensor] = {}
    for label in range(classes):
        labels = torch.full_like(shard.labels, label)
        chance = chances[:, label].clone()
        found = mean_squared_gradient(model, Shard(shard.features, labels), chance)
        for name, value in found.items():
            total[name] = total[name] + value if name in total else value
    return total, classes


def _drawn_diagonal(
    model: nn.Module, shard: Shard, chances: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the diagonal from labels drawn by the model's own probabilities, (n, C, length)."""
    rows = chances.movedim(1, -1).flatten(0, 1).cpu()
    generator = torch.Generator().manual_seed(0)
    total: dict[str, torch.Tensor] = {}
    for _ in range(_DRAWS):
        drawn = torch.multinomial(rows, 1, generator=generator).view(shard.labels.shape)
        found = mean_squared_gradient(model, Shard(shard.features, drawn.to(shard.labels)))
        for name, value in found.items():
            total[name] = total.get(name, 0) + value / _DRAWS
    return total


def mean_squared_gradient(
    model: nn.Module, shard: Shard, counts: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return the mean over examples of the squared gradient of the loss, entry by entry.

    Where that is -log p(y | x), it is the diagonal of the empirical Fisher matrix: ``y`` is the
    label, not a draw from the model.

    Parameters
    ----------
    model : nn.Module
        Used in evaluation mode.
    shard : Shard
        At least one example.
    counts : torch.Tensor or None
        How much each example's square counts; None: 1 each.

    Returns
    -------
    dict
        By name as in :func:`clients.state.parameters_of`; zero where the loss does not depend on
        the parameter.
    """
    model.eval()
    asked = model
    if isinstance(model, nn.DataParallel):  # has no stateless form; what it wraps has
        model = model.module
    weights = {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}
    buffers = dict(model.named_buffers())

    # A tensor under two names is one parameter.
    own = {id(w): name for name, w in model.named_parameters() if w.requires_grad}
    places = {place: key for place, key in _places(model).items() if key in own}
    measured = loss_of(model)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        placed = {place: weights[own[tensor]] for place, tensor in places.items()}
        logits = functional_call(model, (placed, buffers), (x[None],), tie_weights=False)
        return measured(logits, y[None])

    rows = _rows_of(model) if measured is functional.cross_entropy else None
    at_once = vmap(grad(loss), in_dims=(None, 0, 0))
    totals = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    size = max(1, min(_CHUNK, _GRADIENT_VALUES // max(1, sum(w.numel() for w in weights.values()))))
    shares = torch.ones(len(shard), device=shard.labels.device) if counts is None else counts
    for chunk, share in zip(_chunks(shard, size), torch.split(shares, size), strict=True):
        if rows is not None and chunk.labels.dim() == 1:
            found = _by_layer(rows, chunk)
        else:
            try:
                found = at_once(weights, chunk.features, chunk.labels)
            except RuntimeError:  # a recurrent, scripted or sparse layer has no such form
                found = _one_by_one(model, chunk, measured)
        for name, g in found.items():
            squares = g.square() if counts is None else torch.einsum("n,n...->n...", share, g * g)
            totals[name] += squares.sum(0, dtype=torch.float64)
    return {
        name: (totals[own[id(w)]] / len(shard)).to(w.dtype)
        for name, w in parameters_of(asked).items()
    }


def _rows_of(model: nn.Module) -> Mapping[str, nn.Module] | None:
    """Return the layers of a row of linear layers and ReLUs behind a flattening; None: another."""
    if type(model) is not nn.Sequential:
        return None
    layers = dict(model.named_children())
    if not layers or len(layers) < len(model):  # one that stands twice is named once
        return None
    first, *others = layers.values()
    flat = type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1)
    kinds = {type(layer) for layer in others}
    held = [id(w) for layer in others for w in layer.parameters()]
    trained = all(w.requires_grad for w in model.parameters())
    plain = flat and nn.Linear in kinds and kinds <= {nn.Linear, nn.ReLU}
    return layers if plain and trained and len(set(held)) == len(held) else None


def _by_layer(rows: Mapping[str, nn.Module], chunk: Shard) -> dict[str, torch.Tensor]:
    """Return the gradients of single examples of a row of layers, (n, ...) by name.

    An example's gradient is what came back to a layer times what went in. ``vmap`` comes to the
    same bits, but imports PyTorch's compiler at its first gradient, two seconds of CPU.
    """
    seen: dict[str, torch.Tensor] = {}
    came: dict[str, torch.Tensor] = {}
    now = chunk.features.flatten(1)
    with torch.enable_grad():
        for name, layer in rows.items():
            if isinstance(layer, nn.ReLU):
                now = now.relu()
            elif isinstance(layer, nn.Linear):
                seen[name] = now.detach()
                now = torch.mm(now, layer.weight.detach().t())  # and the bias on its own, as vmap
                if layer.bias is not None:
                    now = now + layer.bias.detach()
                came[name] = now = now if now.requires_grad else now.requires_grad_(True)
        loss = functional.cross_entropy(now, chunk.labels, reduction="sum")
        backs = torch.autograd.grad(loss, list(came.values()))
    found: dict[str, torch.Tensor] = {}
    for name, back in zip(came, backs, strict=True):
        found[f"{name}.weight"] = back[:, :, None] * seen[name][:, None, :]
        if rows[name].bias is not None:
            found[f"{name}.bias"] = back
    return found


def _one_by_one(model: nn.Module, chunk: Shard, loss: Loss) -> dict[str, torch.Tensor]:
    """Return the gradients of single examples, (n, ...) by name, a pass for each."""
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in weights}
    for x, y in zip(chunk.features, chunk.labels, strict=True):
        part = loss(model(x[None]), y[None])
        gradients = torch.autograd.grad(
            part, list(weights.values()), allow_unused=True, materialize_grads=True
        )
        for name, g in zip(weights, gradients, strict=True):
            found[name].append(_dense(g))
    return {name: torch.stack(many) for name, many in found.items()}


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    """Return a gradient without gaps: that of an embedding may hold the rows it saw alone."""
    return gradient.to_dense() if gradient.layout != torch.strided else gradient


def _places(model: nn.Module) -> dict[str, int]:
    """Return every parameter's place, once per module however often the module is registered.

    ``functional_call`` puts the values back place by place; of a module under two names it would
    take its own values for the original ones.
    """
    return {
        f"{path}.{name}" if path else name: id(tensor)
        for path, module in model.named_modules()
        for name, tensor in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def _chunks(shard: Shard, size: int | None = None) -> Iterator[Shard]:
    size = size or _CHUNK
    for start in range(0, len(shard), size):
        yield Shard(shard.features[start : start + size], shard.labels[start : start + size])

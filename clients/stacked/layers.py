"""Which networks can be worked on side by side, and products of their matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from clients.training import loss_of

__all__ = ["ALIGNED", "Layers", "layers_of", "product"]

ALIGNED = 16  # floats: 64 bytes, where PyTorch lets tensors begin
_WIDEST = 1 << 16  # weights of a layer; beyond, the products take the time
_TRIED = 1 << 12  # numbers that two ways of multiplying must agree in


@dataclass(frozen=True)
class _Linear:
    """A linear layer: names of its arrays; an empty ``bias``: it has none."""

    weight: str
    bias: str


Layers = tuple[_Linear | None, ...]  # None: a ReLU


def layers_of(model: nn.Module) -> Layers | None:
    """Return the layers of a network that can be trained side by side, None for any other.

    That is a row of linear layers and ReLUs behind a flattening, trained whole on cross-entropy, in
    float32 on the CPU, with weights by the 16.
    """
    if type(model) is not nn.Sequential or loss_of(model) is not functional.cross_entropy:
        return None
    found: list[_Linear | None] = []
    for place, (name, layer) in enumerate(model.named_children()):
        if place == 0 and type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            continue
        if type(layer) is nn.Linear and _is_handy(layer.weight.numel()):
            bias = f"{name}.bias" if "bias" in dict(layer.named_parameters()) else ""
            found.append(_Linear(f"{name}.weight", bias))
        elif type(layer) is nn.ReLU and found:
            found.append(None)
        else:
            return None
    names = {name for one in found if one is not None for name in (one.weight, one.bias) if name}
    weights = dict(model.named_parameters())
    plain = all(
        w.requires_grad and w.dtype == torch.float32 and w.device.type == "cpu"
        for w in weights.values()
    )
    if not found or found[-1] is None or not plain or names != weights.keys():
        return None
    return tuple(found)


def _is_handy(weights: int) -> bool:
    """Return whether layers of so many weights can lie in a row: small, each well aligned.

    Matrix products may add up in another order where a matrix begins at an odd address.
    """
    return weights <= _WIDEST and not weights % ALIGNED


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``a[i] @ b[i] + bias[i]`` for every i, with the bits that each has on its own.

    ``a`` is ``(K, n, d)``, ``b`` ``(K, d, m)``, ``bias`` ``(K, m)`` or None.
    """
    turned = a.stride(1) < a.stride(2), b.stride(1) < b.stride(2)
    if not _is_same(a.shape[0], a.shape[1], a.shape[2], b.shape[2], *turned, bias is not None):
        return _one_by_one(a, b, bias)
    return _at_once(a, b, bias)


def _at_once(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    made = torch.bmm(a, b)
    return made if bias is None else made.add_(bias[:, None])


def _one_by_one(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    firsts, seconds = _apart(a), _apart(b)
    if bias is None:
        return torch.stack([torch.mm(x, y) for x, y in zip(firsts, seconds, strict=True)])
    given = zip(bias, firsts, seconds, strict=True)
    return torch.stack([torch.addmm(add, x, y) for add, x, y in given])


def _apart(stack: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the matrices of a stack, each well aligned as a tensor of its own is."""
    if stack.stride(0) % ALIGNED:
        return [one.clone() for one in stack]  # a clone keeps the order of its axes
    return stack.unbind(0)


@cache
def _is_same(
    count: int, n: int, d: int, m: int, first_turned: bool, second_turned: bool, with_bias: bool
) -> bool:
    """Return whether a stacked product has the bits of single ones, tried on random numbers.

    By so many numbers that no chance makes them equal.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int, turned: bool) -> torch.Tensor:
        shape = (count, columns, rows) if turned else (count, rows, columns)
        found = torch.randn(shape, generator=generator)
        return found.transpose(1, 2) if turned else found

    for _ in range(max(3, -(-_TRIED // (count * n * m)))):
        a, b = drawn(n, d, first_turned), drawn(d, m, second_turned)
        bias = torch.randn((count, m), generator=generator) if with_bias else None
        if not torch.equal(_at_once(a, b, bias), _one_by_one(a, b, bias)):
            return False
    return True

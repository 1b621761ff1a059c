"""A module's state as named arrays: what it trains, and what it merely carries along.

The module itself is asked. A tensor that it trains goes by its own name. Float state that it does
not train (a buffer, a frozen weight) goes by its name with a mark, so that no noise, negation or
ascent ever touches it; PyTorch's normalisation statistics need none, they are known by their names.
A tensor under several names is one array, under the first. Number formats that NumPy has not
(bfloat16, float8) travel as float32. Whatever is no tensor (extra state) stays with each client.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from unlearning.arrays import Array, Arrays, is_buffer, marked, plain
from unlearning.errors import FederationError
from unlearning.weighing import TRUNK, part_of

__all__ = ["arrays_of", "load_arrays", "named_as", "parameters_of", "to_array"]

_NUMPY = (torch.float64, torch.float32, torch.float16)
_FLOATS = np.empty(0, np.float32)  # of a kind that is asked for by name


def _layout(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the name on the wire of each tensor, once, in the order of ``state_dict``."""
    trained = {id(w) for w in model.parameters() if w.requires_grad}
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor) or id(tensor) in seen or _is_extra(name):
            continue
        seen.add(id(tensor))
        if id(tensor) in trained or not tensor.is_floating_point() or is_buffer(name, _FLOATS):
            found[name] = tensor
        else:
            found[marked(name)] = tensor
    return found


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


def parameters_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that the server counts as parameters, by name, in the model's order."""
    return {
        name: tensor
        for name, tensor in _layout(model).items()
        if tensor.is_floating_point() and not is_buffer(name, _FLOATS)
    }


def to_array(tensor: torch.Tensor) -> Array:
    """Return a copy of a tensor as an array."""
    values = tensor.detach()
    if values.is_floating_point() and values.dtype not in _NUMPY:
        values = values.float()
    return np.array(values.cpu().numpy())


def arrays_of(model: nn.Module) -> Arrays:
    """Return the model's state as named arrays, in the order of ``state_dict``; a copy."""
    return {name: to_array(tensor) for name, tensor in _layout(model).items()}


def named_as(model: nn.Module, arrays: Mapping[str, Array]) -> Arrays:
    """Return arrays under the names that :func:`arrays_of` gives them, second names left out.

    What the model does not know keeps its name.
    """
    names = {plain(name): name for name in _layout(model)}
    others = {name for name in model.state_dict() if name not in names}
    return {names.get(plain(n), n): a for n, a in arrays.items() if plain(n) not in others}


def load_arrays(
    model: nn.Module,
    arrays: Mapping[str, Array],
    *,
    source: str = "message",
    in_parts: bool = False,
) -> None:
    """Overwrite the model's state, each tensor in its own number format and memory order.

    Names may come with or without the mark of what is not trained. ``in_parts``: arrays of parts
    that are other clients' may be missing, and are zeroed.

    Raises
    ------
    FederationError
        If a name or a shape does not fit the model.
    """
    state = {plain(name): tensor for name, tensor in _layout(model).items()}
    given = {plain(name): array for name, array in arrays.items()}
    absent: set[str] = set()
    if differ := state.keys() ^ given.keys():
        others = {n for n in model.state_dict() if n not in state}  # second names, extra state
        absent = {n for n in state.keys() - given.keys() if in_parts and part_of(n) != TRUNK}
        differ -= absent
        if odd := sorted(differ - (others & given.keys())):
            raise FederationError(f"{source} and model differ in array {odd[0]!r}")
    with torch.no_grad():
        for name, tensor in state.items():
            if name in absent:
                tensor.zero_()
                continue
            if tuple(tensor.shape) != given[name].shape:
                raise FederationError(
                    f"array {name!r} came with shape {given[name].shape}, "
                    f"the model has {tuple(tensor.shape)}"
                )
            tensor.copy_(torch.from_numpy(np.array(given[name])))

"""Whether a network can take part in a federation: its tensors must travel as NumPy arrays."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["materialise", "unfit"]

# What NumPy has a type for, and what training, averaging and forgetting know how to treat.
_FLOATS = {torch.float16, torch.float32, torch.float64}
_WHOLE = {
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
}


def materialise(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Give lazy layers their shapes, by one call on two empty examples; others are left alone."""
    tensors = [*model.parameters(), *model.buffers()]
    if not any(is_lazy(tensor) for tensor in tensors):
        return
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(2, *input_shape))
    model.train(was_training)


def unfit(model: nn.Module) -> str | None:
    """Return why a network cannot take part, in one line, or None if it can.

    Its state must be tensors of numbers that NumPy knows, and no parameter may be empty or begin
    as what training cannot leave. Infinities that no training changes, as those of a mask, may be.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            return (
                f"{name!r} has no shape yet: calling the model does not reach its lazy layer; "
                "give the layer its size"
            )
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            return (
                f"its state holds {name!r}, which is {type(value).__name__} and no tensor, and "
                "only tensors travel to the clients; register it as a buffer, or leave out "
                "get_extra_state"
            )
        if value.dtype not in _FLOATS | _WHOLE:
            kind = str(value.dtype).removeprefix("torch.")
            return (
                f"{name!r} is {kind}, which models of a federation cannot be kept in; keep it in "
                "float32 and convert inside forward"
            )
        if value.layout is not torch.strided or value.device.type == "meta":
            return f"{name!r} is no plain tensor ({value.layout}, {value.device}); make it dense"
        if value.dtype in _FLOATS and bool(value.isnan().any()):
            return f"{name!r} begins with nan, which no average is taken of; give it numbers"
    for name, weight in model.named_parameters():
        if weight.numel() == 0:
            return (
                f"parameter {name!r} has shape {tuple(weight.shape)} and so no value; raise the "
                "size that is 0"
            )
        if weight.requires_grad and bool(weight.isinf().any()):
            return f"parameter {name!r} begins with an infinity; give it numbers"
    return None

"""Models by name, the same bits for the same seed, as named arrays and back.

Every function here named ``build_<name>`` is a model; its keyword arguments are the further keys
of ``[model]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.participant import arrays_of, load_arrays
from experiments.config import import_object
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, unknown

__all__ = ["build", "device", "load", "names", "to_arrays"]

Shape = tuple[int, ...]


def names() -> tuple[str, ...]:
    """Return the models that are known by name."""
    return tuple(sorted(_builders()))


def build(
    name: str,
    input_shape: Shape,
    num_classes: int,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a freshly initialised model on the CPU.

    Parameters
    ----------
    name : str
        One of :func:`names`, or ``module:function`` for a function
        ``(input_shape, num_classes, **params) -> torch.nn.Module``.
    input_shape : tuple of int
        Shape of one example: (C, H, W) or (d,).
    num_classes : int
        Number of outputs.
    params : mapping, optional
        Further arguments of the function.
    seed : int
        Seed of the initial values; PyTorch's own generator is left as it was.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or the model cannot be built from them.
    """
    own = name in _builders()
    if not own and ":" not in name:
        raise ConfigError(f"model.name: {unknown('model', name, [*names(), 'module:function'])}")
    function = _builders()[name] if own else import_object(name, "model")
    params = dict(params or {})
    _check_params(name, function, params)
    # The CPU generator alone: torch.manual_seed would also seed every GPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = function(input_shape, num_classes, **params)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"model {name!r} cannot be built for examples of shape {input_shape} with "
                f"{params or 'its defaults'} ({str(error).splitlines()[0]}); change [model]"
            ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.name: {name!r} returned {type(model).__name__}; return a torch.nn.Module"
        )
    return model


def build_mlp(input_shape: Shape, num_classes: int, hidden: int = 64) -> nn.Module:
    """Return a net with one hidden layer of ``hidden`` units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_cnn(input_shape: Shape, num_classes: int, hidden: int = 512) -> nn.Module:
    """Return the two-convolution net of McMahan et al., which FedEraser and PGA use.

    1,663,370 parameters for 28x28 grey images.
    """
    channels, height, width = _image(input_shape, 4)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_resnet18(input_shape: Shape, num_classes: int, groups: int = 32) -> nn.Module:
    """Return torchvision's ResNet-18 with GroupNorm and a stem for small images.

    GroupNorm keeps no statistics of the data, which subtraction could not take out again.
    """
    from torchvision.models import resnet18

    channels, _, _ = _image(input_shape, 1)
    model: nn.Module = resnet18(
        num_classes=num_classes, norm_layer=lambda width: nn.GroupNorm(groups, width)
    )
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def to_arrays(model: nn.Module) -> Arrays:
    """Return a copy of the model's tensors, in the order of its state dict."""
    return arrays_of(model)


def load(model: nn.Module, arrays: Mapping[str, Array]) -> nn.Module:
    """Return ``model`` after its tensors took the values of ``arrays``.

    Raises
    ------
    FederationError
        If a name or a shape does not fit the model.
    """
    load_arrays(model, dict(arrays))
    return model


def device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names on this machine.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(name)
    count = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if (chosen.index or 0) >= count:
        raise ConfigError(
            f"device = {name!r}: this machine has {count} CUDA device(s); set device = 'auto'"
        )
    return chosen


def _builders() -> dict[str, Callable[..., nn.Module]]:
    return {
        name.removeprefix("build_").replace("_", "-"): value
        for name, value in globals().items()
        if name.startswith("build_") and inspect.isfunction(value)
    }


def _check_params(name: str, function: Any, params: Mapping[str, Any]) -> None:
    if not callable(function):
        raise ConfigError(f"model.name: {name!r} is no function; name one that returns a module")
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in params:
        if key not in list(known)[2:]:
            raise ConfigError(f"[model]: {unknown(f'key of {name}', key, list(known)[2:])}")


def _image(input_shape: Shape, least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise ValueError(f"it needs images of at least {least}x{least} pixels; take the model mlp")
    channels, height, width = input_shape
    return channels, height, width

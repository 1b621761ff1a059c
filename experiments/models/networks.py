"""Models by name, the same bits for the same seed, as named arrays and back.

A function named ``build_<name>`` in any module of this package is a network, one named
``array_<name>`` a model that is none; their further arguments are the further keys of ``[model]``.
Names have hyphens where functions have underscores.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clients.participant import arrays_of, load_arrays
from experiments.config.loading import import_object
from experiments.models.fitness import materialise, unfit
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, unknown
from unlearning.models.array_model import ArrayModel

__all__ = [
    "array_model",
    "build",
    "device",
    "is_network",
    "load",
    "names",
    "parameters",
    "takes_tasks",
    "to_arrays",
]

Shape = tuple[int, ...]


def names() -> tuple[str, ...]:
    """Return the models that are known by name."""
    return tuple(sorted({*_builders(), *_array_builders()}))


def is_network(name: str) -> bool:
    """Return whether a model that is known by name is a network."""
    return name in _builders()


def parameters(name: str) -> dict[str, Any]:
    """Return the further keys of ``[model]`` for one of :func:`names`, with their defaults."""
    function, own = (_builders().get(name), 2) if is_network(name) else (None, 3)
    known = inspect.signature(function or _array_builders()[name]).parameters
    return {key: known[key].default for key in list(known)[own:] if key != "tasks"}


def takes_tasks(name: str) -> bool:
    """Return whether a model has a head per task; it is then built with ``tasks``."""
    function = _builders().get(name)
    if function is None and ":" in name:
        function = import_object(name, "model")
    return function is not None and "tasks" in inspect.signature(function).parameters


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
    shown = f"model {name!r} cannot be built for examples of shape {input_shape}"
    # The CPU generator alone: torch.manual_seed would also seed every GPU.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without units, which are refused below
        torch.default_generator.manual_seed(seed)
        try:
            model = function(input_shape, num_classes, **params)
            if isinstance(model, nn.Module):
                materialise(model, input_shape)
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's own function raises
            raise ConfigError(
                f"{shown} with {params or 'its defaults'} ({_first_line(error)}); change [model]"
            ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.name: {name!r} returned {type(model).__name__}; return a torch.nn.Module"
        )
    if problem := unfit(model):
        raise ConfigError(f"{shown} with {params or 'its defaults'}: {problem}")
    return model


def array_model(
    name: str,
    input_shape: Shape,
    num_classes: int,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ArrayModel | None:
    """Return the model that is no network, or None if ``name`` is not the name of one.

    Parameters are those of :func:`build`.

    Raises
    ------
    ConfigError
        If a parameter is unknown or its value is refused.
    """
    function = _array_builders().get(name)
    if function is None:
        return None
    params = dict(params or {})
    _check_params(name, function, params, own=3)
    try:
        return function(input_shape, num_classes, seed, **params)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model {name!r} cannot be built with {params or 'its defaults'} "
            f"({str(error).splitlines()[0]}); change [model]"
        ) from error


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
    return _found("build_")


def _array_builders() -> dict[str, Callable[..., ArrayModel]]:
    return _found("array_")


def _found(prefix: str) -> dict[str, Callable[..., Any]]:
    """Return the functions of this package's other modules whose names begin so, by their rest."""
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)], f"{__package__}."):
        if info.name == __name__:
            continue  # it asks for models by name, and defines none
        for name, value in vars(importlib.import_module(info.name)).items():
            if name.startswith(prefix) and inspect.isfunction(value):
                found[name.removeprefix(prefix).replace("_", "-")] = value
    return found


def _check_params(name: str, function: Any, params: Mapping[str, Any], own: int = 2) -> None:
    if not callable(function):
        raise ConfigError(f"model.name: {name!r} is no function; name one that returns a module")
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in params:
        if key not in list(known)[own:]:
            raise ConfigError(f"[model]: {unknown(f'key of {name}', key, list(known)[own:])}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

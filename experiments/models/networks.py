"""Models by name, the same bits for the same seed, as named arrays and back.

Every function here named ``build_<name>`` is a network, every function named ``array_<name>`` a
model that is none; their further arguments are the further keys of ``[model]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.linear import LinearSvm
from clients.multitask import MultiTask
from clients.participant import arrays_of, load_arrays
from experiments.config.loading import import_object
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, unknown
from unlearning.models.array_model import ArrayModel
from unlearning.models.boosting import Boosting
from unlearning.models.cluster_model import ClusterModel
from unlearning.models.forest import Forest
from unlearning.models.local_forests import LocalForests
from unlearning.models.logistic_model import LogisticModel
from unlearning.models.ridge_model import RidgeModel
from unlearning.models.svm_model import SvmModel
from unlearning.models.trees import Plan

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


def array_ridge(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    penalty: float = 1.0,
    refactorise_every: int = 50,
) -> ArrayModel:
    """Return ridge regression on the classes as 0 and 1."""
    return RidgeModel(int(np.prod(input_shape)), num_classes, penalty, refactorise_every)


def array_k_means(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    clusters: int = 0,
    cell: float = 0.05,
    restarts: int = 10,
) -> ArrayModel:
    """Return federated k-means; ``clusters`` 0: as many as there are classes."""
    width = int(np.prod(input_shape))
    return ClusterModel(width, num_classes, seed, clusters or num_classes, cell, restarts)


def array_svm(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    kernel: str = "rbf",
    ceiling: float = 1.0,
    gamma: float = 0.0,
    features: int = 256,
) -> ArrayModel:
    """Return the average of local support vector machines, one per class against the rest.

    ``kernel``: ``linear``, or ``rbf`` through random Fourier ``features``; ``gamma`` 0: 3 / d.
    """
    width = int(np.prod(input_shape))
    return SvmModel(width, num_classes, seed, kernel, ceiling, gamma or 3 / width, features)


def array_logistic(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    penalty: float = 1e-3,
    sigma: float = 1.0,
    direct_up_to: int = 256,
    products: int = 100,
    tolerance: float = 1e-8,
) -> ArrayModel:
    """Return logistic regression with a perturbed objective, for certified removal.

    With more features than ``direct_up_to`` a Newton step is searched for by conjugate gradients,
    over up to ``products`` + 2 rounds.
    """
    width = int(np.prod(input_shape))
    return LogisticModel(
        width, num_classes, seed, penalty, sigma, direct_up_to, products, tolerance
    )


def takes_tasks(name: str) -> bool:
    """Return whether a model has a head per task; it is then built with ``tasks``."""
    function = _builders().get(name)
    if function is None and ":" in name:
        function = import_object(name, "model")
    return function is not None and "tasks" in inspect.signature(function).parameters


def build_mlp(input_shape: Shape, num_classes: int, hidden: int = 64) -> nn.Module:
    """Return a net with one hidden layer of ``hidden`` units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_linear(input_shape: Shape, num_classes: int) -> nn.Module:
    """Return logistic regression, trained by gradient steps; ``logistic`` is the certified one."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), num_classes))


def build_linear_svm(input_shape: Shape, num_classes: int, penalty: float = 1e-3) -> nn.Module:
    """Return a linear support vector machine in the primal, with ``penalty`` on its weights."""
    return LinearSvm(int(np.prod(input_shape)), num_classes, penalty)


def build_cnn(
    input_shape: Shape, num_classes: int, hidden: int = 512, width: int = 32
) -> nn.Module:
    """Return the two-convolution net of McMahan et al., which FedEraser and PGA use.

    1,663,370 parameters for 28x28 grey images. ``width`` is the number of channels of the first
    convolution; the second has twice as many.
    """
    channels, rows, columns = _image(input_shape, 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (rows // 4) * (columns // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_resnet18(
    input_shape: Shape, num_classes: int, groups: int = 32, width: int = 64
) -> nn.Module:
    """Return ResNet-18, of torchvision's blocks, with GroupNorm and a stem for small images.

    GroupNorm keeps no statistics of the data, which subtraction could not take out again; each of
    its ``groups`` takes as many channels as the others. ``width`` is the number of channels in the
    first stage, 64 in the paper; the later stages have 2, 4 and 8 times as many.
    """
    from torchvision.models.resnet import BasicBlock

    channels, _, _ = _image(input_shape, 1)

    def norm(size: int) -> nn.Module:
        return nn.GroupNorm(groups, size)

    def stage(inputs: int, size: int, stride: int) -> nn.Module:
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(nn.Conv2d(inputs, size, 1, stride, bias=False), norm(size))
        first = BasicBlock(inputs, size, stride, shortcut, norm_layer=norm)
        return nn.Sequential(first, BasicBlock(size, size, norm_layer=norm))

    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(channels, width, 3, padding=1, bias=False))
    model.add_module("bn1", norm(width))
    model.add_module("relu", nn.ReLU())
    inputs = width
    for place, factor in enumerate((1, 2, 4, 8), 1):
        size = factor * width
        model.add_module(f"layer{place}", stage(inputs, size, 1 if place == 1 else 2))
        inputs = size
    model.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(inputs, num_classes))
    return _for_relu(model)


def build_vgg11(
    input_shape: Shape, num_classes: int, groups: int = 32, width: int = 64
) -> nn.Module:
    """Return VGG-11 for small images: one linear layer behind the convolutions.

    ``width`` is the number of channels of the first convolution, 64 in the paper; the later ones
    have 2, 4 and 8 times as many. GroupNorm of so many ``groups`` follows each of them; 0: none,
    as in the paper, which then trains slowly. Images that poolings have shrunk to one pixel are
    pooled no further.
    """
    channels, height, length = _image(input_shape, 2)
    side = min(height, length)
    layers: list[nn.Module] = []
    for factor, pools in ((1, 1), (2, 1), (4, 0), (4, 1), (8, 0), (8, 1), (8, 0), (8, 1)):
        size = factor * width
        layers.append(nn.Conv2d(channels, size, 3, padding=1, bias=not groups))
        if groups:
            layers.append(nn.GroupNorm(groups, size))
        layers.append(nn.ReLU())
        if pools and side > 1:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        channels = size
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("classifier", nn.Linear(channels, num_classes))
    return _for_relu(model)


def build_multi_task(
    input_shape: Shape,
    num_classes: int,
    tasks: Mapping[str, int] | None = None,
    hidden: int = 96,
    width: int = 48,
    adapter: int = 32,
    isolated: str = "",
) -> nn.Module:
    """Return a trunk of two layers, ``hidden`` and ``width`` units wide, and a head per task.

    The tasks named in ``isolated`` (separated by commas, ``all`` for every one) do not train the
    trunk: each has a layer of ``adapter`` units and a head of its own behind it.
    """
    if not tasks:
        raise ValueError("it needs a data set with several tasks, such as digit-pairs")
    wanted = tuple(part.strip() for part in isolated.split(",") if part.strip())
    apart = tuple(tasks) if wanted == ("all",) else wanted
    if odd := [task for task in apart if task not in tasks]:
        raise ValueError(unknown("task", odd[0], tasks))
    trunk = nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), hidden),
        nn.ReLU(),
        nn.Linear(hidden, width),
        nn.ReLU(),
    )
    heads = {task: nn.Linear(width, n) for task, n in tasks.items() if task not in apart}
    own = {
        task: nn.Sequential(nn.Linear(width, adapter), nn.ReLU(), nn.Linear(adapter, n))
        for task, n in tasks.items()
        if task in apart
    }
    return MultiTask(trunk, heads, own, tasks)


def array_forest(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    trees: int = 50,
    depth: int = 10,
    features: int = 0,
    thresholds: int = 8,
    bins: int = 32,
    low: float = 0.0,
    high: float = 1.0,
    min_leaf: int = 1,
) -> ArrayModel:
    """Return a forest that clients grow together, a level per round."""
    inputs = int(np.prod(input_shape))
    plan = Plan(seed, inputs, depth, features, thresholds, bins, low, high, min_leaf)
    return Forest(plan, num_classes, trees)


def array_local_forests(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    trees: int = 10,
    depth: int = 10,
    features: int = 0,
    thresholds: int = 8,
    bins: int = 32,
    low: float = 0.0,
    high: float = 1.0,
    min_leaf: int = 1,
) -> ArrayModel:
    """Return the union of forests that each client grows alone, ``trees`` each, in one round."""
    inputs = int(np.prod(input_shape))
    plan = Plan(seed, inputs, depth, features, thresholds, bins, low, high, min_leaf)
    return LocalForests(plan, num_classes, trees)


def array_boosting(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    iterations: int = 20,
    rate: float = 0.3,
    l2: float = 1.0,
    depth: int = 3,
    features: int = 0,
    thresholds: int = 8,
    bins: int = 32,
    low: float = 0.0,
    high: float = 1.0,
    min_leaf: int = 1,
) -> ArrayModel:
    """Return gradient-boosted trees, a level of an iteration per round."""
    inputs = int(np.prod(input_shape))
    plan = Plan(seed, inputs, depth, features, thresholds, bins, low, high, min_leaf)
    return Boosting(plan, num_classes, iterations, rate, l2)


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


def _array_builders() -> dict[str, Callable[..., ArrayModel]]:
    return {
        name.removeprefix("array_").replace("_", "-"): value
        for name, value in globals().items()
        if name.startswith("array_") and value is not array_model and inspect.isfunction(value)
    }


def _check_params(name: str, function: Any, params: Mapping[str, Any], own: int = 2) -> None:
    if not callable(function):
        raise ConfigError(f"model.name: {name!r} is no function; name one that returns a module")
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in params:
        if key not in list(known)[own:]:
            raise ConfigError(f"[model]: {unknown(f'key of {name}', key, list(known)[own:])}")


def _image(input_shape: Shape, least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise ValueError(f"it needs images of at least {least}x{least} pixels; take the model mlp")
    channels, height, width = input_shape
    return channels, height, width


def _for_relu(model: nn.Module) -> nn.Module:
    """Return the model, its convolutions drawn anew so that ReLU keeps the size of signals."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model

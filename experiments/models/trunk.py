"""A frozen network that reads examples for a model that is no network.

Whatever is learned on top of it forgets exactly, provided that the trunk itself was made without
the federation's data: by chance, or by training on others.

References
----------
Quan, Wu, Montana, "Exact Federated Continual Unlearning for Ridge Heads on Frozen Foundation
Models", 2026 (arXiv 2603.12977).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.config.schema import TrunkConfig
from experiments.models import networks as models
from unlearning.arrays import Arrays, mismatch
from unlearning.errors import ConfigError
from unlearning.packing import PackingError, unpack_file

__all__ = ["Trunk"]

_CHUNK = 256  # examples per forward pass, in float64
_REMEMBERED = 8  # results: whoever judges looks at the same sets again and again


class Trunk:
    """What a network's last linear layer is given, as features of fixed length.

    Everything is computed in float64: the features of an example then depend on the others of its
    batch by no more than 1e-15, and retraining on some of them finds the same.

    Parameters
    ----------
    chosen : TrunkConfig
        Which network, and the file of its arrays if it has one.
    input_shape : tuple of int
        Shape of one example: (C, H, W) or (d,).
    num_classes : int
        Of the task; the layer that it shapes is left out.

    Attributes
    ----------
    width : int
        Number of features.

    Raises
    ------
    ConfigError
        If the network cannot be built, has no linear layer, or the file does not fit it.
    """

    def __init__(self, chosen: TrunkConfig, input_shape: tuple[int, ...], num_classes: int) -> None:
        self._input_shape = input_shape
        model = models.build(chosen.name, input_shape, num_classes, chosen.params, chosen.seed)
        linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise ConfigError(
                f"model.trunk.name = {chosen.name!r} has no linear layer to read the features "
                "in front of; choose another network"
            )
        name, self._head = linear[-1]
        self.width = self._head.in_features
        if chosen.file is not None:
            models.load(model, _arrays_in(chosen.file, models.to_arrays(model), f"{name}."))
        self._model = model.double().eval().requires_grad_(False)
        self._known: OrderedDict[bytes, NDArray[np.float64]] = OrderedDict()
        try:
            seen = self._read(np.zeros((2, *input_shape)))
        except Exception as error:  # whatever a user's own network raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"model.trunk.name = {chosen.name!r} fails on examples of shape {input_shape} "
                f"({lines[0]}); it is given float64 inputs of shape (n, "
                f"{', '.join(map(str, input_shape))})"
            ) from error
        if seen.shape != (2, self.width):
            raise ConfigError(
                f"model.trunk.name = {chosen.name!r} gives its last linear layer features of shape "
                f"{seen.shape} for 2 examples, not {(2, self.width)}; it must be called once, "
                "with one row per example"
            )

    def __call__(self, x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the features of examples, shape (n, width), float64; n may be 0.

        Each row is scaled to mean square 1, whatever the others are; one of zeros stays.
        """
        x = np.ascontiguousarray(x)
        key = hashlib.sha256(x.data).digest() + len(x).to_bytes(8, "big")
        if key not in self._known:
            self._known[key] = self._read(x)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key].copy()

    def _read(self, x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        seen: list[torch.Tensor] = []

        def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen.append(inputs[0].flatten(1))

        handle = self._head.register_forward_pre_hook(note)
        try:
            with torch.inference_mode():
                for start in range(0, len(x), _CHUNK):
                    part = x[start : start + _CHUNK].reshape(-1, *self._input_shape)
                    self._model(torch.from_numpy(part.astype(np.float64)))
        finally:
            handle.remove()
        if not seen:
            return np.empty((0, self.width))
        rows = torch.cat(seen).numpy()
        size = np.sqrt(np.mean(rows**2, axis=1, keepdims=True))
        return np.asarray(np.divide(rows, size, out=np.zeros_like(rows), where=size > 0))


def _arrays_in(path: str, own: Mapping[str, Any], head: str) -> Arrays:
    """Return the arrays of a file, those of the last layer as they are: they are not used."""
    place = Path(path).expanduser()
    try:
        found = unpack_file(place)
    except (OSError, PackingError) as error:
        raise ConfigError(
            f"model.trunk.file = {path!r} cannot be read ({error}); name the safetensors file "
            "of a trained network, such as the model.safetensors of a run"
        ) from error
    kept = {name: array for name, array in own.items() if not name.startswith(head)}
    given = {name: array for name, array in found.items() if not name.startswith(head)}
    if kept.keys() == given.keys():
        given = {name: given[name] for name in kept}
    if difference := mismatch(kept, given):
        raise ConfigError(
            f"model.trunk.file = {path!r} is no such network: {difference}; give [model.trunk] "
            "the name and the keys of the [model] it was trained with"
        )
    return {name: given.get(name, array) for name, array in own.items()}

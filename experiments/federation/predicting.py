"""What a model of a task says about examples: probabilities, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clients.multitask import MultiTask
from clients.sequences import is_sequential
from experiments.models import networks
from unlearning.arrays import Array, digest
from unlearning.models.array_model import ArrayModel

__all__ = ["Looked", "Predictor"]

Floats = NDArray[np.float32]

_CHUNK = 1024  # examples per forward pass
_IMAGES = 256  # or about so many, where convolutions' layers then stay in the processor's cache
_MODELS = 2  # models of which it is remembered what they said: before a request, and after
# Layers that take pixels in any order in memory; torchvision's blocks are those of our ResNet.
_OURS = ("torch.nn.", "experiments.models.", "torchvision.models.resnet")


class Looked(dict[str, Array]):
    """A model that stays as it is while it is looked at: its digest is worked out once."""

    @cached_property
    def digest(self) -> str:
        """The model's digest."""
        return digest(self)


class Predictor:
    """Evaluates the models of one task.

    Parameters
    ----------
    model : nn.Module or ArrayModel
        A network whose values are replaced at every call, or what is learned instead of one.
    columns : int
        How many probabilities belong to an example: classes, those of all tasks together.
    seen : callable
        ``seen(x)`` is what an array model is given of examples.
    """

    def __init__(
        self,
        model: nn.Module | ArrayModel,
        columns: int,
        seen: Callable[[Floats], NDArray[np.floating[Any]]],
    ) -> None:
        self._model, self._columns, self._seen = model, columns, seen
        self._chunk, self._order = _CHUNK, torch.contiguous_format
        self._said: dict[str, dict[str, Floats]] = {}  # by models, the last one used at the end
        self._loaded = ""  # the model that the network holds, by its digest
        self._looked: Callable[[], Looked | None] = _nothing  # the same, while somebody looks at it
        self._remembers = isinstance(model, nn.Module) and _convolves(model)
        if isinstance(model, nn.Module) and self._remembers:
            self._chunk = _IMAGES
            if all(type(one).__module__.startswith(_OURS) for one in model.modules()):
                self._order = torch.channels_last
                model.to(memory_format=torch.channels_last)

    def probabilities(self, arrays: Mapping[str, Array], x: Floats, device: str) -> Floats:
        """Return softmax probabilities, shape (n, columns); n may be 0.

        Those of several tasks stand side by side, each adding up to 1. What a network with
        convolutions says is dear, and asked for again when a round's model is judged: it is
        remembered of the last few models, and then cannot be written to.
        """
        return self.of_each(arrays, [x], device)[0]

    def of_each(
        self, arrays: Mapping[str, Array], sets: Sequence[Floats], device: str
    ) -> list[Floats]:
        """Return the :meth:`probabilities` of several sets.

        A network with convolutions looks at them as if they were one: the chunks are then fewer and
        fuller, and each one turns all of its weights over.
        """
        if not self._remembers:
            return [self._read(arrays, [x], device, _softmax)[0] for x in sets]
        model = arrays.digest if isinstance(arrays, Looked) else digest(arrays)
        said = self._said.pop(model, {})
        self._said[model] = said
        while len(self._said) > _MODELS:
            del self._said[next(iter(self._said))]
        keys = [f"{device}|{digest({'x': x})}" for x in sets]
        new = {key: x for key, x in zip(keys, sets, strict=True) if key not in said}
        if new:
            found = self._read(arrays, list(new.values()), device, _softmax, model=model)
            for key, rows in zip(new, found, strict=True):
                rows.flags.writeable = False
                said[key] = rows
        return [said[key] for key in keys]

    def at_every_position(self, arrays: Mapping[str, Array], x: Floats, device: str) -> Floats:
        """Return softmax probabilities at every position of sequences, (n, length, columns)."""
        none = np.empty((0, x.shape[1], self._columns), np.float32)
        return self._read(arrays, [x], device, lambda m, chunk: m(chunk).softmax(1).mT, none)[0]

    def logits(self, arrays: Mapping[str, Array], x: Floats, device: str) -> Floats:
        """Return a network's logits, of another model its probabilities; shape (n, columns)."""
        return self._read(arrays, [x], device, _logits)[0]

    def _read(
        self,
        arrays: Mapping[str, Array],
        sets: Sequence[Floats],
        device: str,
        look: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        none: Floats | None = None,
        model: str = "",
    ) -> list[Floats]:
        none = np.empty((0, self._columns), np.float32) if none is None else none
        if not isinstance(self._model, nn.Module):
            flat = [self._seen(x).reshape(len(x), -1) if len(x) else None for x in sets]
            return [
                none if x is None else self._model.predict(arrays, x).astype(np.float32)
                for x in flat
            ]
        place = networks.device(device)
        network = self._model
        if self._looked() is not arrays and (not model or model != self._loaded):
            self._loaded, self._looked = "", _nothing
            networks.load(network, arrays)
            self._loaded = model
            if isinstance(arrays, Looked):
                self._looked = ref(arrays)
        network.to(place).eval()
        parts = [none]
        with torch.inference_mode():
            for rows in _chunks(sets, self._size(sum(map(len, sets)))):
                chunk = torch.from_numpy(rows).to(place)
                if chunk.dim() == 4:  # images
                    chunk = chunk.contiguous(memory_format=self._order)
                parts.append(look(network, chunk).cpu().numpy())
        network.cpu()
        return np.split(np.concatenate(parts), np.cumsum([len(x) for x in sets])[:-1])

    def _size(self, count: int) -> int:
        """Return how many examples a chunk has: of few images, no rest stays for a chunk alone."""
        if not self._remembers:
            return self._chunk
        return -(-count // max(1, round(count / self._chunk))) or 1


def _chunks(sets: Sequence[Floats], size: int) -> Iterator[Floats]:
    """Yield the rows of all sets in their order, so many at a time, whichever set they are of."""
    ends = np.cumsum([0, *(len(x) for x in sets)]).tolist()
    for start in range(0, ends[-1], size):
        found = [
            x[max(0, start - begin) : start + size - begin]
            for x, begin, end in zip(sets, ends, ends[1:], strict=False)
            if start < end and begin < start + size
        ]
        yield np.ascontiguousarray(found[0]) if len(found) == 1 else np.concatenate(found)


def _nothing() -> None:
    """Return None, as a reference to what is gone."""


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(layer, nn.Conv2d) for layer in model.modules())


def _logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return a row per example; of sequences that of what follows the last token."""
    logits: torch.Tensor = model(x)
    return logits[..., -1] if is_sequential(model) else logits


def _softmax(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits = _logits(model, x)
    if not isinstance(model, MultiTask):
        return logits.softmax(1)
    return torch.cat([part.softmax(1) for part in model.split(logits).values()], dim=1)

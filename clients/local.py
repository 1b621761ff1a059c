"""What a client holds, what of it a local step sees, and what the step answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unlearning.arrays import Arrays

__all__ = ["Chosen", "Local", "Outcome", "Shard"]


@dataclass(frozen=True)
class Shard:
    """Some examples of one client.

    Parameters
    ----------
    features : torch.Tensor
        ``(n, ...)``, floating point.
    labels : torch.Tensor
        ``(n,)``, int64; of sequences ``(n, length)``, of several tasks ``(n, tasks)``.
    """

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]  # not its len(), of which PyTorch makes a call of Python

    @property
    def origin(self) -> tuple[Shard, NDArray[np.int64] | None]:
        """The shard that these examples were chosen from, and their positions there; None: all."""
        return self, None

    def take(self, index: torch.Tensor) -> Shard:
        """Return the examples at ``index`` (positions or a mask)."""
        return Shard(self.features[index], self.labels[index])

    def drawn(self, count: int, generator: np.random.Generator) -> Shard:
        """Return so many examples, drawn at random, in their order; all where there are no more."""
        if count >= len(self):
            return self
        chosen = np.sort(generator.choice(len(self), count, replace=False))
        return self.take(torch.from_numpy(chosen).to(self.labels.device))

    def table(self) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        """Return features, flattened to ``(n, d)``, and labels ``(n,)`` as NumPy arrays."""
        features = self.features.detach().cpu().numpy()
        width = int(np.prod(features.shape[1:]))
        return features.reshape(len(self), width), self.labels.cpu().numpy()


class Chosen(Shard):
    """Some examples of another shard, copied when a step first looks at them.

    Parameters
    ----------
    whole : Shard
        The examples.
    positions : array of int64
        Which of them.
    """

    _whole: Shard
    _positions: NDArray[np.int64]

    def __init__(self, whole: Shard, positions: NDArray[np.int64]) -> None:
        self.__dict__.update(_whole=whole, _positions=positions)

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def origin(self) -> tuple[Shard, NDArray[np.int64] | None]:
        """The shard that these examples were chosen from, and their positions there."""
        return self._whole, self._positions

    @cached_property
    def _index(self) -> torch.Tensor:
        return torch.from_numpy(self._positions).to(self._whole.labels.device)

    @cached_property
    def features(self) -> torch.Tensor:
        """The values of the chosen examples."""
        return self._whole.features[self._index]

    @cached_property
    def labels(self) -> torch.Tensor:
        """Their labels."""
        return self._whole.labels[self._index]


@dataclass(frozen=True)
class Local:
    """All that a step may look at.

    Parameters
    ----------
    retain : Shard
        Training data without anything forgotten.
    forget : Shard
        The forget set of the current request at this client; empty outside a request.
    held_out : Shard
        Never trained on.
    positions, forget_positions : array of int64
        Where the examples of ``retain`` and ``forget`` stand in the training set, ascending.
    arrays : Arrays
        The global arrays as they came; for steps that need no network (``NEEDS_MODEL = False``),
        empty for all others: they are given a network in that state.
    extras : Arrays
        Named arrays the server sent beside the model.
    remembered : Arrays or None
        This client's last local model, if it kept one.
    facts : mapping
        What was noted beside it, for example the round it comes from.
    kept : mapping of str to Arrays
        What this client made for itself while it trained, by the name of the step that made it;
        only what was asked for and is there.
    fresh_model : callable
        ``fresh_model(seed)`` returns a newly initialised model of the same architecture.
    recall : callable
        ``recall(name)`` returns what a step of this client left under ``Outcome.kept``, with the
        facts beside it, or None.
    """

    retain: Shard
    forget: Shard
    held_out: Shard
    fresh_model: Callable[[int], nn.Module]
    positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    forget_positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    arrays: Arrays = field(default_factory=dict)
    extras: Arrays = field(default_factory=dict)
    remembered: Arrays | None = None
    facts: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, Arrays] = field(default_factory=dict)
    recall: Callable[[str], tuple[Arrays, Mapping[str, int]] | None] = lambda name: None


@dataclass(frozen=True)
class Outcome:
    """What a step answers.

    Parameters
    ----------
    arrays : Arrays or None
        Named arrays of the step's own; None: the model as the step left it.
    num_examples : int
        Weight of the answer.
    examples_processed : int
        Forward-backward passes over single examples.
    metrics : mapping
        Further numbers.
    kept : mapping of str to (Arrays, mapping)
        What the client keeps for itself, by name, with a few integers beside it.
    """

    num_examples: int
    examples_processed: int
    arrays: Arrays | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    kept: Mapping[str, tuple[Arrays, Mapping[str, int]]] = field(default_factory=dict)

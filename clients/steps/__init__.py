"""Local steps: what a client can be asked to do, one module each.

A step is a function named like its module, ``step(model, local, settings, generator) -> Outcome``.
It sees the data that the participant lets it see and nothing else, and it changes no file. A new
step is a new module here; its name is what an ``Instruction`` carries. A module that says
``NEEDS_MODEL = False`` is given None as its model and finds the global arrays in ``local.arrays``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unlearning.arrays import Arrays
from unlearning.errors import FederationError, unknown
from unlearning.protocol import Settings

__all__ = ["Local", "Outcome", "Shard", "Step", "find", "names", "needs_model"]


@dataclass(frozen=True)
class Shard:
    """Some examples of one client.

    Parameters
    ----------
    features : torch.Tensor
        ``(n, ...)``, floating point.
    labels : torch.Tensor
        ``(n,)``, int64.
    """

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: torch.Tensor) -> Shard:
        """Return the examples at ``index`` (positions or a mask)."""
        return Shard(self.features[index], self.labels[index])

    def table(self) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        """Return features, flattened to ``(n, d)``, and labels ``(n,)`` as NumPy arrays."""
        features = self.features.detach().cpu().numpy()
        width = int(np.prod(features.shape[1:]))
        return features.reshape(len(self), width), self.labels.cpu().numpy()


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


# The first argument is the network, or None for a step that needs none.
Step = Callable[[Any, Local, Settings, np.random.Generator], Outcome]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all steps, found by walking this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def find(name: str) -> Step:
    """Return the step called ``name``.

    Raises
    ------
    FederationError
        If there is none.
    """
    if name not in names():
        raise FederationError(unknown("step", name, names()))
    step: Step = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return step


def needs_model(name: str) -> bool:
    """Return whether the step called ``name`` works on a network.

    Raises
    ------
    FederationError
        If there is no such step.
    """
    return bool(getattr(importlib.import_module(find(name).__module__), "NEEDS_MODEL", True))

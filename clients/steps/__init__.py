"""Local steps: what a client can be asked to do, one module each.

A step is a function named like its module, ``step(model, local, settings, generator) -> Outcome``.
It sees the data that the participant lets it see and nothing else, and it changes no file. A new
step is a new module here; its name is what an ``Instruction`` carries.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import nn

from unlearning.arrays import Arrays
from unlearning.errors import FederationError, unknown
from unlearning.protocol import Settings

__all__ = ["Local", "Outcome", "Shard", "Step", "find", "names"]


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
    """

    retain: Shard
    forget: Shard
    held_out: Shard
    fresh_model: Callable[[int], nn.Module]
    extras: Arrays = field(default_factory=dict)
    remembered: Arrays | None = None
    facts: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, Arrays] = field(default_factory=dict)


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
    """

    num_examples: int
    examples_processed: int
    arrays: Arrays | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


Step = Callable[[nn.Module, Local, Settings, np.random.Generator], Outcome]


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

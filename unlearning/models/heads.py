"""A model for several tasks, as named arrays: a shared trunk and a head per task.

Which arrays belong to which task, and how much each client counts there, is told in
:mod:`unlearning.weighing`. What an isolated task left is in its own arrays alone.

References
----------
Liu, Liu, Stone, "Continual Learning and Private Unlearning", CoLLAs 2022 (arXiv 2203.12817), for
tasks that live in side networks of their own; the federated form is this project's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Reply
from unlearning.weighing import EXAMPLES, HEADS, ISOLATED, TRUNK, Mean
from unlearning.weighing import part_of as task_of

__all__ = [
    "EXAMPLES",
    "HEADS",
    "ISOLATED",
    "TRUNK",
    "average",
    "is_isolated",
    "reset",
    "task_of",
    "tasks_of",
    "trunk",
    "without_return",
]


def tasks_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tasks that a model has a head for, in order of their arrays."""
    return tuple(dict.fromkeys(task for name in names if (task := task_of(name)) != TRUNK))


def is_isolated(names: Iterable[str], task: str) -> bool:
    """Return whether a task has arrays of its own and no part in the trunk."""
    own = [name for name in names if task_of(name) == task]
    return bool(own) and all(name.startswith(f"{ISOLATED}.") for name in own)


def trunk(arrays: Mapping[str, Array]) -> Arrays:
    """Return the trained parameters that all tasks share."""
    return {n: a for n, a in named.parameters(arrays).items() if task_of(n) == TRUNK}


def reset(
    arrays: Mapping[str, Array], initial: Mapping[str, Array], tasks: Collection[str]
) -> Arrays:
    """Return the model with the heads of ``tasks`` as they were before anyone had trained them."""
    return {name: initial[name] if task_of(name) in tasks else a for name, a in arrays.items()}


def average(arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
    """Return the next model: every part averaged over those who trained it.

    Parameters
    ----------
    arrays : Arrays
        The model before the round.
    replies : iterable of Reply
        Models; the metric ``examples-of/<task>`` (``examples-of/`` for the trunk) is the number of
        examples that part was trained on, the weight of its update. Without it the weight is
        ``num_examples``, and never more.

    Returns
    -------
    Arrays
        A part that nobody trained is unchanged.

    Raises
    ------
    FederationError
        If a reply is no model.
    """
    total = Mean()
    for reply in replies:
        if reply.update is None:
            raise FederationError(f"client {reply.client} sent no model; this round needs one")
        total.add(reply.examples, reply.update)
    if not any(total.mass(part) for part in (TRUNK, *tasks_of(arrays))):
        return dict(arrays)
    moved = named.apply_update(arrays, total.result())
    return {name: moved[name] if total.mass(task_of(name)) else a for name, a in arrays.items()}


def without_return(update: Mapping[str, Array], away: Mapping[str, Array]) -> Arrays:
    """Return ``update`` without the part that leads back to the former model, if any does.

    Parameters
    ----------
    update : mapping
        An update of a recovery round.
    away : mapping
        Some arrays of the current model minus the former ones (a).

    Returns
    -------
    Arrays
        ``D - (D.a / |a|^2) a`` over the arrays of ``away`` where ``D.a < 0``; else ``update``.
    """
    inner = named.dot({name: update[name] for name in away}, away)
    square = named.dot(away, away)
    if inner >= 0 or square == 0:
        return dict(update)
    return {
        name: (a - inner / square * away[name].astype(np.float64)).astype(a.dtype)
        if name in away
        else a
        for name, a in update.items()
    }

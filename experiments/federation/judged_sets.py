"""The examples by which forgetting is judged: what must go, what stays, and fresh ones like them.

A membership attack tells members from non-members. On a model that never saw the members it must
find nothing, so the non-members have to be drawn as the members were: from the same clients, of
the same classes, and, where single samples are named, with the marker as often as these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.federation.task import Examples, Task
from unlearning.request import Forgotten, Omission, Request

__all__ = ["JudgedSets", "judged_sets"]

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class JudgedSets(NamedTuple):
    """Sets of examples; any but ``test`` may be empty.

    Parameters
    ----------
    test : Examples
        The test split.
    retain, forget : Examples
        The training data that stay and those that any of the requests names, each once.
    held_out : Examples
        Never trained on, drawn as the forget set was, each once.
    """

    test: Examples
    retain: Examples
    forget: Examples
    held_out: Examples


def judged_sets(task: Task, requests: Iterable[Request]) -> JudgedSets:
    """Return the sets for the union of several requests.

    Parameters
    ----------
    task : Task
        With one label per example.
    requests : iterable of Request
        An example that two of them name counts once.
    """
    gone = Forgotten(tuple(requests))
    forget, held_out = [], []
    for client in task.clients:
        left = task.named(client, gone)
        if left.any():
            data = task.client(client)
            fresh = _like(task, client, gone.omission(client), left)
            forget.append(Examples(data.train_x[left], data.train_y[left]))
            held_out.append(Examples(data.held_x[fresh], data.held_y[fresh]))
    return JudgedSets(
        task.test_set(), task.retain_set(gone), task.joined(forget), task.joined(held_out)
    )


def _like(task: Task, client: int, gone: Omission, left: Booleans) -> Booleans:
    """Return which held-out examples of a client are drawn as those that are forgotten were."""
    data = task.client(client)
    if gone.everything or gone.features:
        return np.ones(len(data.held_y), dtype=bool)
    classes = sorted(gone.classes)
    found: Booleans = np.isin(data.held_y, classes)
    # Labels and marker of what is named one by one, beyond whole classes.
    # A window's last character says nothing of what kind of text it is.
    kinds = [
        2 * (0 * labels if task.is_sequential else labels) + np.isin(np.arange(len(labels)), marked)
        for labels, marked in (
            (data.train_y, task.marked(client)),
            (data.held_y, task.marked_held_out(client)),
        )
    ]
    named = kinds[0][left & ~np.isin(data.train_y, classes)]
    return found | _drawn(named, np.where(found, -1, kinds[1]))


def _drawn(members: Integers, candidates: Integers) -> Booleans:
    """Return candidates of the members' kinds, in the members' shares as far as there are enough.

    Parameters
    ----------
    members, candidates : array of shape (n,), (m,)
        Kinds, 0 or more; a candidate of kind -1 is never taken.

    Returns
    -------
    array of bool, shape (m,)
        Spread evenly over the candidates of each kind.
    """
    found = np.zeros(len(candidates), dtype=bool)
    kinds, counts = np.unique(members, return_counts=True)
    there = [np.flatnonzero(candidates == kind) for kind in kinds]
    total = sum(map(len, there))
    for at, count in zip(there, counts, strict=True):
        wanted = min(len(at), int(np.ceil(total * count / len(members))))
        found[at[np.linspace(0, len(at) - 1, wanted).round().astype(np.int64)]] = True
    return found

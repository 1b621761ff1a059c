"""The examples by which forgetting is judged: what must go, what stays, and fresh ones like them.

A membership attack tells members from non-members. On a model that never saw the members it must
find nothing, so the non-members have to be drawn as the members were: from the same clients, of
the same classes, and, where single samples are named, with the marker as often as these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.federation.task import Examples, Task
from unlearning.request import Forgotten, Omission, Request

__all__ = ["WHOLE", "JudgedSets", "Pool", "drawn", "judged_sets", "pool"]

WHOLE = -2  # the kind of what goes with all of its sort: there is no choice
_NONE, _STAYS = -1, -3
_ASTRAY = 0.1  # what that adds to an AUC is half of it at most: the margin declared for AUCs

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
    forget, pools = [], []
    for client in task.clients:
        left = task.named(client, gone)
        if left.any():
            data = task.client(client)
            forget.append(Examples(data.train_x[left], data.train_y[left]))
            pools.append(_pool(task, client, gone.omission(client), left))
    held_out = []
    for one, chosen in zip(pools, drawn(pools), strict=True):
        data = task.client(one.owner)
        held_out.append(Examples(data.held_x[chosen], data.held_y[chosen]))
    return JudgedSets(
        task.test_set(), task.retain_set(gone), task.joined(forget), task.joined(held_out)
    )


class Pool(NamedTuple):
    """What an owner has to draw non-members from: kinds, and how many members are of each.

    Parameters
    ----------
    owner : int
        Its id: a client, or a client's task.
    kinds : array of shape (m,)
        The kind of every held-out example: ``WHOLE``, -1 (like no member), or 0 and more.
    members : dict of int to int
        Kind to number of members.
    """

    owner: int
    kinds: Integers
    members: dict[int, int]


def _pool(task: Task, client: int, gone: Omission, left: Booleans) -> Pool:
    """Return what a client's non-members may be drawn from.

    Where a client or a class goes, all of its rows do, and the held-out rows are the
    same share of them everywhere: one kind. What is named one by one is of a kind with the rows of
    the same label that carry the marker likewise.
    """
    data = task.client(client)
    if gone.everything:
        whole = np.full(len(data.held_y), WHOLE)
        return Pool(client, whole, {WHOLE: int(left.sum())})
    if gone.features:  # the rows stay, without some of their values: members before and after
        return Pool(client, np.full(len(data.held_y), _NONE), {_STAYS: int(left.sum())})
    # A window's last character says nothing of what kind of text it is.
    trained, held = (
        2 * (0 * labels if task.is_sequential else labels) + np.isin(np.arange(len(labels)), marked)
        for labels, marked in (
            (data.train_y, task.marked(client)),
            (data.held_y, task.marked_held_out(client)),
        )
    )
    classes = sorted(gone.classes)
    trained = np.where(np.isin(data.train_y, classes), WHOLE, trained)
    held = np.where(np.isin(data.held_y, classes), WHOLE, held)
    return pool(client, trained[left], held)


def pool(owner: int, members: Integers, held: Integers) -> Pool:
    """Return what non-members may be drawn from, by the kinds of members and of candidates."""
    kinds, counts = np.unique(members, return_counts=True)
    like = np.where(np.isin(held, kinds), held, _NONE)
    return Pool(owner, like, dict(zip(kinds.tolist(), counts.tolist(), strict=True)))


def drawn(pools: Sequence[Pool]) -> list[Booleans]:
    """Return which of every pool's examples are taken: in the members' shares, spread evenly.

    Kinds are told apart client by client. As many are taken as leave no more than ``_ASTRAY`` of
    them elsewhere than among the members, beyond what no draw could mend. None where members stay
    members: of rows that lose some of their values there is no model that never saw them.
    """
    if not pools or any(_STAYS in one.members for one in pools):
        return [np.zeros(len(one.kinds), dtype=bool) for one in pools]
    cells: dict[tuple[int, int], list[int]] = {}  # (owner or -1, kind) -> members, candidates
    for one in pools:
        for kind, count in one.members.items():
            cell = cells.setdefault(_cell(one.owner, kind), [0, 0])
            cell[0] += count
            cell[1] += int((one.kinds == kind).sum())
    counted = np.array(list(cells.values()), np.int64).reshape(-1, 2)
    wanted = dict(zip(cells, _wanted(counted[:, 0], counted[:, 1]), strict=True))
    found = []
    for one in pools:
        chosen = np.zeros(len(one.kinds), dtype=bool)
        for kind in one.members:
            at, key = np.flatnonzero(one.kinds == kind), _cell(one.owner, kind)
            # What is whole at several clients is shared out among them as it lies there.
            count = int(np.ceil(len(at) * wanted[key] / max(1, cells[key][1])))
            chosen[at[np.linspace(0, len(at) - 1, count).round().astype(np.int64)]] = True
        found.append(chosen)
    return found


def _cell(owner: int, kind: int) -> tuple[int, int]:
    return (-1 if kind == WHOLE else owner, kind)


def _wanted(members: Integers, there: Integers) -> Integers:
    """Return how many candidates of every cell are taken, shape (n,)."""
    able = (members > 0) & (there > 0)
    if not members.sum() or not able.any():
        return np.zeros_like(there)
    ratios = np.unique(there[able] / members[able])  # at each of them one more cell is used up

    def taken(ratio: float) -> Integers:
        return np.where(able, np.minimum(there, np.ceil(ratio * members)), 0).astype(np.int64)

    def astray(counts: Integers) -> float:
        return float(np.abs(counts / counts.sum() - members / members.sum()).sum() / 2)

    off = [astray(taken(ratio)) for ratio in ratios]
    fit = [ratio for ratio, much in zip(ratios, off, strict=True) if much <= min(off) + _ASTRAY]
    return taken(fit[-1])

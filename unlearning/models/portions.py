"""What one client's message carries of a model made of parts: those that are its own alone.

Down come the arrays that every part rests on, and those of the parts that the client is about to
train; up go the parts that it trained. What did not travel the server fills in from the model it
sent, so that histories, replays and means see whole models. Which group a client belongs to follows
from its public id. Which tasks it has labels for it says when it joins, as with every answer to
training; what is forgotten since is taken off, and comes back where a request is released.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.models.sequences import groups_in, module_name, place_of, places_in
from unlearning.models.shards import due_node, node_name, parts_above, shards_in
from unlearning.weighing import NODES, SEQUENCES, SHARDS, TRUNK, Examples, part_of

__all__ = ["Whose", "completed", "needed", "parts_of", "travelling"]

Whose = int | frozenset[str]  # a client's parts: those of its group, or the tasks it has labels for


def needed(arrays: Mapping[str, Array], whose: Whose) -> tuple[str, ...]:
    """Return the names of the arrays that a client needs in order to train, in order.

    Of a model for several tasks the trunk and the heads of its own. Of shards the group's. Of a
    tree the node that is due, and its children where it begins with their mean; of sequences the
    base, and the modules up to the one that is due in every order that the group has a part in by
    then. Of trees and sequences all counters travel too, a number each: they say what is due.

    >>> import numpy as np
    >>> needed({"shards.0.w": np.zeros(2), "shards.1.w": np.zeros(2)}, 1)
    ('shards.1.w',)
    >>> needed({"trunk.w": 1, "heads.a.w": 2, "heads.b.w": 3}, frozenset({"b"}))
    ('trunk.w', 'heads.b.w')
    """
    if isinstance(whose, frozenset):
        return tuple(name for name in arrays if part_of(name) in whose | {TRUNK})
    if not groups_in(list(arrays)):
        return tuple(arrays)
    parts = _due(arrays, whose) | {TRUNK}
    counts = not any(name.startswith(f"{SHARDS}.") for name in arrays)
    return tuple(
        name
        for name, array in arrays.items()
        if part_of(name) in parts or (counts and array.dtype.kind != "f")
    )


def _due(arrays: Mapping[str, Array], group: int) -> set[str]:
    """Return the parts whose weights a client of a group needs for its next training."""
    if any(name.startswith(f"{NODES}.") for name in arrays):
        due = due_node(arrays, group)
        if due is None:  # all is trained: the root comes back as it is
            return {parts_above(list(arrays), group)[-1]}
        level, place = due
        begun = level == 0 or int(arrays[f"{NODES}.{node_name(level, place)}.trained"])
        children = set() if begun else {node_name(level - 1, 2 * place + side) for side in (0, 1)}
        return {node_name(level, place)} | children
    if shards_in(arrays):
        return {str(group)}
    places = places_in(arrays)
    groups = groups_in(list(arrays))
    found: set[str] = set()
    for order in {order for order, _ in places}:
        # How many rounds a module is trained for only clients know: the first that was never
        # trained is the one that is due, or the next.
        first = next((i for i in range(groups) if not _trained(arrays, order, i)), groups - 1)
        if place_of(group, order, groups) <= first:
            found |= {module_name(order, place) for place in range(first + 1)}
    return found


def _trained(arrays: Mapping[str, Array], order: int, place: int) -> int:
    return int(arrays[f"{SEQUENCES}.{module_name(order, place)}.trained"])


def parts_of(names: Collection[str], whose: Whose) -> frozenset[str]:
    """Return the parts that a client may ever train.

    What is a group's nobody else's update touches.

    >>> sorted(parts_of(["sequences.0-0.w", "sequences.0-1.w", "sequences.1-0.w", "base.w"], 1))
    ['', '0-1', '1-0']
    """
    if isinstance(whose, frozenset):
        return whose | {TRUNK}
    if shards_in(names):
        return frozenset(parts_above(names, whose))
    groups = groups_in(names)
    modules = {(j, i) for j, i in places_in(names) if place_of(whose, j, groups) <= i}
    return frozenset({TRUNK} | {module_name(j, i) for j, i in modules})


def travelling(arrays: Arrays, sent: Collection[str], examples: Examples) -> Arrays:
    """Return what a client answers with: all but the parts that rest on none of its examples.

    Raises
    ------
    FederationError
        If it was asked to train a part that did not come (``sent``): what stands there is nothing.

    >>> model = {"heads.a.w": 1, "heads.b.w": 2, "trunk.w": 3}
    >>> travelling(model, model, Examples(9, {"b": 0}))
    {'heads.a.w': 1, 'trunk.w': 3}
    """
    found = {name: array for name, array in arrays.items() if not _is_idle(name, examples)}
    if odd := next((n for n in found if part_of(n) != TRUNK and n not in sent), None):
        raise FederationError(f"array {odd!r} is to be trained, but was not sent")
    return found


def completed(sent: Arrays, arrays: Arrays, examples: Examples) -> Arrays:
    """Return an answer with the parts that it left out, as they were sent.

    A part that it rests on, or says nothing of, is not filled in.
    """
    idle = {n: a for n, a in sent.items() if n not in arrays and _is_idle(n, examples)}
    return arrays | idle if idle else arrays


def _is_idle(name: str, examples: Examples) -> bool:
    return examples.parts.get(part_of(name)) == 0

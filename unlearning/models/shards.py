"""A model made of shards: clients are cut into groups, each of which learns a model of its own.

Arrays of shard s are called ``shards.<s>.<...>``, and each is a part in the sense of
:mod:`unlearning.weighing`. Who belongs where follows from public client ids alone, and who is drawn
in a round from those of its own shard, so that no shard's model depends on the data of another.

References
----------
Bourtoule et al., "Machine Unlearning", S&P 2021 (arXiv 1912.03817).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from unlearning.arrays import Array
from unlearning.weighing import NODES, SHARDS, part_of

__all__ = [
    "drawn",
    "due_node",
    "members",
    "node_name",
    "part_trained",
    "parts_above",
    "shard_of",
    "shards_in",
]

_ASSIGN, _DRAW = 6, 7  # last components of seed addresses


def shards_in(names: Iterable[str]) -> int:
    """Return how many shards a model has, by the names of its arrays; 0: it is in one piece.

    Of a tree it is the number of its leaves.

    >>> shards_in(["shards.0.net.weight", "shards.1.net.weight"]), shards_in(["layer.weight"])
    (2, 0)
    >>> shards_in(["nodes.0-0.net.weight", "nodes.0-1.net.weight", "nodes.1-0.net.weight"])
    2
    """
    kinds = (f"{SHARDS}.", f"{NODES}.0-")
    return len({part_of(name) for name in names if name.startswith(kinds)})


def node_name(level: int, place: int) -> str:
    """Return what a node of a tree is called, its part of the model; leaves are level 0."""
    return f"{level}-{place}"


def parts_above(names: Collection[str], shard: int) -> tuple[str, ...]:
    """Return every part that a shard's clients have a say in: itself, and in a tree all above.

    >>> parts_above(["nodes.0-0.w", "nodes.0-1.w", "nodes.1-0.w"], 1)
    ('0-1', '1-0')
    """
    levels = {part_of(n).split("-")[0] for n in names if n.startswith(f"{NODES}.")}
    if not levels:
        return (str(shard),)
    return tuple(node_name(level, shard >> level) for level in range(len(levels)))


def part_trained(arrays: Mapping[str, Array], shard: int, server_round: int) -> str | None:
    """Return the part of a model in shards that a shard's clients train in a round; None: none.

    Of a flat one the shard itself. A tree goes level by level, each as long as its nodes say.

    >>> tree = {"nodes.0-0.rounds": 2, "nodes.0-1.rounds": 2, "nodes.1-0.rounds": 3}
    >>> [part_trained(tree, 1, t) for t in (1, 2, 3, 5, 6)]
    ['0-1', '0-1', '1-0', '1-0', None]
    """
    if not any(name.startswith(f"{NODES}.") for name in arrays):
        return str(shard)
    level, left = 0, server_round
    while (rounds := arrays.get(f"{NODES}.{node_name(level, shard >> level)}.rounds")) is not None:
        left -= int(rounds)
        if left <= 0:
            return node_name(level, shard >> level)
        level += 1
    return None


def due_node(arrays: Mapping[str, Array], leaf: int) -> tuple[int, int] | None:
    """Return level and place of the node of a tree that a leaf's clients train next; None: none.

    >>> tree = {"nodes.0-1.rounds": 2, "nodes.0-1.trained": 2, "nodes.1-0.rounds": 3}
    >>> due_node(tree | {"nodes.1-0.trained": 1}, 1), due_node(tree | {"nodes.1-0.trained": 3}, 1)
    ((1, 0), None)
    """
    level = 0
    while (name := f"{NODES}.{node_name(level, leaf >> level)}") + ".rounds" in arrays:
        if int(arrays[f"{name}.trained"]) < int(arrays[f"{name}.rounds"]):
            return level, leaf >> level
        level += 1
    return None


def shard_of(client: int, shards: int) -> int:
    """Return the shard of a client, a function of its id alone.

    Of every ``shards`` ids in a row one goes to each shard, in an order of their own: none is empty
    while all are there, and nobody's place depends on who else is.
    """
    block, place = divmod(int(client), shards)
    return int(np.random.default_rng([shards, block, _ASSIGN]).permutation(shards)[place])


def members(clients: Iterable[int], shards: int) -> dict[int, tuple[int, ...]]:
    """Return shard -> its members, in order; shards without one are left out."""
    found: dict[int, list[int]] = {}
    for client in sorted(clients):
        found.setdefault(shard_of(client, shards), []).append(client)
    return {shard: tuple(found[shard]) for shard in sorted(found)}


def drawn(
    seed: int,
    server_round: int,
    registered: Iterable[int],
    gone: Collection[int],
    fraction: float,
    shards: int,
) -> tuple[int, ...]:
    """Return who trains in a round: in every shard, as many as were fixed when all were there.

    Every client has a key of (seed, round, id); the smallest keys of those that are left are drawn.
    So the draw without a client is a fresh uniform draw of the rest, and that of other shards does
    not change at all.
    """
    found: list[int] = []
    for group in members(registered, shards).values():
        size = max(1, round(fraction * len(group)))
        left = [client for client in group if client not in gone]
        keys = {k: np.random.default_rng([seed, server_round, k, _DRAW]).random() for k in left}
        found += sorted(left, key=lambda k: keys[k])[:size]
    return tuple(sorted(found))

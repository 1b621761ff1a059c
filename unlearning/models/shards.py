"""A model made of shards: clients are cut into groups, each of which learns a model of its own.

Arrays of shard s are called ``shards.<s>.<...>``, and each is a part in the sense of
:mod:`unlearning.weighing`. Who belongs where follows from public client ids alone, and who is drawn
in a round from those of its own shard, so that no shard's model depends on the data of another.

References
----------
Bourtoule et al., "Machine Unlearning", S&P 2021 (arXiv 1912.03817).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from unlearning.weighing import SHARDS

__all__ = ["drawn", "members", "shard_of", "shards_in"]

_ASSIGN, _DRAW = 6, 7  # last components of seed addresses


def shards_in(names: Iterable[str]) -> int:
    """Return how many shards a model has, by the names of its arrays; 0: it is in one piece.

    >>> shards_in(["shards.0.net.weight", "shards.1.net.weight"]), shards_in(["layer.weight"])
    (2, 0)
    """
    return len({name.split(".")[1] for name in names if name.startswith(f"{SHARDS}.")})


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

"""A model made of sequences of modules, one per order of the clients' groups.

Arrays of the module at place i of order j are called ``sequences.<j>-<i>.<...>``, and each is a
part in the sense of :mod:`unlearning.weighing`; both are counted from 0. The module is trained on
groups ``(j, j + 1, ..., j + i) mod L`` alone, so that no data of a later group has touched it.

References
----------
Basu Roy Chowdhury et al., "Towards Scalable Exact Machine Unlearning Using Parameter-Efficient
Fine-Tuning" (S3T), ICLR 2025 (arXiv 2406.16257); over groups of clients: Zhang, Guan, Lee, Liu,
Zou, Xiong, FedSGT, 2025 (arXiv 2511.23393).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from unlearning.models.shards import shards_in
from unlearning.weighing import SEQUENCES, part_of

__all__ = ["groups_in", "kept", "module_name", "place_of", "places_in"]


def module_name(order: int, place: int) -> str:
    """Return what a module is called, its part of the model."""
    return f"{order}-{place}"


def places_in(names: Iterable[str]) -> set[tuple[int, int]]:
    """Return (order, place) of every module of a model, by the names of its arrays.

    >>> sorted(places_in(["sequences.0-0.net.w", "sequences.0-1.net.w", "base.w"]))
    [(0, 0), (0, 1)]
    """
    own = {part_of(name) for name in names if name.startswith(f"{SEQUENCES}.")}
    pairs = (part.split("-") for part in own)
    return {(int(order), int(place)) for order, place in pairs}


def groups_in(names: Collection[str]) -> int:
    """Return into how many groups a model cuts its clients, by the names of its arrays; 0: none.

    >>> groups_in(["shards.0.w", "shards.1.w"]), groups_in(["sequences.0-2.w"]), groups_in(["w"])
    (2, 3, 0)
    """
    return shards_in(names) or max((place + 1 for _, place in places_in(names)), default=0)


def place_of(group: int, order: int, groups: int) -> int:
    """Return where a group comes in an order: from this module on its data are in.

    >>> [place_of(0, order, 3) for order in range(3)]
    [0, 2, 1]
    """
    return (group - order) % groups


def kept(hit: Iterable[int], order: int, groups: int) -> int:
    """Return how many modules of an order have seen none of some groups."""
    return min((place_of(group, order, groups) for group in hit), default=groups)

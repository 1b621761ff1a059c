"""Subtrees of a forest that grow again, apart from all of it that stays.

After a deletion a few nodes are open, and the class counts at all of them are known. Clients are
sent the way to each, not the forest; only those are asked whose examples reach one; and the forest
is put together when the last node is decided.

Shapes: m open nodes, L splits above one at most, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Arrays
from unlearning.errors import FederationError, RoundError
from unlearning.models import parts, trees
from unlearning.models.forest import check_counts
from unlearning.models.forest_parts import Grown, Pruned
from unlearning.models.trees import LEAF, NOWHERE, OPEN, Tried
from unlearning.protocol import Instruction, Reply

if TYPE_CHECKING:
    from unlearning.models.forest import Forest

__all__ = ["Regrowth"]

Integers = NDArray[np.int64]


class Regrowth:
    """The open nodes of a forest, and what has grown below them.

    Parameters
    ----------
    forest : Forest
        How it grows.
    cut : Pruned
        A forest with open nodes whose counts are known; not changed.
    """

    def __init__(self, forest: Forest, cut: Pruned) -> None:
        self._forest, self._cut = forest, cut
        nodes = cut.grown.nodes
        is_open = nodes["feature"] == OPEN
        self._tree, self._path = nodes["tree"][is_open], nodes["path"][is_open]
        self._counts = nodes["counts"][is_open]
        self._ways = trees.ways(cut.nodes, self._tree, self._path)
        ends = {name: array[~is_open] for name, array in nodes.items()}
        self._done: list[Grown] = [Grown.bare(forest, ends)]
        self._holders: dict[int, NDArray[np.bool_]] = {}  # client to the open nodes it reaches

    def __len__(self) -> int:
        """Return how many nodes are open."""
        return len(self._tree)

    @property
    def members(self) -> tuple[int, ...]:
        """The clients that the forest rests on."""
        return tuple(self._cut.rests["clients"].tolist())

    def asked(self) -> tuple[int, ...]:
        """Return whose examples may reach an open node; before anyone answered, all members."""
        if not self._holders:
            return self.members
        return tuple(client for client, reaches in self._holders.items() if reaches.any())

    def instruction(self) -> Instruction:
        """Return what they are asked: the counts at the open nodes, by the ways to them."""
        return Instruction(
            step="forest_counts",
            settings={**self._forest.settings(), "of": "ways"},
            arrays={"tree": self._tree, "path": self._path, "ways": self._ways},
            answers="free",
        )

    def learn(self, replies: Iterable[Reply], clients: Collection[int]) -> None:
        """Decide all open nodes by the summed counts of those that were asked.

        Where others hold examples there too, nothing is decided, and all are asked next.

        Raises
        ------
        RoundError
            If somebody who was asked gave no valid answer, or holds other examples than before.
        FederationError
            If all of them together hold other examples at a node than were counted above it.
        """
        forest = self._forest
        tried = forest.plan.tried(self._tree, self._path)
        total = np.zeros((len(self), forest.num_classes), dtype=np.int64)
        left = np.zeros((len(tried.threshold), forest.num_classes), dtype=np.int64)
        wholes = {"total": total, "left": forest.plan.shaped(left)}
        found: dict[int, Reply] = {}
        for reply in parts.fitting(replies, lambda reply: check_counts(reply, wholes)):
            for name, whole in wholes.items():
                whole += reply.arrays[name]
            found[reply.client] = reply
        self._check(found, clients)
        if not np.array_equal(total, self._counts):
            if not self._holders:
                raise FederationError(
                    "the clients hold other examples at a node than were counted above it; an "
                    "owner's data changed since the forest was grown, so grow it again"
                )
            self._holders = {}
            return
        chosen = forest.verdicts(self._path, total, left, tried.begins)
        goes_on = self._decide(chosen, left, tried)
        self._holders = self._reached(chosen, goes_on, found)

    def _check(self, found: Mapping[int, Reply], clients: Collection[int]) -> None:
        known = dict(zip(self.members, self._cut.rests["examples"].tolist(), strict=True))
        for client in sorted(clients):
            if client not in found:
                raise RoundError(
                    f"client {client} is part of the forest and gave no valid answer in this "
                    "round; a forest needs all clients that hold examples in what grows again"
                )
            if found[client].num_examples != known[client]:
                raise RoundError(
                    f"client {client} holds {found[client].num_examples} examples, "
                    f"{known[client]} when the forest began"
                )

    def _decide(self, chosen: Integers, left: Integers, tried: Tried) -> NDArray[np.bool_]:
        """Note the open nodes as decided; return which children of them are open from now on."""
        forest, split = self._forest, np.flatnonzero(chosen >= 0)
        feature = np.full(len(self), LEAF, dtype=np.int32)
        threshold = np.zeros(len(self), dtype=np.int32)
        feature[split], threshold[split] = tried.at(chosen[split])
        nodes: Arrays = {
            "tree": self._tree,
            "path": self._path,
            "feature": feature,
            "threshold": threshold,
            "counts": self._counts,
        }
        sizes = np.where(chosen >= 0, np.diff(tried.begins), 0)
        blocks = left[np.repeat(chosen >= 0, np.diff(tried.begins))]
        self._done.append(Grown(nodes, sizes, blocks.astype(np.int32)))
        below = forest.children(nodes, split, self._counts[split], left[chosen[split]])
        goes_on = below["feature"] == OPEN
        ends = {name: array[~goes_on] for name, array in below.items()}
        self._done.append(Grown.bare(forest, ends))
        parent = np.repeat(split, 2)[goes_on]
        depth = trees.level(self._path[parent])
        ways = self._ways[parent]
        if len(parent) and depth.max() >= ways.shape[1]:
            ways = np.pad(ways, ((0, 0), (0, 1), (0, 0)), constant_values=NOWHERE)
        ways[np.arange(len(parent)), depth] = np.stack([feature, threshold], 1)[parent]
        self._tree, self._path = below["tree"][goes_on], below["path"][goes_on]
        self._counts, self._ways = below["counts"][goes_on], ways
        return np.asarray(goes_on)

    def _reached(
        self, chosen: Integers, goes_on: NDArray[np.bool_], found: Mapping[int, Reply]
    ) -> dict[int, NDArray[np.bool_]]:
        """Return which of the nodes that are open from now on the examples of a client reach."""
        split, num_classes = chosen >= 0, self._forest.num_classes
        answers = [reply.arrays for reply in found.values()]
        left = [one["left"].reshape(-1, num_classes)[chosen[split]] for one in answers]
        on_left = np.stack(left).sum(2)
        both = np.stack([one["total"][split] for one in answers]).sum(2)
        reaches = np.stack([on_left > 0, both > on_left], 2).reshape(len(answers), -1)
        return dict(zip(found, reaches[:, goes_on], strict=True))

    def merged(self) -> Arrays:
        """Return the forest with what has grown; what is still open is open there."""
        rest: Arrays = {
            "tree": self._tree,
            "path": self._path,
            "feature": np.full(len(self), OPEN, dtype=np.int32),
            "threshold": np.zeros(len(self), dtype=np.int32),
            "counts": self._counts,
        }
        return self._cut.merged(Grown.joined([*self._done, Grown.bare(self._forest, rest)]))

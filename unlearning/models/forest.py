"""A forest that clients grow together: level by level, from their summed class counts.

Every tree sees all examples. A node splits at the candidate with the smallest Gini impurity, the
first of equals, whether or not that gains anything: so a leaf never has to be split because an
example went away, and the forest is a function of seed, clients and examples alone. The counts of
all candidates are kept, so that examples can be subtracted.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567): cached counts
and rebuilt subtrees. Liu et al., "RevFRF", IEEE TDSC 19(6), 2022 (arXiv 1911.03242): the federated
forest. Candidates from a seed instead of from the data are our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays, content_of, known
from unlearning.errors import ConfigError, FederationError, RoundError
from unlearning.models import parts, trees
from unlearning.models.forest_parts import block_hashes
from unlearning.models.trees import LEAF, OPEN, Plan, Tried
from unlearning.protocol import Instruction, Reply

__all__ = ["Forest", "check_counts"]

Integers = NDArray[np.int64]


class Forest:
    """The array model ``forest``.

    Parameters
    ----------
    plan : Plan
        How trees grow.
    num_classes : int
        C.
    num_trees : int
        A decision tree is a forest of one.

    Notes
    -----
    State, nodes ordered by tree and path: ``tree``, ``path``, ``feature`` (-1 leaf, -2 open),
    ``threshold``, ``(m,)`` each; ``counts``, ``(m, C)``; ``left``, counts left of each candidate
    of each inner node, ``(num_inner, width, C)``; ``clients`` and ``examples``, what it rests on.
    Where columns are binary, ``left`` has the candidates of all inner nodes one after the other,
    ``(K, C)``, and ``tried``, ``(num_inner,)``, says how many each node has.
    A round grows one level; the clients of the first round must answer in all of them.
    """

    name = "forest"

    def __init__(self, plan: Plan, num_classes: int, num_trees: int = 50) -> None:
        if num_trees < 1:
            raise ConfigError(f"model.trees is {num_trees}; a forest needs at least 1")
        self.plan, self.num_classes, self.num_trees = plan, num_classes, num_trees

    def initial(self) -> Arrays:
        """Return roots that nobody has looked at."""
        count = self.num_trees
        nobody = np.zeros(0, dtype=np.int64)
        nodes: Arrays = {
            "tree": np.arange(count, dtype=np.int32),
            "path": np.ones(count, dtype=np.int64),
            "feature": np.full(count, OPEN, dtype=np.int32),
            "threshold": np.zeros(count, dtype=np.int32),
            "counts": np.zeros((count, self.num_classes), dtype=np.int64),
        }
        left = np.zeros((0, self.num_classes), dtype=np.int32)
        return {**nodes, **self.kept(left, nobody), "clients": nobody, "examples": nobody}

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the mean over trees of the class shares where an example ends up."""
        if not len(x):
            return np.zeros((0, self.num_classes))
        last = trees.last_rows(arrays, self.plan.binned(x))
        counts = arrays["counts"].astype(np.float64)
        total = counts.sum(1, keepdims=True)
        uniform = np.full_like(counts, 1 / self.num_classes)
        shares = np.divide(counts, total, out=uniform, where=total > 0)
        return np.asarray(sum(shares[rows] for rows in last) / len(last))

    def settings(self) -> dict[str, bool | int | float | str]:
        """Return what the step ``forest_counts`` has to know."""
        return {**self.plan.to_settings(), "num_classes": self.num_classes}

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask those that the forest rests on for the counts at the open nodes.

        They are sent the ways to these nodes.
        """
        members = arrays["clients"].tolist() or clients
        instruction = Instruction(
            step="forest_counts",
            settings=self.settings(),
            arrays=trees.growing(arrays),
            answers="free",
        )
        return {client: instruction for client in clients if client in members}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Decide all open nodes by the clients' summed counts; their children are open.

        Of no examples nothing is decided.
        """
        opened = np.flatnonzero(arrays["feature"] == OPEN)
        tried = self.plan.tried(arrays["tree"][opened], arrays["path"][opened])
        total = np.zeros((len(opened), self.num_classes), dtype=np.int64)
        left = np.zeros((len(tried.threshold), self.num_classes), dtype=np.int64)
        examples: dict[int, int] = {}
        wholes = {"total": total, "left": self.plan.shaped(left)}
        for reply in parts.fitting(replies, lambda reply: check_counts(reply, wholes)):
            for name, whole in wholes.items():
                whole += reply.arrays[name]
            examples[reply.client] = reply.num_examples
        self._check_members(arrays, examples)
        if not len(opened) or not any(examples.values()):
            return arrays
        return {**self._decide(arrays, opened, total, left, tried), **self.rests_on(examples)}

    def fingerprint(self, arrays: Mapping[str, Array]) -> str:
        """Return what tells a state from any other; blocks that did not change are hashed once.

        It is the SHA-256 over names, dtypes, shapes and the SHA-256 of each array; of ``left`` that
        of the SHA-256 of the counts of each inner node.
        """
        state = hashlib.sha256()
        for name in sorted(arrays):
            array = arrays[name]
            own = content_of(block_hashes(self, arrays) if name == "left" else array)
            state.update(f"{name}|{array.dtype.str}|{array.shape}|{own}|".encode())
        return state.hexdigest()

    def is_complete(self, arrays: Mapping[str, Array]) -> bool:
        """Return whether no node is open."""
        return known(arrays["feature"], _is_decided)

    def _check_members(self, arrays: Mapping[str, Array], examples: Mapping[int, int]) -> None:
        """Refuse a round without someone whose examples are in the levels above."""
        held = dict(zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True))
        if not held or self.is_complete(arrays):
            return
        if missing := sorted(held.keys() - examples.keys()):
            raise RoundError(
                f"client {missing[0]} is part of the forest and gave no valid answer in this "
                "round; a forest needs all its clients in every round"
            )
        if changed := [client for client, count in held.items() if examples[client] != count]:
            raise RoundError(
                f"client {changed[0]} holds {examples[changed[0]]} examples, "
                f"{held[changed[0]]} when the forest began"
            )

    def _decide(
        self, arrays: Arrays, rows: Integers, total: Integers, left: Integers, tried: Tried
    ) -> Arrays:
        """Return the nodes after those in ``rows`` were decided."""
        found = self.verdicts(arrays["path"][rows], total, left, tried.begins)
        split = found >= 0
        feature, threshold = arrays["feature"].copy(), arrays["threshold"].copy()
        counts = arrays["counts"].copy()
        feature[rows], threshold[rows] = LEAF, 0
        counts[rows] = total
        inner = rows[split]
        feature[inner], threshold[inner] = tried.at(found[split])
        old = {
            "tree": arrays["tree"],
            "path": arrays["path"],
            "feature": feature,
            "threshold": threshold,
            "counts": counts,
        }
        grown = self.children(arrays, inner, total[split], left[found[split]])
        # The candidates of nodes that are inner now go among those of nodes that were.
        was_inner = arrays["feature"] >= 0
        sizes = np.zeros(len(feature), dtype=np.int64)
        sizes[was_inner], sizes[inner] = self.sizes(arrays), np.diff(tried.begins)[split]
        is_new = np.repeat(~was_inner, sizes)
        fresh = left[np.repeat(split, np.diff(tried.begins))]
        whole = _among(self._flat(arrays), fresh, is_new)
        return {**trees.joined(old, grown), **self.kept(whole, sizes[feature >= 0])}

    def rests_on(self, examples: Mapping[int, int]) -> Arrays:
        """Return what the state says of those it rests on, by client."""
        held = sorted((client, count) for client, count in examples.items() if count)
        return {
            "clients": np.array([client for client, _ in held], dtype=np.int64),
            "examples": np.array([count for _, count in held], dtype=np.int64),
        }

    def _flat(self, arrays: Mapping[str, Array]) -> Array:
        """Return the left counts of all candidates, shape (K, C)."""
        return arrays["left"].reshape(-1, self.num_classes)

    def sizes(self, arrays: Mapping[str, Array]) -> Integers:
        """Return the number of candidates of each inner node."""
        if self.plan.binary:
            return arrays["tried"].astype(np.int64)
        return np.full(len(arrays["left"]), self.plan.width)

    def kept(self, left: Array, sizes: Integers) -> Arrays:
        """Return what the state holds of candidates."""
        kept = {"left": self.plan.shaped(left)}
        return kept | ({"tried": sizes.astype(np.int32)} if self.plan.binary else {})

    def verdicts(
        self, path: Integers, total: Integers, left: Integers, begins: Integers
    ) -> Integers:
        """Return the candidate that each node splits at, -1 for a leaf.

        ``begins``, (m + 1,), says where the candidates of each node lie in ``left``.
        """
        sizes = np.diff(begins)
        if not len(sizes):
            return np.zeros(0, dtype=np.int64)
        # Exact integers up to one division each: equal counts give equal bits.
        on_left, on_right, squares, others = np.zeros((4, len(left)), dtype=np.int64)
        square = np.empty(len(left), dtype=np.int64)
        for mine, all_here in zip(left.T, total.T, strict=True):
            rest = np.repeat(all_here, sizes)
            rest -= mine
            on_left += mine
            on_right += rest
            squares += np.multiply(mine, mine, out=square)
            others += np.multiply(rest, rest, out=square)
        score = squares / np.maximum(on_left, 1)
        score += others / np.maximum(on_right, 1)
        score[np.minimum(on_left, on_right) < self.plan.min_leaf] = -1.0
        best = np.maximum.reduceat(score, begins[:-1])
        hits = np.flatnonzero(score == np.repeat(best, sizes))
        first = hits[np.searchsorted(hits, begins[:-1])]
        return np.where((best >= 0) & ~self.closed(path, total), first, -1)

    def closed(self, path: Array, total: Integers) -> NDArray[np.bool_]:
        """Return which nodes are leaves, whatever their candidates say."""
        size = total.sum(1)
        pure = total.max(1) == size
        small = size < 2 * self.plan.min_leaf
        return np.asarray(pure | small | trees.closed_by_depth(self.plan, path))

    def children(
        self, nodes: Mapping[str, Array], inner: Integers, total: Integers, on_left: Integers
    ) -> Arrays:
        """Return the children of nodes that split, their counts known, open or leaves, in order."""
        counts = np.stack([on_left, total - on_left], 1).reshape(-1, self.num_classes)
        path = (2 * nodes["path"][inner][:, None] + np.arange(2)).ravel()
        feature = np.where(self.closed(path, counts), LEAF, OPEN)
        return {
            "tree": np.repeat(nodes["tree"][inner], 2),
            "path": path,
            "feature": feature.astype(np.int32),
            "threshold": np.zeros(len(path), dtype=np.int32),
            "counts": counts,
        }


def _is_decided(feature: Array) -> bool:
    return not (feature == OPEN).any()


def _among(old: Array, fresh: Array, is_new: NDArray[np.bool_]) -> Array:
    """Return rows with fresh ones where the mask says; few stretches are copied as stretches."""
    whole = np.empty((len(is_new), old.shape[1]), dtype=old.dtype)
    edges = np.flatnonzero(np.diff(is_new, prepend=False, append=False))
    if len(edges) > 200:
        whole[~is_new], whole[is_new] = old, fresh
        return whole
    taken, last = 0, 0
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        whole[last:begin] = old[last - taken : begin - taken]
        whole[begin:end] = fresh[taken : taken + end - begin]
        taken, last = taken + end - begin, end
    whole[last:] = old[last - taken :]
    return whole


def check_counts(reply: Reply, like: Mapping[str, Array]) -> None:
    """Raise FederationError if a client's counts do not fit."""
    for name, whole in like.items():
        found = reply.arrays.get(name)
        if found is None or found.shape != whole.shape or found.dtype.kind not in "iu":
            raise FederationError(
                f"client {reply.client} sent no {name!r} of shape {whole.shape} in whole numbers"
            )
        if found.min(initial=0) < 0:
            raise FederationError(f"client {reply.client} sent a negative count in {name!r}")

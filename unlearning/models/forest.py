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

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.models import trees
from unlearning.models.trees import LEAF, OPEN, Plan
from unlearning.protocol import Instruction, Reply, Settings

__all__ = ["Forest", "counts_of_forgotten", "counts_of_open", "remove"]

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
        return {
            "tree": np.arange(count, dtype=np.int32),
            "path": np.ones(count, dtype=np.int64),
            "feature": np.full(count, OPEN, dtype=np.int32),
            "threshold": np.zeros(count, dtype=np.int32),
            "counts": np.zeros((count, self.num_classes), dtype=np.int64),
            "left": np.zeros((0, self.plan.width, self.num_classes), dtype=np.int32),
            "clients": np.zeros(0, dtype=np.int64),
            "examples": np.zeros(0, dtype=np.int64),
        }

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

        They are sent the trees that have one.
        """
        members = arrays["clients"].tolist() or clients
        instruction = Instruction(
            step="forest_counts",
            settings=self.settings(),
            arrays=trees.structure(trees.growing(arrays)),
            answers="free",
        )
        return {client: instruction for client in clients if client in members}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Decide all open nodes by the clients' summed counts; their children are open."""
        opened = np.flatnonzero(arrays["feature"] == OPEN)
        total = np.zeros((len(opened), self.num_classes), dtype=np.int64)
        left = np.zeros((len(opened), self.plan.width, self.num_classes), dtype=np.int64)
        examples: dict[int, int] = {}
        for reply in replies:
            _add(total, reply, "total")
            _add(left, reply, "left")
            examples[reply.client] = reply.num_examples
        self._check_members(arrays, examples)
        if not len(opened):
            return arrays
        return {**self._decide(arrays, opened, total, left), **_rests_on(examples)}

    def is_complete(self, arrays: Mapping[str, Array]) -> bool:
        """Return whether no node is open."""
        return not (arrays["feature"] == OPEN).any()

    def _check_members(self, arrays: Mapping[str, Array], examples: Mapping[int, int]) -> None:
        """Refuse a round without someone whose examples are in the levels above."""
        known = dict(zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True))
        if not known or self.is_complete(arrays):
            return
        if missing := sorted(known.keys() - examples.keys()):
            raise FederationError(
                f"client {missing[0]} is part of the forest and gave no valid answer in this "
                "round; a forest needs all its clients in every round, so run it again"
            )
        if changed := [client for client, count in known.items() if examples[client] != count]:
            raise FederationError(
                f"client {changed[0]} holds {examples[changed[0]]} examples, "
                f"{known[changed[0]]} when the forest began; run it again"
            )

    def _decide(self, arrays: Arrays, rows: Integers, total: Integers, left: Integers) -> Arrays:
        """Return the nodes after those in ``rows`` were decided."""
        found = self.verdicts(arrays["path"][rows], total, left)
        grown = self._children(arrays, rows, total, left, found)
        feature, threshold = arrays["feature"].copy(), arrays["threshold"].copy()
        counts = arrays["counts"].copy()
        feature[rows], threshold[rows] = LEAF, 0
        counts[rows] = total
        split = found >= 0
        inner = rows[split]
        feature[inner], threshold[inner] = self._chosen(arrays, rows, found)
        was_inner = np.flatnonzero(arrays["feature"] >= 0)
        order = np.argsort(np.concatenate([was_inner, inner]), kind="stable")
        kept = np.concatenate([arrays["left"], left[split].astype(np.int32)])[order]
        old = {
            "tree": arrays["tree"],
            "path": arrays["path"],
            "feature": feature,
            "threshold": threshold,
            "counts": counts,
        }
        return {**_merged(old, grown), "left": kept}

    def verdicts(self, path: Array, total: Integers, left: Integers) -> Integers:
        """Return the candidate that each node splits at, -1 for a leaf."""
        right = total[:, None] - left
        sizes = left.sum(2), right.sum(2)
        least = self.plan.min_leaf
        valid = (sizes[0] >= least) & (sizes[1] >= least)
        # Exact integers up to one division each: equal counts give equal bits.
        score = np.where(
            valid,
            (left**2).sum(2) / np.maximum(sizes[0], 1)
            + (right**2).sum(2) / np.maximum(sizes[1], 1),
            -1.0,
        )
        best = score.argmax(1)
        splits = valid.any(1) & ~self._closed(path, total)
        return np.where(splits, best, -1)

    def _closed(self, path: Array, total: Integers) -> NDArray[np.bool_]:
        size = total.sum(1)
        pure = total.max(1) == size
        small = size < 2 * self.plan.min_leaf
        return np.asarray(pure | small | trees.closed_by_depth(self.plan, path))

    def _chosen(
        self, nodes: Mapping[str, Array], rows: Integers, found: Integers
    ) -> tuple[Integers, Integers]:
        inner = rows[found >= 0]
        feature, threshold = self.plan.candidates(nodes["tree"][inner], nodes["path"][inner])
        at = np.arange(len(inner)), found[found >= 0]
        return feature[at], threshold[at]

    def _children(
        self,
        nodes: Mapping[str, Array],
        rows: Integers,
        total: Integers,
        left: Integers,
        found: Integers,
    ) -> Arrays:
        """Return the children of the nodes that split, their counts known, open or leaves."""
        split = np.flatnonzero(found >= 0)
        inner = rows[split]
        on_left = left[split, found[split]]
        counts = np.stack([on_left, total[split] - on_left], 1).reshape(-1, self.num_classes)
        path = (2 * nodes["path"][inner][:, None] + np.arange(2)).ravel()
        feature = np.where(self._closed(path, counts), LEAF, OPEN)
        return {
            "tree": np.repeat(nodes["tree"][inner], 2),
            "path": path,
            "feature": feature.astype(np.int32),
            "threshold": np.zeros(len(path), dtype=np.int32),
            "counts": counts,
        }


class Counts(NamedTuple):
    """Class counts of some examples at the nodes they pass."""

    rows: Integers
    total: Integers
    left: Integers


def counts_of_open(
    settings: Settings, nodes: Mapping[str, Array], x: Array, labels: Array
) -> Counts:
    """Return the counts at every open node: rows, ``(m, C)`` and ``(m, width, C)``."""
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    rows = np.flatnonzero(nodes["feature"] == OPEN)
    at = np.full(len(nodes["feature"]), -1)
    at[rows] = np.arange(len(rows))
    bins = plan.binned(x)
    last = at[trees.last_rows(nodes, bins)]
    tree, example = np.nonzero(last >= 0)
    return _counted(plan, nodes, rows, last[tree, example], example, bins, labels, num_classes)


def counts_of_forgotten(
    settings: Settings, nodes: Mapping[str, Array], x: Array, labels: Array
) -> Counts:
    """Return the counts at every node that an example passes.

    ``rows`` and ``total`` name all these nodes, ``left`` the inner ones among them, in order.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    bins = plan.binned(x)
    passed = list(trees.descend(nodes, bins))
    none = np.zeros(0, dtype=np.int64)
    rows = np.concatenate([none, *(pair[0] for pair in passed)])
    examples = np.concatenate([none, *(pair[1] for pair in passed)])
    named, at = np.unique(rows, return_inverse=True)
    total = np.bincount(
        at * num_classes + labels[examples], minlength=len(named) * num_classes
    ).reshape(-1, num_classes)
    inner = nodes["feature"][named] >= 0
    position = np.cumsum(inner) - 1
    chosen = inner[at]
    found = _counted(
        plan,
        nodes,
        named[inner],
        position[at[chosen]],
        examples[chosen],
        bins,
        labels,
        num_classes,
    )
    return Counts(named, total, found.left)


def _counted(
    plan: Plan,
    nodes: Mapping[str, Array],
    rows: Integers,
    at: Integers,
    example: Integers,
    bins: Integers,
    labels: Array,
    num_classes: int,
) -> Counts:
    mine = labels[example]
    total = np.bincount(at * num_classes + mine, minlength=len(rows) * num_classes)
    left = trees.left_counts(plan, nodes, rows, at, bins[example], mine, num_classes)
    return Counts(rows, total.reshape(-1, num_classes), left)


def remove(forest: Forest, arrays: Arrays, gone: Iterable[Reply]) -> Arrays:
    """Return the forest without some examples; nodes below a split that changed are open.

    Parameters
    ----------
    forest : Forest
        How it grows.
    arrays : Arrays
        A complete forest; not changed.
    gone : iterable of Reply
        From each owner :func:`counts_of_forgotten` as ``rows``, ``total``, ``left``, and how many
        examples they are.

    Raises
    ------
    FederationError
        If an owner's counts are not part of the forest's.
    """
    counts, left = arrays["counts"].copy(), arrays["left"].copy()
    inner = np.cumsum(arrays["feature"] >= 0) - 1
    examples = dict(zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True))
    touched = np.zeros(len(counts), dtype=bool)
    for reply in gone:
        rows = reply.arrays["rows"]
        counts[rows] -= reply.arrays["total"]
        left[inner[rows[arrays["feature"][rows] >= 0]]] -= reply.arrays["left"].astype(np.int32)
        touched[rows] = True
        examples[reply.client] = examples.get(reply.client, 0) - reply.num_examples
    if (
        counts.min(initial=0) < 0
        or left.min(initial=0) < 0
        or min(examples.values(), default=0) < 0
    ):
        raise FederationError(
            "more examples were to be removed than the forest holds; an owner's data changed since "
            "it was grown, so grow it again"
        )
    rows = np.flatnonzero(touched & (arrays["feature"] >= 0))
    return {
        **_repaired(forest, {**arrays, "counts": counts, "left": left}, rows, inner),
        **_rests_on(examples),
    }


def _repaired(forest: Forest, arrays: Arrays, rows: Integers, inner: Integers) -> Arrays:
    """Decide inner nodes again by counts that changed; drop what hung below changed splits."""
    feature, threshold = arrays["feature"].copy(), arrays["threshold"].copy()
    total = arrays["counts"][rows]
    left = arrays["left"][inner[rows]].astype(np.int64)
    found = forest.verdicts(arrays["path"][rows], total, left)
    new_feature = np.full(len(rows), LEAF)
    new_threshold = np.zeros(len(rows), dtype=np.int64)
    split = found >= 0
    new_feature[split], new_threshold[split] = forest._chosen(arrays, rows, found)
    differs = (new_feature != feature[rows]) | (new_threshold != threshold[rows])
    changed = np.zeros(len(feature), dtype=bool)
    changed[rows[differs]] = True
    dead = _below(arrays, changed)
    feature[rows[differs]], threshold[rows[differs]] = new_feature[differs], new_threshold[differs]
    again = differs & ~dead[rows]
    grown = forest._children(arrays, rows[again], total[again], left[again], found[again])
    was_inner = np.flatnonzero(arrays["feature"] >= 0)
    keep = ~dead
    old = {
        "tree": arrays["tree"][keep],
        "path": arrays["path"][keep],
        "feature": feature[keep],
        "threshold": threshold[keep],
        "counts": arrays["counts"][keep],
    }
    return {
        **_merged(old, grown),
        "left": arrays["left"][keep[was_inner] & (feature[was_inner] >= 0)],
    }


def _below(arrays: Mapping[str, Array], changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which nodes have a changed node above them."""
    dead = np.zeros(len(changed), dtype=bool)
    tree, path = arrays["tree"].astype(np.int64), arrays["path"]
    span = int(path.max(initial=1)) + 1
    key = tree * span + path
    depth = trees.level(path)
    for at in range(1, int(depth.max(initial=0)) + 1):
        rows = np.flatnonzero(depth == at)
        parent = np.searchsorted(key, tree[rows] * span + path[rows] // 2)
        dead[rows] = dead[parent] | changed[parent]
    return dead


def _merged(old: Arrays, grown: Arrays) -> Arrays:
    joined = {name: np.concatenate([old[name], grown[name]]) for name in old}
    order = trees.in_order(joined["tree"], joined["path"])
    return {name: array[order] for name, array in joined.items()}


def _rests_on(examples: Mapping[int, int]) -> Arrays:
    held = sorted((client, count) for client, count in examples.items() if count)
    return {
        "clients": np.array([client for client, _ in held], dtype=np.int64),
        "examples": np.array([count for _, count in held], dtype=np.int64),
    }


def _add(total: Integers, reply: Reply, name: str) -> None:
    """Add what a client counted, in place.

    Raises
    ------
    FederationError
        If it does not fit.
    """
    found = reply.arrays.get(name)
    if found is None or found.shape != total.shape or found.dtype.kind not in "iu":
        raise FederationError(
            f"client {reply.client} sent no {name!r} of shape {total.shape} in whole numbers"
        )
    if found.min(initial=0) < 0:
        raise FederationError(f"client {reply.client} sent a negative count in {name!r}")
    total += found

"""Gradient-boosted trees that clients grow together from summed gradients.

Round by round the open nodes of one iteration (a tree per class) are decided by the clients' sums
of gradient g and curvature h over each candidate's left side. g and h travel as whole numbers, so
that sums do not depend on any order and two federations with the same data agree bit for bit.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754): gain, leaf
weight. Wu, Zhu, Li, He, "DeltaBoost", SIGMOD 2023: why deletion from boosted trees is hard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, FederationError, RoundError
from unlearning.models import trees
from unlearning.models.boosting_sums import (
    NODES,
    UNIT,
    probabilities,
    scores_of,
    trees_per_iteration,
)
from unlearning.models.parts import fitting
from unlearning.models.tree_sums import Sums
from unlearning.models.trees import LEAF, OPEN, Plan
from unlearning.protocol import Instruction, Reply, Scalar

__all__ = ["Boosting", "before", "rests_on"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Boosting:
    """The array model ``boosting``: softmax loss, one tree per class and iteration.

    Parameters
    ----------
    plan : Plan
        How trees grow.
    num_classes : int
        C; two classes share one tree, whose score is that of class 1.
    iterations : int
        T.
    rate : float
        Shrinkage of every leaf weight, (0, 1].
    l2 : float
        lambda, added to the curvature of a leaf, above 0.

    Notes
    -----
    State, nodes ordered by tree and path: ``tree`` (iteration times trees per iteration plus
    class), ``path``, ``feature`` (-1 leaf, -2 open), ``threshold``, ``value`` (leaf weight, rate
    included), ``(m,)`` each; ``clients`` and ``examples``, what it rests on. The first score is 0.
    """

    name = "boosting"

    def __init__(
        self,
        plan: Plan,
        num_classes: int,
        iterations: int = 20,
        rate: float = 0.3,
        l2: float = 1.0,
    ) -> None:
        if iterations < 1:
            raise ConfigError(f"model.iterations is {iterations}; it must be at least 1")
        if not 0 < rate <= 1:
            raise ConfigError(f"model.rate is {rate}; it must be above 0 and at most 1")
        if not l2 > 0:
            raise ConfigError(f"model.l2 is {l2}; it must be above 0")
        self.plan, self.num_classes, self.iterations = plan, num_classes, iterations
        self.rate, self.l2 = rate, l2
        self.width = trees_per_iteration(num_classes)

    @property
    def rounds(self) -> int:
        """The most rounds that learning takes: a level of an iteration each."""
        return self.iterations * self.plan.depth

    def initial(self) -> Arrays:
        """Return the first iteration's roots, which nobody has looked at."""
        nothing: Arrays = {
            "tree": np.zeros(0, dtype=np.int32),
            "path": np.zeros(0, dtype=np.int64),
            "feature": np.zeros(0, dtype=np.int32),
            "threshold": np.zeros(0, dtype=np.int32),
            "value": np.zeros(0),
            "clients": np.zeros(0, dtype=np.int64),
            "examples": np.zeros(0, dtype=np.int64),
        }
        return self.with_roots(nothing)

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the softmax of the summed leaf weights."""
        scores = scores_of(arrays, self.plan.binned(x), self.num_classes)
        return probabilities(scores)

    def settings(self) -> dict[str, Scalar]:
        """Return what the step ``boosting_sums`` has to know."""
        return {**self.plan.to_settings(), "num_classes": self.num_classes}

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask those that the trees rest on for the sums at the open nodes."""
        members = arrays["clients"].tolist() or clients
        instruction = self.asked_at(arrays, np.flatnonzero(arrays["feature"] == OPEN))
        return {client: instruction for client in clients if client in members}

    def asked_at(
        self, arrays: Mapping[str, Array], rows: Integers, of: str = "left"
    ) -> Instruction:
        """Return what asks for sums at some nodes; ``of`` = ``"total"``: not of candidates."""
        return Instruction(
            step="boosting_sums",
            settings={**self.settings(), "of": of},
            arrays={name: arrays[name] for name in NODES},
            extras={"rows": rows},
            answers="free",
        )

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Decide all open nodes; begin the next iteration where none is left.

        Where nobody holds an example, nothing is decided.
        """
        rows = np.flatnonzero(arrays["feature"] == OPEN)
        sums, examples = self.summed(arrays, rows, replies)
        if not len(rows) or not examples:
            return arrays
        return {**self.decided(arrays, rows, sums), **rests_on(before(arrays) | examples)}

    def is_complete(self, arrays: Mapping[str, Array]) -> bool:
        """Return whether all iterations are done."""
        return not (arrays["feature"] == OPEN).any()

    def summed(
        self,
        arrays: Mapping[str, Array],
        rows: Integers,
        replies: Iterable[Reply],
        *,
        candidates: bool = True,
    ) -> tuple[Sums, dict[int, int]]:
        """Return the clients' sums at some nodes, and how many examples each that answered has.

        A client that the trees rest on and that gives no valid answer is left out of the nodes
        that are decided now; what was grown before rests on it still.

        Raises
        ------
        FederationError
            If no client sent what fits.
        """
        total = np.zeros((len(rows), 3), dtype=np.int64)
        some = rows if candidates else rows[:0]
        tried = self.plan.tried(arrays["tree"][some], arrays["path"][some])
        left = self.plan.shaped(np.zeros((len(tried.threshold), 3), dtype=np.int64))
        wholes, examples = {"total": total, "left": left}, dict[int, int]()
        came: list[int] = []  # empty where nobody holds anything any more

        def fits(reply: Reply) -> None:
            came.append(reply.client)
            _check_sums(reply, wholes)

        for reply in fitting(replies, fits):
            for name, whole in wholes.items():
                whole += reply.arrays[name]
            examples[reply.client] = reply.num_examples
        if came and not examples:
            raise RoundError("no client sent sums at the open nodes that fit")
        flat = left.reshape(-1, 3)
        return Sums(total, tried.evenly(flat, self.plan.num_thresholds)), examples

    def decided(
        self,
        arrays: Mapping[str, Array],
        rows: Integers,
        sums: Sums,
        chosen: Integers | None = None,
    ) -> Arrays:
        """Return the nodes after those in ``rows`` were decided by sums at them.

        ``chosen`` names the candidates they split at; None: the best.
        """
        if chosen is None:
            chosen = self.best(arrays, rows, sums)
        feature_of, threshold_of = self._named(arrays, rows, chosen)
        nodes = {name: arrays[name].copy() for name in NODES}
        nodes["feature"][rows], nodes["threshold"][rows] = feature_of, threshold_of
        # A plain zero at inner nodes: a product would keep the sign of their sum.
        nodes["value"][rows] = np.where(chosen < 0, self.weights(sums.total), 0.0)
        inner = rows[chosen >= 0]
        path = (2 * arrays["path"][inner][:, None] + np.arange(2)).ravel()
        grown = _fresh(np.repeat(arrays["tree"][inner], 2), path)
        # The deepest nodes are leaves; their sums are those of their parents' candidates.
        last = trees.closed_by_depth(self.plan, path)
        at = np.flatnonzero(chosen >= 0)
        on_left = sums.left[at, chosen[at]]
        both = np.stack([on_left, sums.total[at] - on_left], 1).reshape(-1, 3)
        grown["feature"][last] = LEAF
        grown["value"][last] = self.weights(both)[last]
        merged = trees.joined(nodes, grown)
        return self.with_roots({**arrays, **merged})

    def best(self, arrays: Mapping[str, Array], rows: Integers, sums: Sums) -> Integers:
        """Return per node the candidate with the largest gain, -1 for a leaf."""
        gain = self.gains(sums)
        best = gain.argmax(1)
        useful = np.take_along_axis(gain, best[:, None], 1)[:, 0] > 0
        closed = trees.closed_by_depth(self.plan, arrays["path"][rows])
        return np.where(useful & ~closed, best, -1)

    def kept(
        self, arrays: Mapping[str, Array], rows: Integers, sums: Sums, tolerance: float
    ) -> Integers:
        """Return per node the candidate it splits at now, or the best where that gains more.

        Parameters
        ----------
        arrays, rows, sums
            As for :meth:`best`.
        tolerance : float
            Share of the largest gain that a split may lag behind, 0 to 1. At 0 a split is kept
            only if it is the best, at 1 if it gains anything. A leaf gains nothing: it stays one
            at 1 alone, or where nothing else gains.
        """
        best, gain = self.best(arrays, rows, sums), self.gains(sums)
        feature, threshold = self._candidates(arrays, rows)
        same = (feature == arrays["feature"][rows, None]) & (
            threshold == arrays["threshold"][rows, None]
        )
        own = same.argmax(1)
        at = np.arange(len(rows))
        largest = np.where(best >= 0, gain[at, np.maximum(best, 0)], 0.0)
        holds = same.any(1) & (gain[at, own] > (1 - tolerance) * largest)
        stays = (arrays["feature"][rows] == LEAF) & (tolerance >= 1)
        return np.where(holds, own, np.where(stays, -1, best))

    def _named(
        self, arrays: Mapping[str, Array], rows: Integers, chosen: Integers
    ) -> tuple[Integers, Integers]:
        """Return feature and threshold of chosen candidates."""
        feature, threshold = self._candidates(arrays, rows)
        at = np.arange(len(rows)), np.maximum(chosen, 0)
        split = chosen >= 0
        return np.where(split, feature[at], LEAF), np.where(split, threshold[at], 0)

    def _candidates(self, arrays: Mapping[str, Array], rows: Integers) -> tuple[Integers, Integers]:
        """Return features and thresholds, ``(m, width)``; those of a binary column are all one."""
        tried = self.plan.tried(arrays["tree"][rows], arrays["path"][rows])
        threshold = tried.threshold.astype(np.int64)
        every = self.plan.num_thresholds
        return tried.evenly(tried.feature, every), tried.evenly(threshold, every)

    def changed(self, arrays: Mapping[str, Array], rows: Integers, chosen: Integers) -> Integers:
        """Return the positions in ``rows`` of the nodes that chosen candidates would change."""
        feature, threshold = self._named(arrays, rows, chosen)
        differs = (feature != arrays["feature"][rows]) | (threshold != arrays["threshold"][rows])
        return np.flatnonzero(differs)

    def weights(self, total: Integers) -> Floats:
        """Return the leaf weights -rate G / (H + lambda) of sums (G, H, n), ``(m, 3)``."""
        g, h = total[:, 0] / UNIT, total[:, 1] / UNIT
        return np.asarray(-self.rate * g / (h + self.l2))

    def gains(self, sums: Sums) -> Floats:
        """Return what each candidate gains, ``(m, width)``; -1 where a side has too few."""
        right = sums.total[:, None] - sums.left
        least = self.plan.min_leaf
        valid = (sums.left[..., 2] >= least) & (right[..., 2] >= least)
        parent = self._gain(sums.total[:, None])
        return np.where(valid, self._gain(sums.left) + self._gain(right) - parent, -1.0)

    def _gain(self, sums: Integers) -> Floats:
        g, h = sums[..., 0] / UNIT, sums[..., 1] / UNIT
        return np.asarray(g * g / (h + self.l2))

    def with_roots(self, arrays: Arrays) -> Arrays:
        """Return the state with the next iteration's roots, if none is open and one is left."""
        begun = int(arrays["tree"].max(initial=-1)) // self.width + 1
        if (arrays["feature"] == OPEN).any() or begun >= self.iterations:
            return arrays
        tree = np.arange(begun * self.width, (begun + 1) * self.width, dtype=np.int32)
        nodes = {name: arrays[name] for name in NODES}
        return {**arrays, **trees.joined(nodes, _fresh(tree, np.ones(len(tree), dtype=np.int64)))}


def _check_sums(reply: Reply, like: Mapping[str, Array]) -> None:
    """Raise FederationError if a client's sums do not fit."""
    for name, whole in like.items():
        found = reply.arrays.get(name)
        if found is None or found.shape != whole.shape or found.dtype.kind != "i":
            raise FederationError(
                f"client {reply.client} sent no {name!r} of shape {whole.shape} in whole numbers"
            )


def _fresh(tree: Array, path: Array) -> Arrays:
    """Return open nodes."""
    return {
        "tree": tree.astype(np.int32),
        "path": path,
        "feature": np.full(len(path), OPEN, dtype=np.int32),
        "threshold": np.zeros(len(path), dtype=np.int32),
        "value": np.zeros(len(path)),
    }


def before(arrays: Mapping[str, Array]) -> dict[int, int]:
    """Return the clients that a state rests on, with their numbers of examples."""
    return dict(zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True))


def rests_on(examples: Mapping[int, int]) -> Arrays:
    """Return the clients and numbers of examples that a state rests on."""
    held = sorted((client, count) for client, count in examples.items() if count)
    return {
        "clients": np.array([client for client, _ in held], dtype=np.int64),
        "examples": np.array([count for _, count in held], dtype=np.int64),
    }

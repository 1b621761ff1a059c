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

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.models import trees
from unlearning.models.trees import LEAF, OPEN, Plan
from unlearning.protocol import Instruction, Reply, Scalar, Settings

__all__ = ["Boosting", "Sums", "idle_splits", "replayed", "rests_on", "sums_at"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_UNIT = float(1 << 24)  # g and h, at most 1 each, as whole numbers: steps of 6e-8
_KEPT = ("tree", "path", "feature", "threshold", "value")


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
            arrays={name: arrays[name] for name in _KEPT},
            extras={"rows": rows},
            answers="free",
        )

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Decide all open nodes; begin the next iteration where none is left."""
        rows = np.flatnonzero(arrays["feature"] == OPEN)
        sums, examples = self.summed(arrays, rows, replies)
        if not len(rows):
            return arrays
        return {**self.decided(arrays, rows, sums), **rests_on(examples)}

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
        """Return the clients' sums at some nodes, and how many examples they rest on.

        Raises
        ------
        FederationError
            If a client that the trees rest on is missing, or sent what does not fit.
        """
        total = np.zeros((len(rows), 3), dtype=np.int64)
        left = np.zeros((len(rows) if candidates else 0, self.plan.width, 3), dtype=np.int64)
        examples: dict[int, int] = {}
        for reply in replies:
            for whole, name in ((total, "total"), (left, "left")):
                found = reply.arrays.get(name)
                if found is None or found.shape != whole.shape or found.dtype.kind != "i":
                    raise FederationError(
                        f"client {reply.client} sent no {name!r} of shape {whole.shape} in whole "
                        "numbers"
                    )
                whole += found
            examples[reply.client] = reply.num_examples
        known = set(arrays["clients"].tolist())
        if len(rows) and (missing := sorted(known - examples.keys())):
            raise FederationError(
                f"client {missing[0]} is part of the boosted trees and gave no valid answer in "
                "this round; they need all their clients in every round, so run it again"
            )
        return Sums(total, left), examples

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
        nodes = {name: arrays[name].copy() for name in _KEPT}
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
        merged = _merged(nodes, grown)
        return self.with_roots({**arrays, **merged})

    def best(self, arrays: Mapping[str, Array], rows: Integers, sums: Sums) -> Integers:
        """Return per node the candidate with the largest gain, -1 for a leaf."""
        gain = self._gains(sums)
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
        best, gain = self.best(arrays, rows, sums), self._gains(sums)
        feature, threshold = self.plan.candidates(arrays["tree"][rows], arrays["path"][rows])
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
        feature, threshold = self.plan.candidates(arrays["tree"][rows], arrays["path"][rows])
        at = np.arange(len(rows)), np.maximum(chosen, 0)
        split = chosen >= 0
        return np.where(split, feature[at], LEAF), np.where(split, threshold[at], 0)

    def changed(self, arrays: Mapping[str, Array], rows: Integers, chosen: Integers) -> Integers:
        """Return the positions in ``rows`` of the nodes that chosen candidates would change."""
        feature, threshold = self._named(arrays, rows, chosen)
        differs = (feature != arrays["feature"][rows]) | (threshold != arrays["threshold"][rows])
        return np.flatnonzero(differs)

    def weights(self, total: Integers) -> Floats:
        """Return the leaf weights -rate G / (H + lambda) of sums (G, H, n), ``(m, 3)``."""
        g, h = total[:, 0] / _UNIT, total[:, 1] / _UNIT
        return np.asarray(-self.rate * g / (h + self.l2))

    def _gains(self, sums: Sums) -> Floats:
        """Return what each candidate gains, ``(m, width)``; -1 where a side has too few."""
        right = sums.total[:, None] - sums.left
        least = self.plan.min_leaf
        valid = (sums.left[..., 2] >= least) & (right[..., 2] >= least)
        parent = self._gain(sums.total[:, None])
        return np.where(valid, self._gain(sums.left) + self._gain(right) - parent, -1.0)

    def _gain(self, sums: Integers) -> Floats:
        g, h = sums[..., 0] / _UNIT, sums[..., 1] / _UNIT
        return np.asarray(g * g / (h + self.l2))

    def with_roots(self, arrays: Arrays) -> Arrays:
        """Return the state with the next iteration's roots, if none is open and one is left."""
        begun = int(arrays["tree"].max(initial=-1)) // self.width + 1
        if (arrays["feature"] == OPEN).any() or begun >= self.iterations:
            return arrays
        tree = np.arange(begun * self.width, (begun + 1) * self.width, dtype=np.int32)
        nodes = {name: arrays[name] for name in _KEPT}
        return {**arrays, **_merged(nodes, _fresh(tree, np.ones(len(tree), dtype=np.int64)))}


class Sums(NamedTuple):
    """Sums of (g, h, 1) at m nodes, ``(m, 3)``, and left of candidates, ``(m, width, 3)``."""

    total: Integers
    left: Integers


def trees_per_iteration(num_classes: int) -> int:
    """Return one for two classes, else one per class."""
    return 1 if num_classes == 2 else num_classes


def scores_of(nodes: Mapping[str, Array], bins: Integers, num_classes: int) -> Floats:
    """Return the summed leaf weights of every class, ``(n, C)``; class 0 of two has 0."""
    width = trees_per_iteration(num_classes)
    scores = np.zeros((len(bins), width))
    last = trees.last_rows(nodes, bins)
    for number, rows in enumerate(last):  # in order, so that equal trees give equal bits
        scores[:, number % width] += nodes["value"][rows]
    return np.hstack([np.zeros_like(scores), scores]) if width == 1 else scores


def probabilities(scores: Floats) -> Floats:
    """Return the softmax of every row."""
    raised = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def sums_at(
    settings: Settings, nodes: Mapping[str, Array], rows: Integers, x: Array, labels: Array
) -> Sums:
    """Return a client's sums at some nodes of one iteration.

    Gradients come from the iterations before it. With ``settings["of"]`` = ``"total"`` the sums of
    candidates are left out.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    width, bins = trees_per_iteration(num_classes), plan.binned(x)
    if not len(rows):
        return Sums(np.zeros((0, 3), np.int64), np.zeros((0, plan.width, 3), np.int64))
    first = int(nodes["tree"][rows].min()) // width * width
    before = {name: nodes[name][nodes["tree"] < first] for name in _KEPT}
    values = _derivatives(scores_of(before, bins, num_classes), labels, width)
    mine = (nodes["tree"] >= first) & (nodes["tree"] < first + width)
    offset = int(np.argmax(mine))
    here = {name: nodes[name][mine] for name in _KEPT}
    at = np.full(int(mine.sum()), -1)
    at[rows - offset] = np.arange(len(rows))
    pairs = [(at[r], r, e) for r, e in trees.descend(here, bins)]
    number, row, example = (np.concatenate(part) for part in zip(*pairs, strict=True))
    wanted = number >= 0
    number, row, example = number[wanted], row[wanted], example[wanted]
    value = values[here["tree"][row] - first, example]
    total = np.zeros((len(rows), 3), dtype=np.int64)
    np.add.at(total, number, value)
    if settings.get("of") == "total":
        return Sums(total, np.zeros((0, plan.width, 3), dtype=np.int64))
    left = trees.left_sums(plan, nodes, rows, number, bins[example], value)
    return Sums(total, left)


def _derivatives(scores: Floats, labels: Array, width: int) -> Integers:
    """Return (g, h, 1) of every tree and example as whole numbers, ``(width, n, 3)``."""
    p = probabilities(scores)[:, -width:].T
    classes = np.arange(width)[:, None] if width > 1 else np.ones((1, 1), dtype=np.int64)
    g, h = p - (labels == classes), p * (1 - p)
    whole = [np.rint(part * _UNIT).astype(np.int64) for part in (g, h)]
    return np.stack([*whole, np.ones(g.shape, dtype=np.int64)], axis=2)


def _fresh(tree: Array, path: Array) -> Arrays:
    """Return open nodes."""
    return {
        "tree": tree.astype(np.int32),
        "path": path,
        "feature": np.full(len(path), OPEN, dtype=np.int32),
        "threshold": np.zeros(len(path), dtype=np.int32),
        "value": np.zeros(len(path)),
    }


def _merged(old: Arrays, grown: Arrays) -> Arrays:
    joined = {name: np.concatenate([old[name], grown[name]]) for name in _KEPT}
    order = trees.in_order(joined["tree"], joined["path"])
    return {name: array[order] for name, array in joined.items()}


def rests_on(examples: Mapping[int, int]) -> Arrays:
    """Return the clients and numbers of examples that a state rests on."""
    held = sorted((client, count) for client, count in examples.items() if count)
    return {
        "clients": np.array([client for client, _ in held], dtype=np.int64),
        "examples": np.array([count for _, count in held], dtype=np.int64),
    }


def idle_splits(
    model: Boosting, arrays: Mapping[str, Array], rows: Integers, sums: Sums
) -> tuple[int, int]:
    """Return how many splits above some leaves gain nothing any more, and how many there are.

    Parameters
    ----------
    model : Boosting
        Its gain and its fewest examples per side are asked for.
    arrays : mapping
        Nodes.
    rows : array
        All leaves of one iteration.
    sums : Sums
        At these leaves; candidates are not needed, a split's own gain follows from the leaves.
    """
    totals: defaultdict[tuple[int, int], Integers] = defaultdict(lambda: np.zeros(3, np.int64))
    pairs = zip(arrays["tree"][rows].tolist(), arrays["path"][rows].tolist(), strict=True)
    for (tree, path), total in zip(pairs, sums.total, strict=True):
        while path:
            totals[tree, path] = totals[tree, path] + total
            path //= 2
    inner = [(tree, path) for tree, path in totals if (tree, 2 * path) in totals]
    if not inner:
        return 0, 0
    whole = np.stack([totals[node] for node in inner])
    left = np.stack([totals[tree, 2 * path] for tree, path in inner])
    gain = model._gains(Sums(whole, left[:, None]))
    return int((gain <= 0).sum()), len(inner)


def replayed(
    model: Boosting,
    arrays: Arrays,
    old: Mapping[str, Array],
    rows: Integers,
    sums: Sums,
    tolerance: float = 0.0,
) -> Arrays:
    """Return ``arrays`` with one iteration of an earlier state, as far as its splits still hold.

    Parameters
    ----------
    model : Boosting
        How trees grow.
    arrays : Arrays
        State whose open nodes are the roots of the iteration.
    old : mapping
        Nodes of the earlier state, that iteration and those before it in ``arrays`` alone.
    rows : array
        The iteration's nodes in ``old`` that are not deepest, in order.
    sums : Sums
        At these nodes, with gradients of ``arrays``.
    tolerance : float, default 0
        Which splits hold: see :meth:`Boosting.kept`. 0: those that are the best, as if the
        iteration had been grown anew.

    Returns
    -------
    Arrays
        Nodes down to the first splits that differ; their children, and those of nodes that were
        leaves and are none now, are open.
    """
    pairs = zip(old["tree"][rows].tolist(), old["path"][rows].tolist(), strict=True)
    known = {pair: at for at, pair in enumerate(pairs)}
    chosen = model.kept(old, rows, sums, tolerance)
    holds = np.ones(len(rows), dtype=bool)
    holds[model.changed(old, rows, chosen)] = False
    state = arrays
    usable = np.ones(len(rows), dtype=bool)
    while len(opened := np.flatnonzero(state["feature"] == OPEN)):
        address = zip(state["tree"][opened].tolist(), state["path"][opened].tolist(), strict=True)
        index = np.array([known.get(pair, -1) for pair in address])
        there = index >= 0
        there[there] = usable[index[there]]
        if not there.any():
            break
        index = index[there]
        part = Sums(sums.total[index], sums.left[index])
        before = state
        state = model.decided(before, opened[there], part, chosen[index])
        if int(state["tree"].max()) > int(before["tree"].max()):
            break
        _stop_below(known, usable, old, rows, index[~holds[index] & (chosen[index] >= 0)])
    return state


def _stop_below(
    known: Mapping[tuple[int, int], int],
    usable: NDArray[np.bool_],
    old: Mapping[str, Array],
    rows: Integers,
    changed: Integers,
) -> None:
    """Mark in ``usable`` the old nodes right below changed splits: others stand there now."""
    for at in changed:
        tree, path = int(old["tree"][rows[at]]), int(old["path"][rows[at]])
        for child in (2 * path, 2 * path + 1):
            if (tree, child) in known:
                usable[known[tree, child]] = False

"""Trees whose split candidates come from a seed, not from data: how they grow, how they are walked.

A node is (tree, path): the root's path is 1, the children of p are 2p and 2p + 1. Which features
and thresholds a node may split on depends on (seed, tree, path) alone, so that a tree grown again
on fewer examples meets the same candidates. Thresholds are edges of bins of equal width over fixed
public ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError
from unlearning.protocol import Scalar, Settings

__all__ = [
    "LEAF",
    "NOWHERE",
    "OPEN",
    "Links",
    "Plan",
    "Tried",
    "ancestors",
    "closed_by_depth",
    "growing",
    "in_order",
    "joined",
    "keys",
    "last_rows",
    "level",
    "origins",
    "stretches",
    "structure",
    "taken",
    "ways",
]

Integers = NDArray[np.int64]
Bins = NDArray[np.uint8]

NOWHERE = -1  # in place of a feature in a way that is longer than the path
LEAF, OPEN = -1, -2  # in place of a feature: no split; not decided yet
_CHUNK = 1 << 18  # entries of one temporary array: what a processor's cache holds
_NEVER = 255  # no bin is larger: a threshold that sends nobody to the right
_PATHS = np.int64(1) << 42  # more than the deepest path's number


@dataclass(frozen=True)
class Plan:
    """What decides, together with the data, how trees grow.

    Parameters
    ----------
    seed : int
        Root of all candidates.
    inputs : int
        d, number of features.
    depth : int, default 10
        Largest number of splits on a path, 1 to 40.
    features : int, default 0
        Features tried at a node; 0: the square root of ``inputs``, rounded up.
    thresholds : int, default 8
        Thresholds tried per feature, spread over the range; ``bins - 1`` or more: all of them.
    bins : int, default 32
        Bins per feature, 2 to 256.
    low, high : float, default 0 and 1
        Public range of all features; values outside belong to the outermost bins.
    min_leaf : int, default 1
        Fewest examples on either side of a split.
    binary : str, default ""
        Columns known to hold two values only, such as those of one-hot categories, counted from 0:
        ``"6-107"`` or ``"2,5,9-12"``. One threshold is tried there, the middle of the range: the
        others would part the examples in the same way. A public fact of the table; it must not be
        read off the data.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    seed: int
    inputs: int
    depth: int = 10
    features: int = 0
    thresholds: int = 8
    bins: int = 32
    low: float = 0.0
    high: float = 1.0
    min_leaf: int = 1
    binary: str = ""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("depth", 1, 40),
            ("features", 0, self.inputs),
            ("thresholds", 1, 255),
            ("bins", 2, 256),
            ("min_leaf", 1, 2**31),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(
                    f"model.{name} is {getattr(self, name)!r}; it must be from {least} to {most}"
                )
        if not self.low < self.high:
            raise ConfigError(f"model.low = {self.low} is not below model.high = {self.high}")
        _ = self.is_binary

    def to_settings(self) -> dict[str, Scalar]:
        """Return plain values that :meth:`of` reads."""
        return {f"plan_{field.name}": getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def of(settings: Settings) -> Plan:
        """Return the plan that :meth:`to_settings` wrote among other settings."""
        return _plan(tuple(settings[name] for name in _WRITTEN))

    @property
    def width(self) -> int:
        """Number of candidates of a node, where no column is binary."""
        return self.num_features * self.num_thresholds

    @property
    def num_features(self) -> int:
        """Features tried at a node (F)."""
        return self.features or math.isqrt(self.inputs - 1) + 1

    @property
    def num_thresholds(self) -> int:
        """Thresholds tried of a feature that is not binary."""
        return min(self.thresholds, self.bins - 1)

    @property
    def middle(self) -> int:
        """The threshold of a binary feature."""
        return self.bins // 2 - 1

    @property
    def edges(self) -> Integers:
        """Where the stretches of bins begin that one threshold each is drawn from, and the end."""
        tried = self.num_thresholds
        return np.arange(tried + 1) * (self.bins - 1) // tried

    @property
    def stretch(self) -> Integers:
        """The stretch that each bin lies in, shape (bins,); read-only."""
        return _stretch(self.num_thresholds, self.bins)

    @property
    def is_binary(self) -> NDArray[np.bool_]:
        """Which features are binary, shape (d,)."""
        return _columns(self.binary, self.inputs)

    def shaped(self, flat: Array) -> Array:
        """Return what is known of each candidate, ``(K, ...)``, as ``(m, width, ...)``.

        Where columns are binary nodes differ in their numbers of candidates, and it stays flat.
        """
        return flat if self.binary else flat.reshape(-1, self.width, *flat.shape[1:])

    def binned(self, x: Array) -> Bins:
        """Return the bin of every value, 0 to ``bins - 1``, shape of ``x``."""
        x = np.asarray(x)
        found = np.empty(x.shape, dtype=np.uint8)
        step = max(1, _CHUNK // max(1, int(np.prod(x.shape[1:]))))
        for begin in range(0, len(x), step) if x.ndim else ():
            part = x[begin : begin + step].astype(np.float64)
            if (self.low, self.high) != (0.0, 1.0):  # else both steps change nothing
                part -= self.low
                part /= self.high - self.low
            part *= self.bins
            np.floor(part, out=part)
            np.clip(part, 0, self.bins - 1, out=part)
            found[begin : begin + step] = part
        return found

    def tried(self, tree: Array, path: Array) -> Tried:
        """Return what m nodes may split at; read-only. The last few answers are kept."""
        trees, paths = np.asarray(tree, np.int64), np.asarray(path, np.int64)
        return _tried(self, trees.tobytes(), paths.tobytes())

    def candidates(self, tree: Array, path: Array) -> tuple[Integers, Integers]:
        """Return features and thresholds tried at m nodes, each ``(m, width)``.

        An example goes left where its bin is at most the threshold. Where columns are binary, all
        candidates of all nodes follow each other, ``(K,)``.
        """
        found = self.tried(tree, path)
        return self.shaped(found.feature), self.shaped(found.threshold.astype(np.int64))


class Steps(NamedTuple):
    """What lies between the thresholds of F features at m nodes: one cell more than thresholds.

    Parameters
    ----------
    threshold : array, shape (K + m F,)
        The upper end of each cell, ascending for a feature; no value is beyond the last.
    begin : array, shape (m F,)
        Where the cells of each feature of each node begin.
    is_one : array, shape (m F,), or None
        Which features have a single threshold; None: none.
    slot : array, shape (K,)
        The feature, of all of all nodes, that each candidate belongs to.
    """

    threshold: Bins
    begin: Integers
    is_one: NDArray[np.bool_] | None
    slot: Integers


@dataclass(frozen=True, eq=False)
class Tried:
    """The candidates of m nodes: F features each, thresholds of each feature, K in all.

    Parameters
    ----------
    features : array, shape (m, F)
    start : array, shape (m F + 1,)
        Where the candidates of each feature of each node begin.
    threshold : array, shape (K,)
    """

    features: Integers
    start: Integers
    threshold: Bins

    @cached_property
    def steps(self) -> Steps:
        """The cells between the thresholds; for few nodes, since they are kept."""
        many = np.diff(self.start)
        slot = np.repeat(np.arange(len(many)), many)
        threshold = np.full(len(self.threshold) + len(many), _NEVER, dtype=np.uint8)
        threshold[np.arange(len(slot)) + slot] = self.threshold
        is_one = many == 1
        begin = self.start[:-1] + np.arange(len(many))
        return Steps(threshold, begin, is_one if is_one.any() else None, slot)

    @property
    def feature(self) -> Integers:
        """The feature of each candidate, shape (K,)."""
        return np.repeat(self.features.ravel(), np.diff(self.start))

    @property
    def begins(self) -> Integers:
        """Where the candidates of each node begin, shape (m + 1,)."""
        return self.start[:: self.features.shape[1]]

    def evenly(self, known: Array, every: int) -> Array:
        """Return what is known of each candidate, ``(K, ...)``, as ``(m, F every, ...)``.

        A feature with one threshold has it ``every`` times.
        """
        nodes, size = self.features.shape
        place = np.minimum(self.start[:-1, None] + np.arange(every), self.start[1:, None] - 1)
        return np.asarray(known[place].reshape(nodes, size * every, *known.shape[1:]))

    def at(self, chosen: Integers) -> tuple[Integers, Integers]:
        """Return feature and threshold of some candidates."""
        slot = np.searchsorted(self.start, chosen, side="right") - 1
        return self.features.ravel()[slot], self.threshold[chosen].astype(np.int64)


_WRITTEN = tuple(f"plan_{field.name}" for field in fields(Plan))


@lru_cache(maxsize=64)  # every message brings it
def _plan(values: tuple[Scalar, ...]) -> Plan:
    """Return the plan with some values, in the order of its fields."""
    kinds = {"low": float, "high": float, "binary": str}
    names = (field.name for field in fields(Plan))
    return Plan(**{name: kinds.get(name, int)(v) for name, v in zip(names, values, strict=True)})


@lru_cache
def _columns(binary: str, inputs: int) -> NDArray[np.bool_]:
    """Return the mask, shape (inputs,), of columns named as in ``"2,5,9-12"``; read-only.

    Raises
    ------
    ConfigError
        If a part names no column.
    """
    found = np.zeros(inputs, dtype=bool)
    for part in filter(None, (part.strip() for part in binary.split(","))):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ConfigError(
                f"model.binary: {part!r} is no column or range of columns, such as 6 or 6-107"
            )
        begin, end = int(first), int(last or first)
        if not begin <= end < inputs:
            raise ConfigError(f"model.binary: {part!r} is not among the columns 0 to {inputs - 1}")
        found[begin : end + 1] = True
    found.flags.writeable = False
    return found


@lru_cache
def _stretch(tried: int, bins: int) -> Integers:
    """Return the number of the stretch that each bin lies in; read-only."""
    edges = np.arange(tried + 1) * (bins - 1) // tried
    found = np.searchsorted(edges, np.arange(bins), side="right") - 1
    found.flags.writeable = False
    return np.asarray(found)


@lru_cache(maxsize=4)  # server and clients of one process ask for the same nodes in turn
def _tried(plan: Plan, trees: bytes, paths: bytes) -> Tried:
    tree, path = np.frombuffer(trees, np.int64), np.frombuffer(paths, np.int64)
    here = _hashed(_hashed(_hashed(np.zeros(1), np.array([plan.seed])), tree), path)
    features = _features(plan, here)
    size, tried = plan.num_features, plan.num_thresholds
    is_binary = plan.is_binary[features].ravel()
    start = np.concatenate([[0], np.cumsum(np.where(is_binary, 1, tried))])
    threshold = np.full(start[-1], plan.middle, dtype=np.uint8)
    slots = np.flatnonzero(~is_binary)
    edges = plan.edges
    step = max(1, _CHUNK // tried)
    for begin in range(0, len(slots), step):
        some = slots[begin : begin + step]
        number = (some % size * tried)[:, None] + np.arange(1, tried + 1)
        drawn = _hashed(here[some // size][:, None], number << 32)
        offset = drawn % np.diff(edges).astype(np.uint64)
        place = start[some][:, None] + np.arange(tried)
        threshold[place] = edges[:-1] + offset.astype(np.int64)
    for array in (features, start, threshold):
        array.flags.writeable = False
    return Tried(features, start, threshold)


def _features(plan: Plan, here: NDArray[np.uint64]) -> Integers:
    """Return the features tried at nodes: those with the smallest draws, in order of the draws.

    The last bits of a draw give way to the feature's number: numbers alone are sorted, in half the
    time that their positions take.
    """
    size, inputs = plan.num_features, plan.inputs
    if size == inputs:
        return np.tile(np.arange(size), (len(here), 1))
    found = np.empty((len(here), size), dtype=np.int64)
    number = np.arange(inputs, dtype=np.uint64)
    last = np.uint64((1 << (inputs - 1).bit_length()) - 1)
    step = max(1, _CHUNK // inputs)
    for begin in range(0, len(here), step):
        draw = _hashed(here[begin : begin + step, None], np.arange(1, inputs + 1)[None])
        draw &= ~last
        draw |= number
        draw.partition(size - 1, axis=1)
        found[begin : begin + step] = np.sort(draw[:, :size], axis=1) & last
    return found


def _hashed(state: Array, value: Array) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits of two numbers (the finaliser of SplitMix64)."""
    mixed = np.asarray(state).astype(np.uint64)
    mixed = mixed + (np.asarray(value).astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray(mixed)


def stretches(begin: Integers, size: Integers) -> Integers:
    """Return the positions begin, begin + 1, ... of stretches of some sizes, one after the other.

    >>> stretches(np.array([3, 10]), np.array([2, 1])).tolist()
    [3, 4, 10]
    """
    shift = np.cumsum(size) - size
    return np.repeat(begin - shift, size) + np.arange(int(size.sum()))


def level(path: Array) -> Integers:
    """Return how many splits lie above each node."""
    return np.frexp(np.asarray(path, dtype=np.float64))[1].astype(np.int64) - 1


def closed_by_depth(plan: Plan, path: Array) -> NDArray[np.bool_]:
    """Return which nodes may not be split because they lie deepest."""
    return np.asarray(level(path) >= plan.depth)


def keys(tree: Array, path: Array) -> Integers:
    """Return one number per node, in the order of nodes: by tree, then by path."""
    return np.asarray(tree, np.int64) * _PATHS + np.asarray(path, np.int64)


def in_order(tree: Array, path: Array) -> Integers:
    """Return the positions that put nodes into their one order: by tree, then by path."""
    return np.argsort(keys(tree, path), kind="stable").astype(np.int64)


def origins(old: Mapping[str, Array], grown: Mapping[str, Array]) -> Integers:
    """Return where each node comes from where others come among old ones; both are in order.

    It is a position in the old ones and then the others, one after the other. No node is in both.
    """
    place = np.searchsorted(keys(old["tree"], old["path"]), keys(grown["tree"], grown["path"]))
    return np.insert(np.arange(len(old["tree"])), place, len(old["tree"]) + np.arange(len(place)))


def taken(old: Mapping[str, Array], grown: Mapping[str, Array], origin: Integers) -> Arrays:
    """Return nodes from where they come: positions as of :func:`origins`."""
    return {
        name: np.concatenate([array, grown[name]], dtype=array.dtype).take(origin, 0)
        for name, array in old.items()
    }


def joined(old: Mapping[str, Array], grown: Mapping[str, Array]) -> Arrays:
    """Return nodes with others among them, in order."""
    return taken(old, grown, origins(old, grown))


class Links(NamedTuple):
    """Nodes as a walk needs them: an end is its own child and turns nobody to the right.

    Parameters
    ----------
    keys, child, feature, threshold : array, shape (num_nodes + 1,)
        Of the nodes in order and, last, of a node that stands for none.
    is_inner : array, shape (num_nodes + 1,)
    roots : array, shape (num_trees,)
    """

    keys: Integers
    child: Integers
    feature: Integers
    threshold: Bins
    is_inner: NDArray[np.bool_]
    roots: Integers

    @staticmethod
    def of(nodes: Mapping[str, Array]) -> Links:
        """Return the links between nodes, ``tree``, ``path``, ``feature``, ``threshold``."""
        key = keys(nodes["tree"], nodes["path"])
        inner = np.append(np.asarray(nodes["feature"]) >= 0, [False])
        child = np.arange(len(key) + 1)
        split = np.flatnonzero(inner)
        child[split] = np.searchsorted(key, key[split] + nodes["path"][split])
        feature = np.append(nodes["feature"], 0).astype(np.int64)
        feature[~inner] = 0
        threshold = np.append(nodes["threshold"], 0).astype(np.uint8)
        threshold[~inner] = _NEVER
        roots = np.flatnonzero(np.asarray(nodes["path"]) == 1)
        end = np.append(key, np.iinfo(np.int64).max)
        return Links(end, child, feature, threshold, inner, roots)

    def walked(self, at: Integers, bins: Bins) -> Integers:
        """Return where examples end up, ``(n, T)``, from where they stand; changes ``at``."""
        flat, width = np.ravel(bins), bins.shape[1]
        step = max(1, _CHUNK // max(1, at.shape[1]))
        for begin in range(0, len(at), step):
            here = at[begin : begin + step]
            base = np.arange(begin, begin + len(here))[:, None] * width
            while self.is_inner.take(here).any():
                right = flat.take(self.feature.take(here) + base) > self.threshold.take(here)
                here = self.child.take(here) + right
            at[begin : begin + step] = here
        return at


def last_rows(nodes: Mapping[str, Array], bins: Bins) -> Integers:
    """Return the node where each example ends up in each tree, ``(num_trees, n)``."""
    links = Links.of(nodes)
    return links.walked(np.tile(links.roots, (len(bins), 1)), bins).T


def ancestors(nodes: Mapping[str, Array], rows: Integers) -> NDArray[np.bool_]:
    """Return which nodes are those in ``rows`` or lie above one of them."""
    key = keys(nodes["tree"], nodes["path"])
    found = np.zeros(len(key), dtype=bool)
    while len(rows):
        found[rows] = True
        rows = rows[nodes["path"][rows] > 1]
        up = keys(nodes["tree"][rows], nodes["path"][rows] // 2)
        rows = np.searchsorted(key, up[np.diff(up, prepend=-1) > 0])
        rows = rows[~found[rows]]
    return found


def ways(nodes: Mapping[str, Array], tree: Array, path: Array) -> NDArray[np.int32]:
    """Return feature and threshold of the splits above some nodes, shape (m', L, 2), L at least 1.

    From the root down; the bits of a node's path say which side of each it lies on. Shorter ways
    end in ``NOWHERE``. The nodes above are among ``nodes``, which are in order.
    """
    depth = level(path)
    deepest = int(depth.max(initial=0))
    found = np.full((len(path), max(1, deepest), 2), NOWHERE, dtype=np.int32)
    key = keys(nodes["tree"], nodes["path"])
    for number in range(deepest):
        here = depth > number
        at = np.searchsorted(key, keys(tree[here], path[here] >> (depth[here] - number)))
        found[here, number, 0] = nodes["feature"][at]
        found[here, number, 1] = nodes["threshold"][at]
    return found


def growing(arrays: Mapping[str, Array]) -> Arrays:
    """Return the open nodes and the ways to them; what hangs off a way is a leaf."""
    wanted = ancestors(arrays, np.flatnonzero(arrays["feature"] == OPEN))
    above = wanted & (arrays["feature"] >= 0)
    beside = above.copy()
    beside[Links.of(arrays).child[:-1][above]] = True
    beside[Links.of(arrays).child[:-1][above] + 1] = True
    chosen = wanted | beside
    found = {name: array[chosen] for name, array in structure(arrays).items()}
    found["feature"] = np.where(wanted[chosen], found["feature"], LEAF).astype(np.int32)
    return found


def structure(arrays: Mapping[str, Array]) -> Arrays:
    """Return what a client has to know of the trees."""
    return {name: arrays[name] for name in ("tree", "path", "feature", "threshold")}

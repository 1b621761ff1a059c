"""A forest's counts left of its candidates, block by block: one block for each inner node.

A deletion changes few of thousands of blocks. They are put together and hashed as blocks, so that
a request costs little more than what it changes.

Shapes: m nodes, C classes, K candidates of all inner nodes.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays, frozen
from unlearning.models import trees
from unlearning.models.trees import Plan, stretches

__all__ = ["Blocks", "Grown", "Pruned", "block_hashes", "patched", "spliced"]

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint8]

_WIDTH = hashlib.sha256().digest_size

# The hashes of the blocks of frozen arrays that are in use, by address; gone with the array.
_hashes: dict[int, tuple[weakref.ref[Array], Hashes]] = {}


class Forest(Protocol):
    """What is needed here of the forest of :mod:`unlearning.models.forest`."""

    num_classes: int
    plan: Plan

    def sizes(self, arrays: Mapping[str, Array]) -> Integers:
        """Return how many candidates every inner node has."""


class Blocks:
    """The counts left of the candidates of a state, and where those of each node lie.

    Parameters
    ----------
    forest : Forest
        How it grows.
    arrays : mapping of str to array
        Its state.

    Attributes
    ----------
    left : array, shape (K, C)
    sizes, begins : array, shape (m,)
        How many candidates a node has, 0 where it is not inner, and where they begin.
    """

    def __init__(self, forest: Forest, arrays: Mapping[str, Array]) -> None:
        is_inner = arrays["feature"] >= 0
        self.sizes = np.zeros(len(is_inner), dtype=np.int64)
        self.sizes[is_inner] = forest.sizes(arrays)
        self.begins = np.cumsum(self.sizes) - self.sizes
        self.left = arrays["left"].reshape(-1, forest.num_classes)
        self._arrays = arrays
        self._last: tuple[Integers, Integers] | None = None

    def of(self, rows: Integers) -> Integers:
        """Return the blocks of some inner nodes, one after the other."""
        return self.left.take(self.places(rows), 0).astype(np.int64)

    def places(self, rows: Integers) -> Integers:
        """Return where the blocks of some inner nodes lie in ``left``; the last are known."""
        if self._last is None or self._last[0] is not rows:
            self._last = rows, stretches(self.begins[rows], self.sizes[rows])
        return self._last[1]

    @property
    def tried(self) -> Array:
        """How many candidates each inner node has."""
        if "tried" in self._arrays:
            return self._arrays["tried"]
        return self.sizes[self.sizes > 0].astype(np.int32)

    @property
    def hashes(self) -> Hashes | None:
        """The SHA-256 of every block, shape (num_inner, 32), where it is known; read-only."""
        return _known(self._arrays["left"])

    def hashed(self) -> Hashes:
        """Return the SHA-256 of every block; of a frozen array they are worked out once."""
        known = self.hashes
        if known is None:
            rows, whole = np.flatnonzero(self.sizes), self._arrays["left"]
            known = _hashed(self.left, self.begins[rows], self.sizes[rows])
            if not whole.flags.writeable and whole.base is None:
                _note(whole, known)
        return known


def block_hashes(forest: Forest, arrays: Mapping[str, Array]) -> Hashes:
    """Return the SHA-256 of every block of a state; of a frozen one they are worked out once."""
    known = _known(arrays["left"])
    return Blocks(forest, arrays).hashed() if known is None else known


def _known(whole: Array) -> Hashes | None:
    found = _hashes.get(id(whole))
    return found[1] if found is not None and found[0]() is whole else None


class Grown(NamedTuple):
    """Nodes to put into a forest, in order.

    Parameters
    ----------
    nodes : Arrays
        ``tree``, ``path``, ``feature``, ``threshold``, ``counts``.
    sizes : array, shape (m,)
        Candidates of each node; 0 where it is not inner.
    left : array, shape (K, C)
        Their blocks.
    """

    nodes: Arrays
    sizes: Integers
    left: Array

    @staticmethod
    def bare(forest: Forest, nodes: Arrays) -> Grown:
        """Return nodes none of which is inner."""
        none = np.zeros((0, forest.num_classes), dtype=np.int32)
        return Grown(nodes, np.zeros(len(nodes["tree"]), dtype=np.int64), none)

    @staticmethod
    def joined(pieces: Sequence[Grown]) -> Grown:
        """Return several, at least one, in the one order of nodes."""
        names = pieces[0].nodes
        whole = {name: np.concatenate([one.nodes[name] for one in pieces]) for name in names}
        sizes = np.concatenate([one.sizes for one in pieces])
        left = np.concatenate([one.left for one in pieces])
        order = trees.in_order(whole["tree"], whole["path"])
        place = stretches((np.cumsum(sizes) - sizes)[order], sizes[order])
        return Grown({n: array[order] for n, array in whole.items()}, sizes[order], left[place])


@dataclass(frozen=True)
class Pruned:
    """A forest out of which examples were taken, not yet put together.

    What grows again can grow first, so that all of it is copied once.

    Parameters
    ----------
    forest : Forest
        How it grows.
    nodes : Arrays
        Its nodes as they are now, with those that hung below splits that changed.
    blocks : Blocks
        As they were before.
    keep : array of bool, shape (m,)
        The nodes that stay.
    grown : Grown
        Those that come, open ones and leaves.
    rows, mine : array
        Inner nodes whose blocks changed, in order, and these blocks.
    rests : Arrays
        ``clients`` and ``examples``, what it rests on.
    """

    forest: Forest
    nodes: Arrays
    blocks: Blocks
    keep: NDArray[np.bool_]
    grown: Grown
    rows: Integers
    mine: Array
    rests: Arrays

    def merged(self, grown: Grown | None = None) -> Arrays:
        """Return the forest, with ``grown`` in place of what comes."""
        comes = self.grown if grown is None else grown
        if not len(comes.sizes) and self.keep.all():
            after = patched(self.forest, self.nodes, self.blocks, self.rows, self.mine)
        else:
            after = spliced(
                self.forest, self.nodes, self.blocks, self.keep, comes, self.rows, self.mine
            )
        return {**after, **self.rests}


def patched(forest: Forest, nodes: Arrays, blocks: Blocks, rows: Integers, mine: Array) -> Arrays:
    """Return a state with the same nodes, the blocks of some of them replaced.

    Parameters
    ----------
    forest : Forest
        How it grows.
    nodes : Arrays
        Its nodes.
    blocks : Blocks
        As they were before.
    rows : array
        Inner nodes, in order.
    mine : array, shape (K', C)
        Their blocks now.
    """
    whole, flat = _empty(forest, int(np.count_nonzero(blocks.sizes)), len(blocks.left))
    flat[:] = blocks.left
    _place(flat, blocks.places(rows), mine)
    hashes = None
    if (known := blocks.hashes) is not None:
        hashes = known.copy()
        _renew(hashes, rows, flat, blocks.sizes, blocks.begins)
    return _state(forest, nodes, whole, blocks.tried, hashes)


def spliced(
    forest: Forest,
    nodes: Arrays,
    blocks: Blocks,
    keep: NDArray[np.bool_],
    grown: Grown,
    rows: Integers,
    mine: Array,
) -> Arrays:
    """Return a state without some nodes and with others among those that are left.

    Parameters
    ----------
    forest : Forest
        How it grows.
    nodes : Arrays
        Its nodes; one that is no longer inner loses its block.
    blocks : Blocks
        As they were before.
    keep : array of bool, shape (m,)
        The nodes that stay.
    grown : Grown
        Those that come; none of them is among those that stay.
    rows, mine : array
        As for :func:`patched`.
    """
    stays, kept = keep & (nodes["feature"] >= 0), np.flatnonzero(keep)
    among = trees.origins({name: nodes[name][kept] for name in ("tree", "path")}, grown.nodes)
    is_old = among < len(kept)
    places = np.flatnonzero(is_old)
    origin = np.append(kept, len(keep) + np.arange(len(grown.sizes))).take(among)
    joined = trees.taken(nodes, grown.nodes, origin)
    sizes = np.append(blocks.sizes * stays, grown.sizes).take(origin)
    inner = sizes > 0
    begins = np.cumsum(sizes) - sizes
    whole, flat = _empty(forest, int(np.count_nonzero(inner)), int(sizes.sum()))
    _copy(flat, blocks, np.flatnonzero(stays), grown, is_old[inner])
    # What was replaced and is still there goes to where it lies now.
    there = np.repeat(stays[rows], blocks.sizes[rows])
    now = places[np.searchsorted(kept, rows[stays[rows]])]
    _place(flat, stretches(begins[now], sizes[now]), mine[there])
    hashes = None
    if (known := blocks.hashes) is not None:
        number = np.append(np.cumsum(blocks.sizes > 0) - 1, np.full(len(grown.sizes), len(known)))
        blank = np.zeros((1, _WIDTH), np.uint8)  # of those that come, hashed below
        hashes = np.concatenate([known, blank]).take(number.take(origin[inner]), 0)
        _renew(hashes, np.union1d(now, np.flatnonzero(~is_old & inner)), flat, sizes, begins)
    return _state(forest, joined, whole, sizes[inner].astype(np.int32), hashes)


def _copy(
    flat: Array, blocks: Blocks, rows: Integers, grown: Grown, is_old: NDArray[np.bool_]
) -> None:
    """Fill in blocks of old and new inner nodes, in the order of a mask, in few stretches."""
    own = np.flatnonzero(grown.sizes)
    sizes = np.empty(len(is_old), dtype=np.int64)
    source = np.empty(len(is_old), dtype=np.int64)
    sizes[is_old], sizes[~is_old] = blocks.sizes[rows], grown.sizes[own]
    source[is_old] = blocks.begins[rows]
    source[~is_old] = (np.cumsum(grown.sizes) - grown.sizes)[own]
    breaks = np.ones(len(is_old), dtype=bool)
    breaks[1:] = (source[1:] != source[:-1] + sizes[:-1]) | (is_old[1:] != is_old[:-1])
    first = np.flatnonzero(breaks)
    target = np.append(np.cumsum(sizes) - sizes, sizes.sum())
    ends = np.append(first, len(is_old))[1:]
    for begin, to, end, was in zip(
        source[first].tolist(),
        target[first].tolist(),
        target[ends].tolist(),
        is_old[first].tolist(),
        strict=True,
    ):
        flat[to:end] = (blocks.left if was else grown.left)[begin : begin + end - to]


def _place(flat: Array, places: Integers, rows: Array) -> None:
    """Put rows into their places, each row as one piece of memory: a sixth of the time."""
    if len(places):
        whole = np.dtype((np.void, flat.itemsize * flat.shape[1]))
        flat.view(whole)[places, 0] = rows.astype(flat.dtype).view(whole)[:, 0]


def _empty(forest: Forest, num_inner: int, num_candidates: int) -> tuple[Array, Array]:
    """Return an array for a state's blocks, in the state's own shape, and the same one flat."""
    flat_shape = num_candidates, forest.num_classes
    shape = flat_shape if forest.plan.binary else (num_inner, forest.plan.width, flat_shape[1])
    whole = np.empty(shape, dtype=np.int32)
    return whole, whole.reshape(flat_shape)


def _state(
    forest: Forest, nodes: Arrays, whole: Array, tried: Array, hashes: Hashes | None
) -> Arrays:
    """Return a state that nobody can write to; what is known of its blocks is noted."""
    whole.flags.writeable = False
    if hashes is not None:
        _note(whole, hashes)
    # All but the counts may still be those of the state before, which is not ours.
    kept = {name: frozen(array, own=name == "counts") for name, array in nodes.items()}
    return {**kept, "left": whole, **({"tried": frozen(tried)} if forest.plan.binary else {})}


def _renew(hashes: Hashes, rows: Integers, flat: Array, sizes: Integers, begins: Integers) -> None:
    """Hash the blocks of some nodes again."""
    number = (np.cumsum(sizes > 0) - 1)[rows]
    hashes[number] = _hashed(flat, begins[rows], sizes[rows])


def _hashed(flat: Array, begins: Integers, sizes: Integers) -> Hashes:
    """Return the SHA-256 of some blocks, shape (m', 32)."""
    row = flat.shape[1] * flat.itemsize
    data = np.ascontiguousarray(flat).reshape(-1).view(np.uint8).data if flat.size else b""
    ends, sha256 = begins + sizes, hashlib.sha256
    places = zip((begins * row).tolist(), (ends * row).tolist(), strict=True)
    whole = b"".join([sha256(data[begin:end]).digest() for begin, end in places])
    return np.array(np.frombuffer(whole, np.uint8).reshape(-1, _WIDTH))  # no view: to be frozen


def _note(array: Array, hashes: Hashes) -> None:
    """Note what is known of the blocks of a frozen array."""
    key = id(array)
    hashes.flags.writeable = False
    _hashes[key] = weakref.ref(array, lambda gone: _hashes.pop(key, None)), hashes

"""Federated k-means whose seeds can be forgotten exactly.

Each client seeds clusters on its own data by the rule of k-means++ and reports only cells of a
grid and how many of its examples lie nearest to each; the server clusters these cells.

The seeds are drawn by an exponential race instead of a cumulative sum: example i has a clock
E_ij ~ Exp(1) for draw j, and the one with the smallest E_ij / D^2(i) wins, which happens with
probability D^2(i) / sum D^2. A clock belongs to its example for good, so taking away an example
that did not win changes no seed, and drawing again without a winner gives what it would have been
had that example never been there: the same seeds, bit for bit.

References
----------
Pan, Sima, Prakash, Rana, Milenkovic, "Machine Unlearning of Federated Clusters", ICLR 2023
(arXiv 2210.16424). The race is our choice; the paper draws anew, exact in distribution.

Shapes: n examples, d features, K clusters, C classes, m cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cells", "census", "classify", "cluster", "merge", "nearest", "quantise", "race", "seed"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """What one client reports: cells of the grid and the classes of the examples near them.

    Parameters
    ----------
    bins : array of int64, shape (m, d)
        Cells that hold a seed; one may appear more than once.
    counts : array of int64, shape (m, C)
        Examples nearest to each seed, by class. Their sum is what k-means uses; the classes serve
        to read clusters as classes (our extension).
    """

    bins: Integers
    counts: Integers


def race(address: Sequence[int], draw: int, size: int) -> Floats:
    """Return the clocks of one draw, one per example ever held, shape (size,).

    They are drawn in order of position, so an example keeps its clock whatever happens to others.
    """
    return np.random.default_rng([*address, draw]).exponential(size=size)


def seed(
    rows: Floats,
    positions: Integers,
    size: int,
    num_clusters: int,
    address: Sequence[int],
    kept: Sequence[int] = (),
) -> Integers:
    """Return the positions of up to K seeds among the examples that are there.

    Parameters
    ----------
    rows : array, shape (n, d)
        Examples.
    positions : array of int64, shape (n,)
        Where they stand in the client's training set, ascending.
    size : int
        Examples the client ever held.
    num_clusters : int
        K.
    address : sequence of int
        Of the client's randomness.
    kept : sequence of int
        Seeds already known, the first of the sequence; none has been taken away.

    Returns
    -------
    array of int64
        Fewer than K where the remaining examples coincide with seeds.
    """
    chosen = list(kept)
    distance = np.full(len(rows), np.inf)
    for known in chosen:
        there = int(np.searchsorted(positions, known))
        distance = np.minimum(distance, _squared(rows, rows[there]))
    for draw in range(len(chosen), min(num_clusters, len(rows))):
        weight = np.ones(len(rows)) if draw == 0 else distance
        clocks = race(address, draw, size)[positions]
        with np.errstate(divide="ignore"):
            times = np.where(weight > 0, clocks / weight, np.inf)
        winner = int(times.argmin())
        if not np.isfinite(times[winner]):
            break
        chosen.append(int(positions[winner]))
        distance = np.minimum(distance, _squared(rows, rows[winner]))
    return np.array(chosen, np.int64)


def nearest(rows: Floats, centres: Floats) -> Integers:
    """Return the index of the nearest centre, the first of equals, shape (n,)."""
    # Each distance is computed from its own example alone: no result depends on its neighbours.
    found = np.zeros(len(rows), np.int64)
    best = np.full(len(rows), np.inf)
    for index, centre in enumerate(centres):
        distance = _squared(rows, centre)
        closer = distance < best
        found[closer], best[closer] = index, distance[closer]
    return found


def census(rows: Floats, labels: Integers, centres: Floats, num_classes: int) -> Integers:
    """Return how many examples of each class are nearest to each centre, shape (m, C)."""
    counts = np.zeros((len(centres), num_classes), np.int64)
    if len(centres):
        np.add.at(counts, (nearest(rows, centres), labels), 1)
    return counts


def quantise(centres: Floats, step: float) -> Integers:
    """Return the cells of side ``step`` (gamma) that centres lie in, shape (m, d)."""
    return np.floor(centres / step).astype(np.int64)


def merge(parts: Iterable[Cells]) -> Cells:
    """Return the reports as one multiset: equal cells are one, in lexicographic order.

    So nothing but the multiset itself reaches the server's clustering: not who sent what, and not
    in which order.
    """
    found = list(parts)
    every = np.concatenate([part.bins for part in found]).astype(np.int64)
    # As bytes, the largest first and the sign turned over, rows are compared whole: in the same
    # order, in less time.
    turned = (every ^ np.iinfo(np.int64).min).astype(">i8")
    rows = np.ascontiguousarray(turned).view(np.dtype((np.void, 8 * every.shape[1])))[:, 0]
    _, first, index = np.unique(rows, return_index=True, return_inverse=True)
    bins = every[first]
    counts = np.zeros((len(bins), found[0].counts.shape[1]), np.int64)
    np.add.at(counts, index.reshape(-1), np.concatenate([part.counts for part in found]))
    filled = counts.sum(1) > 0
    return Cells(bins[filled], counts[filled])


def cluster(
    cells: Cells,
    step: float,
    num_clusters: int,
    address: Sequence[int],
    *,
    restarts: int = 10,
    iterations: int = 300,
) -> tuple[Floats, Integers]:
    """Return centroids (K, d) and the classes of the examples they stand for (K, C).

    Of every cell one point is drawn uniformly and weighted by the cell's count (our choice; drawn
    count times, the server's work would grow with the number of examples). Weighted k-means++ and
    Lloyd iterations follow; the best of ``restarts`` is kept. Fewer than K cells give as many
    centroids. The result is a function of cells and address alone.
    """
    generator = np.random.default_rng(address)
    points = (cells.bins + generator.random(cells.bins.shape)) * step
    weight = cells.counts.sum(1).astype(np.float64)
    number = min(num_clusters, len(points))
    if not number:
        return points, cells.counts
    there = _Points(points, weight)
    tries = (there.settled(there.seeded(number, generator), iterations) for _ in range(restarts))
    shares = min(tries, key=there.loss)  # the first of equals
    counts = np.zeros((len(shares), cells.counts.shape[1]), np.int64)
    np.add.at(counts, there.owners(shares)[0], cells.counts)
    return shares @ points, counts


def classify(centres: Floats, counts: Integers, rows: Floats) -> Floats:
    """Return the class shares of the nearest cluster, shape (n, C).

    Each class that is left anywhere counts half an example more, so that no share of it is 0; one
    that is gone has none. Without centres all classes are equally likely.
    """
    num_classes = counts.shape[1]
    if not len(centres):
        return np.full((len(rows), num_classes), 1 / num_classes)
    smoothed = counts + 0.5 * (counts.sum(0) > 0)
    shares = smoothed / smoothed.sum(1, keepdims=True)
    return np.asarray(shares[nearest(rows, centres)])


def _squared(rows: Floats, point: Floats) -> Floats:
    """Return the squared distance of each row to a point (or to its own), shape (n,)."""
    return np.asarray(np.square(rows - point).sum(1))


class _Points:
    """The server's points and their weights; centres are told by shares, centre = share @ points.

    All distances then follow from the points' inner products, which are worked out once. How a
    product of matrices rounds may depend on the number of points, which is the same whenever the
    cells are; a client's examples come and go, so it must use :func:`nearest`.
    """

    def __init__(self, points: Floats, weight: Floats) -> None:
        self._points, self._weight = points, weight
        self._squares = np.square(points).sum(1)
        small = len(points) <= max(points.shape[1], 1024)
        self._gram = points @ points.T if small else None

    def _products(self, shares: Floats) -> Floats:
        """Return the inner products of points and centres, shape (m, K)."""
        if self._gram is not None:
            return np.asarray(self._gram @ shares.T)
        return np.asarray(self._points @ (shares @ self._points).T)

    def owners(self, shares: Floats) -> tuple[Integers, Floats]:
        """Return the index of each point's nearest centre, and its squared distance."""
        products = self._products(shares)
        lengths = np.einsum("km,mk->k", shares, products)
        distance = lengths - 2 * products
        owner = distance.argmin(1)
        return owner, distance[np.arange(len(owner)), owner] + self._squares

    def loss(self, shares: Floats) -> float:
        """Return the weighted sum of squared distances."""
        return float(self._weight @ self.owners(shares)[1])

    def seeded(self, number: int, generator: np.random.Generator) -> Floats:
        """Return up to ``number`` points as centres, by the rule of k-means++."""
        chosen: list[int] = []
        distance = np.ones(len(self._points))
        for _ in range(number):
            mass = np.cumsum(self._weight * distance)
            if not mass[-1] > 0:
                break
            last = int(np.searchsorted(mass, generator.random() * mass[-1], side="right"))
            if self._gram is not None:
                products = self._gram[last]
            else:
                products = self._points @ self._points[last]
            away = np.maximum(self._squares + self._squares[last] - 2 * products, 0)
            away[last] = 0
            distance = np.minimum(distance, away) if chosen else away
            chosen.append(last)
        shares = np.zeros((len(chosen), len(self._points)))
        shares[np.arange(len(chosen)), chosen] = 1
        return shares

    def settled(self, shares: Floats, iterations: int) -> Floats:
        """Return the centres after Lloyd iterations; one that loses all its points stays."""
        before: Integers | None = None
        every = np.arange(len(self._points))
        for _ in range(iterations):
            owner, _ = self.owners(shares)
            if before is not None and np.array_equal(owner, before):
                break
            before = owner
            heavy = np.zeros_like(shares)
            heavy[owner, every] = self._weight
            mass = heavy.sum(1)
            filled = mass > 0
            heavy /= np.where(filled, mass, 1)[:, None]
            shares = np.where(filled[:, None], heavy, shares)
        return shares

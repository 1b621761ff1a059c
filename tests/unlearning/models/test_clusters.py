"""Federated k-means: seeding, its exact removal, and the server's clustering (oracle 24)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from unlearning.models.clusters import Cells, census, classify, cluster, merge, quantise, seed

ADDRESS = [3, 1, 4]


def _rows(size: int = 40) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(size, 3))


def test_removing_an_example_that_is_no_seed_keeps_every_seed():
    rows = _rows()
    seeds = seed(rows, np.arange(40), 40, 6, ADDRESS)
    for gone in np.setdiff1d(np.arange(40), seeds):
        left = np.delete(np.arange(40), gone)
        np.testing.assert_array_equal(seed(rows[left], left, 40, 6, ADDRESS), seeds)


@settings(max_examples=40)
@given(st.permutations(range(40)), st.integers(1, 38))
def test_redrawing_from_the_first_removed_seed_equals_seeding_afresh(order, number):
    rows, there = _rows(), np.arange(40)
    seeds = seed(rows, there, 40, 6, ADDRESS)
    for gone in order[:number]:
        there = there[there != gone]
        kept = seeds[: int(np.argmax(seeds == gone))] if gone in seeds else seeds
        seeds = seed(rows[there], there, 40, 6, ADDRESS, kept.tolist())
    np.testing.assert_array_equal(seeds, seed(rows[there], there, 40, 6, ADDRESS))


def test_after_removal_seeds_are_distributed_as_fresh_ones():
    """Five points on a line, two seeds; P(first, second) = 1/4 d^2 / sum d^2 without point 4."""
    rows = np.array([[0.0], [1.0], [3.0], [4.0], [10.0]])
    observed = np.zeros((4, 4))
    trials = 8000
    for trial in range(trials):
        seeds = seed(rows, np.arange(5), 5, 2, [trial])
        kept = seeds[: int(np.argmax(seeds == 4))] if 4 in seeds else seeds
        first, second = seed(rows[:4], np.arange(4), 5, 2, [trial], kept.tolist())
        observed[first, second] += 1
    squares = np.square(rows[:4] - rows[:4].T)
    expected = trials * squares / squares.sum(1, keepdims=True) / 4
    off = ~np.eye(4, dtype=bool)
    assert chisquare(observed[off], expected[off]).pvalue > 1e-3


def test_fewer_points_than_clusters_and_coinciding_points():
    rows = np.array([[1.0], [1.0], [2.0]])
    assert len(seed(rows, np.arange(3), 3, 5, ADDRESS)) == 2
    assert len(seed(rows[:0], np.arange(0), 3, 5, ADDRESS)) == 0


def test_cells_are_a_multiset():
    a = Cells(np.array([[1, 2], [0, 1]]), np.array([[1, 0], [2, 1]]))
    b = Cells(np.array([[1, 2], [5, 5]]), np.array([[0, 3], [0, 0]]))
    for parts in ([a, b], [b, a]):
        merged = merge(parts)
        np.testing.assert_array_equal(merged.bins, [[0, 1], [1, 2]])
        np.testing.assert_array_equal(merged.counts, [[2, 1], [1, 3]])


def test_the_server_finds_well_separated_clusters():
    generator = np.random.default_rng(0)
    truth = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = generator.integers(3, size=300)
    rows = truth[labels] + generator.normal(scale=0.03, size=(300, 2))
    seeds = seed(rows, np.arange(300), 300, 12, ADDRESS)
    counts = census(rows, labels, rows[seeds], 3)
    assert counts.sum() == 300
    cells = Cells(quantise(rows[seeds], 0.01), counts)
    centres, classes = cluster(merge([cells]), 0.01, 3, ADDRESS)
    assert (classify(centres, classes, rows).argmax(1) == labels).mean() > 0.99
    gap = np.abs(centres[:, None] - truth[None]).max(2).min(1)
    assert gap.max() < 0.1


def test_quantisation_is_a_floor():
    np.testing.assert_array_equal(quantise(np.array([[0.25, -0.01]]), 0.1), [[2, -1]])


def test_no_centre_and_a_class_that_is_gone():
    rows = _rows(4)
    np.testing.assert_allclose(classify(rows[:0], np.zeros((0, 4), np.int64), rows), 0.25)
    shares = classify(rows[:2], np.array([[3, 0, 0], [0, 0, 5]]), rows)
    assert (shares[:, 1] == 0).all()
    assert (shares[:, [0, 2]] > 0).all()
    np.testing.assert_allclose(shares.sum(1), 1)

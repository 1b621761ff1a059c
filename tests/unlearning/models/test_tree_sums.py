"""Counting at the nodes of trees: equal to counting example by example, in one pass per level."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models import tree_sums, trees
from unlearning.models.forest import Forest
from unlearning.models.forest_counts import counts_of_forgotten, counts_of_open
from unlearning.models.tree_sums import (
    Classes,
    Standing,
    Table,
    Values,
    left_by_pair,
    passed,
    reaching,
    summed,
)
from unlearning.models.trees import OPEN, Links, Plan
from unlearning.protocol import Reply

CLASSES = 3
MIXED = Plan(seed=1, inputs=7, depth=4, features=4, thresholds=3, bins=16, binary="2-4, 6")
PLANS = [
    MIXED,
    Plan(seed=1, inputs=7, depth=4, features=4, thresholds=3, bins=16),
    Plan(seed=1, inputs=7, depth=4, features=4, thresholds=255, bins=256),
    Plan(seed=1, inputs=7, depth=4, binary="0-6", low=-1.0, high=2.0),
]


def points(size: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return columns that are mostly low, mostly high, constant, and numbers between."""
    generator = np.random.default_rng(seed)
    x = generator.random((size, 7)).astype(np.float32)
    x[:, 2] = x[:, 2] > 0.9
    x[:, 3] = x[:, 3] > 0.1
    x[:, 4] = 1
    return x, generator.integers(0, CLASSES, size)


def levels(plan: Plan, x: np.ndarray, y: np.ndarray, num_trees: int = 3) -> list[Arrays]:
    """Return the states of a growing forest, the first and the last included."""
    model = Forest(plan, CLASSES, num_trees)
    states = [model.initial()]
    while not model.is_complete(states[-1]):
        opened = trees.growing(states[-1])
        found = counts_of_open(model.settings(), opened, x, y)
        counted = {"total": found.total, "left": found.left}
        states.append(model.learn(states[-1], [Reply(0, len(y), counted)]))
    return states


def by_hand(
    plan: Plan, nodes: Arrays, rows: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of weights, (n, s), at nodes and left of their candidates, one at a time."""
    bins = plan.binned(x).astype(int)
    total, left = [], []
    address = list(zip(nodes["tree"].tolist(), nodes["path"].tolist(), strict=True))
    for row in rows:
        tree, path = address[row]
        there = np.ones(len(x), dtype=bool)
        for up in range(path.bit_length() - 1, 0, -1):
            above = address.index((tree, path >> up))
            right = bins[:, nodes["feature"][above]] > nodes["threshold"][above]
            there &= right == bool(path >> (up - 1) & 1)
        total.append(weight[there].sum(0))
        tried = plan.tried(np.array([tree]), np.array([path]))
        for feature, threshold in zip(tried.feature, tried.threshold, strict=True):
            left.append(weight[there & (bins[:, feature] <= threshold)].sum(0))
    return np.array(total), np.array(left)


@pytest.mark.parametrize("plan", PLANS)
def test_counts_equal_those_made_example_by_example(plan: Plan) -> None:
    x, y = points()
    settings = Forest(plan, CLASSES, 3).settings()
    for state in levels(plan, x, y)[:-1]:
        nodes = trees.structure(state)
        found = counts_of_open(settings, nodes, x, y)
        total, left = by_hand(plan, nodes, found.rows, x, np.eye(CLASSES, dtype=int)[y])
        assert np.array_equal(found.total, total)
        assert np.array_equal(found.left.reshape(left.shape), left)


@pytest.mark.parametrize("plan", PLANS)
def test_what_is_forgotten_is_counted_wherever_it_passes(plan: Plan) -> None:
    x, y = points()
    last = levels(plan, x, y)[-1]
    settings = Forest(plan, CLASSES, 3).settings()
    for gone in ([5], [0, 1, 2, 3], list(range(120))):
        found = counts_of_forgotten(settings, trees.structure(last), x[gone], y[gone])
        one_hot = np.eye(CLASSES, dtype=int)[y[gone]]
        total, _ = by_hand(plan, last, found.rows, x[gone], one_hot)
        inner = found.rows[last["feature"][found.rows] >= 0]
        _, left = by_hand(plan, last, inner, x[gone], one_hot)
        assert np.array_equal(found.total, total)
        assert np.array_equal(found.left.reshape(left.shape), left)


def test_sums_of_values_equal_those_made_example_by_example() -> None:
    x, y = points()
    state = levels(MIXED, x, y)[2]
    table = Table(MIXED, x)
    rows = np.flatnonzero(state["feature"] == OPEN)
    number = np.full(len(state["tree"]) + 1, len(rows))
    number[rows] = np.arange(len(rows))
    at = number[Standing(table).at(state)]
    value = np.random.default_rng(1).integers(-(2**24), 2**24, (len(x), 2))
    what = Values(np.repeat(value[:, None], at.shape[1], axis=1))
    found = summed(table, MIXED.tried(state["tree"][rows], state["path"][rows]), at, what)
    total, left = by_hand(MIXED, state, rows, x, value)
    assert np.array_equal(found.total, total)
    assert np.array_equal(found.left, left)


def test_standing_goes_on_only_where_the_ways_are_the_same() -> None:
    """Whatever it was asked before, the answer about open nodes is that of a fresh walk."""
    x, y = points()
    gone = np.random.default_rng(0).permutation(120)[:60]
    kept = np.setdiff1d(np.arange(120), gone)
    asked = [
        shown
        for states in (levels(MIXED, x, y), levels(MIXED, x[kept], y[kept]))
        for state in states
        for shown in (trees.structure(state), trees.growing(state))
        if len(shown["tree"])
    ]
    standing, generator = Standing(Table(MIXED, x)), np.random.default_rng(2)
    for pick in [*range(len(asked)), *generator.integers(0, len(asked), 200)]:
        nodes = asked[pick]
        is_open = np.append(nodes["feature"] == OPEN, False)
        found, fresh = standing.at(nodes), Standing(Table(MIXED, x)).at(nodes)
        assert np.array_equal(is_open[found], is_open[fresh])
        assert np.array_equal(found[is_open[fresh]], fresh[is_open[fresh]])
        rows, at = reaching(MIXED, nodes, x)
        assert np.array_equal(rows, np.flatnonzero(is_open[fresh].any(1)))
        assert np.array_equal(at[is_open[at]], fresh[rows][is_open[fresh[rows]]])


def test_a_level_is_one_pass_over_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a round walks each example one level on and bins nobody again."""
    x, y = points()
    binned, walked = [], []
    plain_binned, plain_walked = Plan.binned, Links.walked

    def binned_too(self: Plan, values: np.ndarray) -> np.ndarray:
        binned.append(values.size)
        return plain_binned(self, values)

    def walked_too(self: Links, at: np.ndarray, bins: np.ndarray) -> np.ndarray:
        before = trees.level(np.append(self.keys[:-1] & (2**42 - 1), 1)[at]).sum()
        after = plain_walked(self, at, bins)
        walked.append(
            int(trees.level(np.append(self.keys[:-1] & (2**42 - 1), 1)[after]).sum() - before)
        )
        return after

    monkeypatch.setattr(Plan, "binned", binned_too)
    monkeypatch.setattr(Links, "walked", walked_too)
    model = Forest(MIXED, CLASSES, 3)
    standing, state = Standing(Table(MIXED, x)), model.initial()
    while not model.is_complete(state):
        found = counts_of_open(model.settings(), trees.growing(state), x, y, standing)
        counted = {"total": found.total, "left": found.left}
        state = model.learn(state, [Reply(0, len(y), counted)])
    assert binned == [x.size]
    assert len(walked) <= MIXED.depth
    assert max(walked) <= 3 * len(x)  # one step per tree and example at most


def test_passed_names_the_levels_asked_for() -> None:
    x, y = points(20)
    links, table = Links.of(levels(MIXED, x, y)[-1]), Table(MIXED, x)
    every = passed(links, table)
    some = passed(links, table, [0, 2])
    assert np.array_equal(some, np.concatenate([every[:, :3], every[:, 6:9]], axis=1))


@pytest.mark.parametrize(
    ("columns", "words"), [("7", "0 to 6"), ("5-3", "0 to 6"), ("a", "'a'"), ("-2", "'-2'")]
)
def test_binary_columns_are_checked(columns: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Plan(seed=0, inputs=7, binary=columns)


def test_a_binary_column_is_tried_once() -> None:
    """Columns 2, 3, 4 and 6 are binary: one threshold, bin 7 of 16; the others have three."""
    tried = MIXED.tried(np.arange(50), np.ones(50))
    counts = np.diff(tried.start).reshape(50, 4)
    assert np.array_equal(counts, np.where(np.isin(tried.features, [2, 3, 4, 6]), 1, 3))
    alone = np.isin(tried.feature, [2, 3, 4, 6])
    assert set(tried.threshold[alone].tolist()) == {7}
    assert Plan.of(MIXED.to_settings()) == MIXED


def test_the_features_with_the_smallest_draws_are_tried_in_their_order() -> None:
    for inputs in (3, 64, 65, 700):
        plan, here = Plan(seed=1, inputs=inputs), np.arange(200, dtype=np.uint64)
        draw = trees._hashed(here[:, None], np.arange(1, inputs + 1)[None])
        wanted = np.argsort(draw, axis=1)[:, : plan.num_features]
        assert np.array_equal(trees._features(plan, here), wanted)


def test_counts_of_classes_follow_the_pairs() -> None:
    what = Classes(np.array([0, 1, 1]), 2, num_trees=2)
    at = np.array([[0, 1], [0, 0], [1, 1]])
    assert what.of_rows(at, None, 2).tolist() == [[1, 2], [1, 2]]
    assert what.of_rows(at, np.array([2]), 2).tolist() == [[0, 0], [0, 2]]
    assert what.of_pairs(np.array([1, 0]), np.array([0, 5]), 2).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("plan", PLANS)
def test_counting_by_values_and_by_candidates_comes_to_the_same(plan: Plan) -> None:
    x, y = points(60)
    table, generator = Table(plan, x), np.random.default_rng(3)
    tried = plan.tried(np.arange(5), np.array([1, 2, 3, 5, 9]))
    for per_node in (0, 1, 30):
        node = np.repeat(np.arange(5), per_node)
        example = generator.integers(0, len(x), len(node))
        wanted = np.zeros((len(tried.threshold), CLASSES), dtype=np.int64)
        for which, (begin, end) in enumerate(pairwise(tried.begins.tolist())):
            for candidate in range(begin, end):
                mine = example[node == which]
                left = table.bins[mine, tried.feature[candidate]] <= tried.threshold[candidate]
                wanted[candidate] = np.bincount(y[mine[left]], minlength=CLASSES)
        for count in (tree_sums._by_value, tree_sums._by_candidate, left_by_pair):
            assert np.array_equal(count(table, tried, node, example, y, CLASSES), wanted)


@pytest.mark.parametrize("gone", [[], [0], [119], [5, 6, 40], list(range(0, 120, 2))])
def test_a_table_of_some_examples_is_made_of_the_table_of_all(gone: list[int]) -> None:
    x, _ = points()
    whole, rows = Table(MIXED, x), np.setdiff1d(np.arange(len(x)), gone)
    for _ in range(2):  # the second time the columns are there, too
        some, alone = whole.taken(rows), Table(MIXED, x[rows])
        assert np.array_equal(some.bins, alone.bins)
        assert np.array_equal(some.columns, alone.columns)
        assert np.array_equal(some.few(2)[0], alone.few(2)[0])
        assert not np.shares_memory(some.columns, whole.columns)
    assert len(whole.taken(rows[:0])) == 0

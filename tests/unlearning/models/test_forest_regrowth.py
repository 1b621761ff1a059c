"""Subtrees that grow again apart: the same forest, fewer clients asked, fewer bytes hashed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError, RoundError
from unlearning.models import forest_parts
from unlearning.models.forest import Forest
from unlearning.models.forest_counts import counts_along, counts_of_forgotten, counts_of_open
from unlearning.models.forest_parts import Pruned
from unlearning.models.forest_regrowth import Regrowth
from unlearning.models.forest_removal import pruned
from unlearning.models.tree_sums import Table, along, passed, reaching, walks
from unlearning.models.trees import OPEN, Links, Plan, growing, ways
from unlearning.protocol import Reply

CLASSES, CLIENTS, SIZE = 3, 6, 90
PLANS = [
    Plan(seed=2, inputs=5, depth=5, features=3, thresholds=3, bins=16),
    Plan(seed=2, inputs=5, depth=5, features=3, thresholds=3, bins=16, binary="1-2"),
]


def points() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.random((SIZE, 5)).astype(np.float32)
    x[:, 1:3] = x[:, 1:3] > 0.5
    return x, generator.integers(0, CLASSES, SIZE)


def shares(without: int = -1) -> dict[int, np.ndarray]:
    """Return each client's rows; a sixth of them each, in order of the first value."""
    rows = np.array_split(np.argsort(points()[0][:, 0]), CLIENTS)
    return {client: part[part != without] for client, part in enumerate(rows)}


def learned(model: Forest, parts: dict[int, np.ndarray]) -> Arrays:
    x, y = points()
    arrays = model.initial()
    while not model.is_complete(arrays):
        found = [
            (k, len(part), counts_of_open(model.settings(), arrays, x[part], y[part]))
            for k, part in parts.items()
        ]
        replies = [Reply(k, n, {"total": c.total, "left": c.left}) for k, n, c in found]
        arrays = model.learn(arrays, replies)
    return arrays


def cut(model: Forest, arrays: Arrays, row: int) -> Pruned:
    """Return the forest without a row, not yet put together."""
    x, y = points()
    owner = next(client for client, part in shares().items() if row in part)
    gone = counts_of_forgotten(model.settings(), arrays, x[[row]], y[[row]])
    return pruned(model, arrays, [Reply(owner, 1, gone._asdict())])


def without(model: Forest, arrays: Arrays, row: int) -> Arrays:
    """Return the forest with what hung below changed splits open."""
    return cut(model, arrays, row).merged()


def answers(model: Forest, growth: Regrowth, row: int, who: tuple[int, ...]) -> list[Reply]:
    x, y = points()
    opened = growth.instruction().arrays or {}
    found = []
    for client in who:
        part = shares(row)[client]
        counts = counts_along(model.settings(), opened, Table(model.plan, x[part]), y[part])
        found.append(Reply(client, len(part), {"total": counts.total, "left": counts.left}))
    return found


def deep(model: Forest) -> int:
    """Return a row without which at least two levels grow again."""
    arrays = learned(model, shares())
    for row in range(SIZE):
        growth = Regrowth(model, cut(model, arrays, row))
        if len(growth):
            growth.learn(answers(model, growth, row, growth.asked()), growth.asked())
            if len(growth):
                return row
    raise AssertionError("no row of these moves two levels")


@pytest.mark.parametrize("plan", PLANS)
def test_what_grows_apart_is_the_forest_grown_without_the_row(plan: Plan) -> None:
    model, fewer = Forest(plan, CLASSES, 3), 0
    arrays = learned(model, shares())
    model.fingerprint(arrays)
    for row in range(0, SIZE, 4):
        growth = Regrowth(model, cut(model, arrays, row))
        while len(growth):
            who = growth.asked()
            fewer += CLIENTS - len(who)
            found = answers(model, growth, row, who)
            growth.learn(found, who)
        after = growth.merged()
        assert named.is_same(after, learned(model, shares(row)))
        assert model.fingerprint(after) == model.fingerprint(named.copy(after))
    assert fewer > 0  # of those whose examples reach no open node, some were not asked


def test_the_same_forest_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request names the forest before it and after it; the first is that of the last request."""
    model = Forest(PLANS[0], CLASSES, 3)
    arrays = learned(model, shares())
    model.fingerprint(arrays)
    row = next(r for r in range(SIZE) if not len(Regrowth(model, cut(model, arrays, r))))
    after = without(model, arrays, row)
    known = model.fingerprint(after)
    hashed: list[int] = []
    sha256 = hashlib.sha256

    def counted(data: bytes = b"") -> object:
        hashed.append(memoryview(data).nbytes)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counted)
    assert model.fingerprint(after) == known
    assert sum(hashed) == after["clients"].nbytes + after["examples"].nbytes


@pytest.mark.parametrize("plan", PLANS)
def test_what_a_deletion_leaves_as_it_was_is_neither_copied_nor_hashed_again(plan: Plan) -> None:
    """Where no split changes these are all arrays but the counts."""
    model = Forest(plan, CLASSES, 3)
    arrays = learned(model, shares())
    still = [r for r in range(SIZE) if not len(Regrowth(model, cut(model, arrays, r)))]
    arrays = without(model, arrays, still[0])
    after = next(
        found
        for found in (without(model, arrays, row) for row in still[1:])
        if found["feature"] is arrays["feature"]
    )
    changed = {"counts", "left", "clients", "examples"}
    assert {name for name in after if after[name] is not arrays[name]} == changed
    whole = named.copy(after)
    assert model.fingerprint(after) == model.fingerprint(whole)


def test_the_forest_is_there_before_all_of_it_has_grown() -> None:
    model = Forest(PLANS[0], CLASSES, 3)
    row = deep(model)
    growth = Regrowth(model, cut(model, learned(model, shares()), row))
    growth.learn(answers(model, growth, row, growth.asked()), growth.asked())
    arrays = growth.merged()
    assert (arrays["feature"] == OPEN).sum() == len(growth)
    x, y = points()
    while not model.is_complete(arrays):
        replies = []
        for client, part in shares(row).items():
            counts = counts_of_open(model.settings(), growing(arrays), x[part], y[part])
            replies.append(Reply(client, len(part), {"total": counts.total, "left": counts.left}))
        arrays = model.learn(arrays, replies)
    assert named.is_same(arrays, learned(model, shares(row)))


def test_all_are_asked_where_others_turn_out_to_hold_examples() -> None:
    model = Forest(PLANS[0], CLASSES, 3)
    row = deep(model)
    growth = Regrowth(model, cut(model, learned(model, shares()), row))
    growth.learn(answers(model, growth, row, growth.asked()), growth.asked())
    before, who = len(growth), growth.asked()[1:]
    growth.learn(answers(model, growth, row, who), who)
    assert len(growth) == before
    assert growth.asked() == tuple(range(CLIENTS))


def test_a_client_whose_data_changed_stops_it() -> None:
    model = Forest(PLANS[0], CLASSES, 3)
    row = deep(model)
    growth = Regrowth(model, cut(model, learned(model, shares()), row))
    with pytest.raises(FederationError, match="other examples at a node"):
        growth.learn(answers(model, growth, -1, growth.asked())[:0], ())
    with pytest.raises(RoundError, match="client 5 is part of the forest and gave no valid answer"):
        growth.learn(answers(model, growth, row, growth.asked()[:-1]), growth.asked())
    owner = next(client for client, part in shares().items() if row in part)
    with pytest.raises(RoundError, match=f"client {owner} holds"):
        growth.learn(answers(model, growth, -1, growth.asked()), growth.asked())


def test_only_blocks_that_changed_are_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Forest(PLANS[0], CLASSES, 3)
    growth = Regrowth(model, cut(model, learned(model, shares()), 3))
    while len(growth):
        growth.learn(answers(model, growth, 3, growth.asked()), growth.asked())
    arrays = growth.merged()
    model.fingerprint(arrays)
    hashed: list[int] = []
    plain = forest_parts._hashed

    def counting(flat: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        hashed.append(len(begins))
        return plain(flat, begins, sizes)

    monkeypatch.setattr(forest_parts, "_hashed", counting)
    x, y = points()
    gone = counts_of_forgotten(model.settings(), arrays, x[[4]], y[[4]])
    owner = next(client for client, part in shares().items() if 4 in part)
    after = pruned(model, arrays, [Reply(owner, 1, gone._asdict())]).merged()
    model.fingerprint(after)
    assert 0 < sum(hashed) <= (arrays["feature"][gone.rows] >= 0).sum() < len(arrays["left"])
    assert hashlib.sha256(after["left"][0].tobytes()).digest() == (
        forest_parts.Blocks(model, after).hashed()[0].tobytes()
    )


def test_nobody_can_write_to_what_is_known_and_the_input_stays_writable() -> None:
    model = Forest(PLANS[1], CLASSES, 3)
    arrays = named.copy(learned(model, shares()))
    before = named.digest(arrays)
    after = without(model, arrays, 5)
    assert named.digest(arrays) == before
    assert all(array.flags.writeable for array in arrays.values())
    assert not after["left"].flags.writeable


@pytest.mark.parametrize("plan", PLANS)
def test_ways_lead_to_the_same_examples_as_walks_from_the_root(plan: Plan) -> None:
    model = Forest(plan, CLASSES, 3)
    opened = without(model, learned(model, shares()), deep(model))
    x, _ = points()
    table, rows = Table(plan, x), np.flatnonzero(opened["feature"] == OPEN)
    node, example = along(
        table, opened["path"][rows], ways(opened, opened["tree"][rows], opened["path"][rows])
    )
    there, at = reaching(plan, opened, x)
    number = np.full(len(opened["tree"]) + 1, -1)
    number[rows] = np.arange(len(rows))
    wanted = {(int(number[n]), int(e)) for e, line in zip(there, at, strict=True) for n in line}
    assert set(zip(node.tolist(), example.tolist(), strict=True)) == {
        pair for pair in wanted if pair[0] >= 0
    }
    some = Table(plan, x[:4])
    long, short = passed(Links.of(opened), some), walks(opened, some)
    assert np.array_equal(np.unique(long), np.unique(short))
    assert np.array_equal(long[:, : short.shape[1]], short)


def test_the_first_inner_node_comes_into_a_forest_of_leaves() -> None:
    model = Forest(Plan(seed=0, inputs=2, depth=3, thresholds=3, bins=4), 2, num_trees=2)
    counts = np.array([[3, 0], [3, 0]])
    leaves = {**model.initial(), "feature": np.array([-1, -1], np.int32), "counts": counts}
    leaves["left"] = named.frozen(leaves["left"])
    blocks = forest_parts.Blocks(model, leaves)
    assert blocks.hashed().shape == (0, 32)
    nodes = {name: leaves[name] for name in ("tree", "path", "feature", "threshold", "counts")}
    root = {name: array[:1] for name, array in nodes.items()}
    root |= {"feature": np.array([0], np.int32), "counts": np.array([[2, 1]])}
    sizes = np.array([model.plan.width])
    grown = forest_parts.Grown(root, sizes, np.ones((model.plan.width, 2), np.int32))
    none = np.zeros(0, dtype=np.int64)
    keep = np.array([False, True])
    after = forest_parts.spliced(model, nodes, blocks, keep, grown, none, none.reshape(0, 2))
    assert after["feature"].tolist() == [0, -1]
    assert after["counts"].tolist() == [[2, 1], [3, 0]]
    own = hashlib.sha256(grown.left.tobytes()).digest()
    assert [bytes(found) for found in forest_parts.block_hashes(model, after)] == [own]

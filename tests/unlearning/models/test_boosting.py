"""Boosted trees: replay equals retraining bit for bit; leaf refresh keeps the splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.global_model.retrain import Retrain
from strategies.structure.boosting_replay import BoostingReplay
from strategies.structure.leaf_refresh import LeafRefresh
from tests.support.structure import (
    in_several_orders,
    learned_and_asked,
    mixed,
    same,
    toy_with,
)
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, RoundError
from unlearning.models.boosting import Boosting
from unlearning.models.boosting_replay import idle_splits
from unlearning.models.boosting_sums import sums_at
from unlearning.models.tree_sums import Sums
from unlearning.models.trees import LEAF, Plan
from unlearning.protocol import Reply
from unlearning.request import Request, Scope

DEPTH, ITERATIONS = 2, 3


def boosting(classes: int = 3, **changes: int) -> Boosting:
    plan = {"seed": 1, "inputs": 3, "depth": DEPTH, "features": 2, "thresholds": 3, "bins": 8}
    return Boosting(Plan(**{**plan, **changes}), classes, ITERATIONS)


def grown(model: Boosting, x: np.ndarray, y: np.ndarray, parts: int = 1) -> named.Arrays:
    arrays = model.initial()
    for _ in range(model.rounds):
        instruction = model.teach(arrays, range(parts))[0]
        replies = []
        for client, rows in enumerate(np.array_split(np.arange(len(y)), parts)):
            found = sums_at(
                instruction.settings, arrays, instruction.extras["rows"], x[rows], y[rows]
            )
            replies.append(Reply(client, len(rows), found._asdict()))
        arrays = model.learn(arrays, replies)
    return arrays


def test_golden_stump() -> None:
    """Two classes, one feature, bins 0..3, rate 0.5, lambda 1, one iteration of depth 1.

    x in bins 0 1 2 3, y = 0 0 1 1. p = 1/2: g = .5 .5 -.5 -.5, h = .25 each. Threshold 0:
    .25/1.25 + .25/1.75; threshold 1: 1/1.5 + 1/1.5; threshold 2 as 0. So threshold 1; leaves
    -.5 * 1 / 1.5 = -1/3 and 1/3; p(1) = 1 / (1 + exp(1/3)) on the left. The next iteration splits
    at the same place, with g = p there and h = p (1 - p): leaves -p / (2 h + 1), p / (2 h + 1).
    """
    model = Boosting(Plan(seed=0, inputs=1, depth=1, thresholds=3, bins=4), 2, 1, rate=0.5)
    x, y = np.array([[0.1], [0.3], [0.6], [0.9]]), np.array([0, 0, 1, 1])
    arrays = grown(model, x, y)
    assert arrays["path"].tolist() == [1, 2, 3]
    assert (arrays["feature"][0], arrays["threshold"][0]) == (0, 1)
    assert arrays["value"] == pytest.approx([0, -1 / 3, 1 / 3])
    found = model.predict(arrays, x)
    twice = Boosting(model.plan, 2, 2, rate=0.5)
    g, h = found[0, 1], found[0, 1] * found[0, 0]
    second = grown(twice, x, y)["value"][3:]
    assert second == pytest.approx([0, -g / (2 * h + 1), g / (2 * h + 1)], rel=1e-6)
    assert found[0] == pytest.approx([1 - 1 / (1 + np.exp(1 / 3)), 1 / (1 + np.exp(1 / 3))])
    assert found.sum(1) == pytest.approx(1)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_matter_how_clients_share_the_data(classes: int) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.random((70, 3)), generator.integers(0, classes, 70)
    alone, shared = (grown(boosting(classes), x, y, parts) for parts in (1, 4))
    names = ("tree", "path", "feature", "threshold", "value")
    assert all(np.array_equal(alone[name], shared[name]) for name in names)
    assert alone["tree"].max() + 1 == ITERATIONS * (1 if classes == 2 else classes)
    assert boosting(classes).is_complete(alone)
    assert (alone["value"][alone["feature"] != LEAF] == 0).all()


def test_the_loss_falls() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((200, 3))
    y = x.argmax(1)
    model = boosting(thresholds=7, features=3)
    found = model.predict(grown(model, x, y), x)
    assert np.mean(found.argmax(1) == y) > 0.8
    start = model.predict(model.initial(), x)
    assert start == pytest.approx(np.full((200, 3), 1 / 3))


@pytest.mark.parametrize("asked", in_several_orders())
def test_requests_in_any_order_equal_retraining(tmp_path: Path, asked: list[Request]) -> None:
    """Oracle 20."""
    model = boosting()
    toy = toy_with(tmp_path, model)
    own, again = learned_and_asked(toy, BoostingReplay(), asked, model.rounds, tmp_path)
    assert same(own, again)
    assert own["clients"].tolist() == [0, 1, 3]


@settings(max_examples=6)
@given(st.integers(0, 500), st.integers(1, 4), st.sampled_from([2, 3]), st.integers(1, 3))
def test_replay_after_any_sample(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, depth: int, min_leaf: int
) -> None:
    home = tmp_path_factory.mktemp("replay")
    model = boosting(seed=seed, depth=depth, min_leaf=min_leaf)
    toy = toy_with(home, model)
    generator = np.random.default_rng(seed)
    gone = tuple(generator.choice(toy.sizes[3], count, replace=False).tolist())
    asked = [Request(Scope.SAMPLE, samples={3: gone})]
    own, again = learned_and_asked(toy, BoostingReplay(), asked, model.rounds, home)
    assert same(own, again)


def test_replay_of_unchanged_data_takes_a_round_per_iteration(tmp_path: Path) -> None:
    """A class that nobody holds: every split holds, so no level needs a round of its own."""
    model = boosting(classes=4, depth=3)
    toy = toy_with(tmp_path, model)
    arrays = toy.run(Retrain(), rounds=model.rounds)
    toy.asked.clear()
    after = toy.unlearn(BoostingReplay(), Request(Scope.CLASS, classes=(3,)), arrays)
    assert same(after, arrays)
    assert len(toy.asked) == 4 * ITERATIONS


def test_a_request_while_the_trees_grow(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, boosting())
    own, again = learned_and_asked(toy, BoostingReplay(), mixed()[:2], 3, tmp_path)
    assert same(own, again)
    assert not boosting().is_complete(own)


def test_leaf_refresh_keeps_splits_and_renews_leaves(tmp_path: Path) -> None:
    model = boosting()
    toy = toy_with(tmp_path, model)
    arrays = toy.run(Retrain(), rounds=model.rounds)
    own, again = learned_and_asked(toy, LeafRefresh(), mixed()[:3], model.rounds, tmp_path)
    for name in ("tree", "path", "feature", "threshold"):
        assert np.array_equal(own[name], arrays[name])
    assert own["clients"].tolist() == again["clients"].tolist()
    assert own["examples"].tolist() == again["examples"].tolist()
    assert not np.array_equal(own["value"], arrays["value"])


def test_refreshed_leaves_are_those_of_the_retained_examples(tmp_path: Path) -> None:
    model = boosting()
    toy = toy_with(tmp_path, model)
    arrays = toy.run(Retrain(), rounds=model.rounds)
    after = toy.unlearn(LeafRefresh(), request("client"), arrays)
    parts = [toy.shards[client].table() for client in (0, 2, 3)]
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    leaves = np.flatnonzero(after["feature"] == LEAF)
    for iteration in range(ITERATIONS):
        rows = leaves[after["tree"][leaves] // 3 == iteration]
        sums = sums_at({**model.settings(), "of": "total"}, after, rows, x, y)
        assert np.array_equal(after["value"][rows], model.weights(sums.total))


def test_leaf_refresh_of_unchanged_data_changes_nothing(tmp_path: Path) -> None:
    """A class that nobody holds: the leaves come out as they were, bit for bit."""
    model = boosting(classes=4)
    toy = toy_with(tmp_path, model)
    arrays = toy.run(Retrain(), rounds=model.rounds)
    after = toy.unlearn(LeafRefresh(), Request(Scope.CLASS, classes=(3,)), arrays)
    assert same(after, arrays)


def test_leaves_after_a_refresh_are_the_retrained_ones_where_splits_agree(tmp_path: Path) -> None:
    model = boosting(features=3, thresholds=1, depth=1)
    toy = toy_with(tmp_path, model)
    asked = [request("sample")]
    own, again = learned_and_asked(toy, LeafRefresh(), asked, model.rounds, tmp_path)
    splits = [(state["feature"], state["threshold"]) for state in (own, again)]
    if all(np.array_equal(a, b) for a, b in zip(*splits, strict=True)):
        assert same(own, again)


def stump_sums() -> Sums:
    """Return sums (G, H, n) at one node with gains 0.6, 0.5 and none, lambda 1.

    G and H of the node: 0 and 2. Left of candidate 0: (g, 1): gain 2 g^2 / 2 = g^2 = 0.6; of
    candidate 1: g^2 = 0.5; candidate 2 has nobody on its left.
    """
    unit = 1 << 24
    left = [[round(np.sqrt(gain) * unit), unit, 5] for gain in (0.6, 0.5)]
    return Sums(np.array([[0, 2 * unit, 10]]), np.array([[*left, [0, 0, 0]]]))


@pytest.mark.parametrize(
    ("own", "tolerance", "chosen"),
    [
        (0, 0.0, 0),
        (1, 0.0, 0),
        (1, 0.1, 0),  # 0.5 is less than 0.9 of 0.6
        (1, 0.2, 1),  # and more than 0.8 of it
        (1, 1.0, 1),
        (2, 1.0, 0),  # gains nothing
        (LEAF, 0.9, 0),
        (LEAF, 1.0, -1),
    ],
)
def test_golden_tolerance(own: int, tolerance: float, chosen: int) -> None:
    model = Boosting(Plan(seed=0, inputs=1, depth=1, thresholds=3, bins=4), 2, 1)
    feature, threshold = model.plan.candidates(np.zeros(1), np.ones(1))
    nodes = {
        "tree": np.zeros(1, np.int32),
        "path": np.ones(1, np.int64),
        "feature": feature[:, own] if own >= 0 else np.array([LEAF]),
        "threshold": threshold[:, own] if own >= 0 else np.array([0]),
    }
    assert model.kept(nodes, np.zeros(1, np.int64), stump_sums(), tolerance).tolist() == [chosen]


@pytest.mark.parametrize(
    ("left", "right", "idle"),
    [(1, (-1, 5), 0), (1, (1, 5), 1), (0, (0, 5), 1), (1, (0, 0), 1)],
)
def test_splits_that_gain_nothing_are_seen_from_the_leaves(
    left: int, right: tuple[int, int], idle: int
) -> None:
    """Left H 1, n 5. G 1 and -1: gain 1/2 + 1/2 - 0; 1 and 1: 1 - 4/3; 0 and 0: 0; nobody: none."""
    model = Boosting(Plan(seed=0, inputs=1, depth=1), 2, 1)
    unit = 1 << 24
    nodes = {"tree": np.zeros(3, np.int32), "path": np.array([1, 2, 3])}
    h = unit if right[1] else 0
    total = np.array([[left * unit, unit, 5], [right[0] * unit, h, right[1]]])
    leaves = np.array([1, 2])
    assert idle_splits(model, nodes, leaves, Sums(total, np.zeros((0, 1, 3), int))) == (idle, 1)


@pytest.mark.parametrize("asked", in_several_orders()[:2])
def test_leaf_refresh_that_tolerates_nothing_is_the_replay(
    tmp_path: Path, asked: list[Request]
) -> None:
    model = boosting()
    toy = toy_with(tmp_path, model)
    own, again = learned_and_asked(toy, LeafRefresh(tolerance=0.0), asked, model.rounds, tmp_path)
    assert same(own, again)


def many_splits(home: Path) -> tuple[Boosting, ToyFederation, Arrays]:
    model = boosting(thresholds=7, features=3)
    toy = toy_with(home, model)
    return model, toy, toy.run(Retrain(), rounds=model.rounds)


def test_the_more_is_tolerated_the_more_splits_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, toy, arrays = many_splits(tmp_path)
    gone = Request(Scope.SAMPLE, samples={3: tuple(range(14)), 2: tuple(range(10))})
    found = {}
    for tolerance in (0.0, 0.3, 1.0):
        twin = toy.branch(tmp_path / str(tolerance))
        strategy = LeafRefresh(tolerance=tolerance)
        caplog.clear()
        after = twin.unlearn(strategy, gone, arrays)
        found[tolerance] = strategy.splits - strategy.lost
        assert model.is_complete(after)
        said = [record.message for record in caplog.records if "LeafRefresh" in record.message]
        assert bool(said) == bool(strategy.lost)
        assert not said or f"{strategy.lost} of {strategy.splits} splits lagged" in said[0]
    assert found[0.0] < found[0.3] < found[1.0]


def test_splits_that_hold_out_are_those_of_a_plain_refresh(tmp_path: Path) -> None:
    """All of them gain something: the trees keep their splits, and retraining would not."""
    _, toy, arrays = many_splits(tmp_path)
    gone = Request(Scope.SAMPLE, samples={3: (0, 1, 2)})
    made = (LeafRefresh(tolerance=1.0), LeafRefresh(), LeafRefresh(tolerance=0.0))
    held, plain, again = (
        toy.branch(tmp_path / str(i)).unlearn(strategy, gone, arrays)
        for i, strategy in enumerate(made)
    )
    assert made[0].lost == 0
    assert same(held, plain)
    assert not same(held, again)


def test_leaf_refresh_says_which_splits_it_left_that_gain_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody but client 0 is left: splits that its 8 points do not need are found."""
    _, toy, arrays = many_splits(tmp_path)
    strategy = LeafRefresh()
    toy.unlearn(strategy, Request(Scope.CLIENT, clients=(1, 2, 3)), arrays)
    assert strategy.splits == (arrays["feature"] >= 0).sum()
    assert 0 < strategy.lost < strategy.splits
    assert f"{strategy.lost} of {strategy.splits} splits gain nothing" in caplog.text


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0])
def test_leaf_refresh_with_a_check_leaves_unchanged_data_alone(
    tmp_path: Path, tolerance: float
) -> None:
    model = boosting(classes=4)
    toy = toy_with(tmp_path, model)
    arrays = toy.run(Retrain(), rounds=model.rounds)
    strategy = LeafRefresh(tolerance=tolerance)
    after = toy.unlearn(strategy, Request(Scope.CLASS, classes=(3,)), arrays)
    assert same(after, arrays)
    assert strategy.lost == 0


@pytest.mark.parametrize("tolerance", [-0.1, 1.1])
def test_a_tolerance_out_of_range(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="option 'tolerance'"):
        LeafRefresh(tolerance=tolerance)


def test_trees_grow_on_without_a_member_lost_on_the_way(tmp_path: Path) -> None:
    """What was grown before rests on it still."""
    toy = toy_with(tmp_path, boosting())
    calls = []

    def later(answer: list[np.ndarray]) -> list[np.ndarray]:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("broken on purpose")
        return answer

    toy.faults[2] = later
    after = toy.run(Retrain(), rounds=4)
    assert 2 in after["clients"]
    assert len(calls) == 4


def test_malformed_sums_are_left_out() -> None:
    model = boosting()
    bad = Reply(5, 3, {"total": np.zeros((3, 3)), "left": np.zeros((3, 6, 3))})
    with pytest.raises(RoundError, match="no client sent sums"):
        model.learn(model.initial(), [bad])


@pytest.mark.parametrize(("name", "value"), [("iterations", 0), ("rate", 0.0), ("l2", 0.0)])
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        Boosting(Plan(seed=0, inputs=2), 2, **{name: value})  # type: ignore[arg-type]


def test_binary_columns_give_the_same_trees_with_one_threshold_each() -> None:
    """Columns of 0 and 1: every threshold parts them alike, so one is enough."""
    generator = np.random.default_rng(0)
    x, y = (generator.random((60, 4)) < 0.5).astype(float), generator.integers(0, 2, 60)
    made = []
    for binary in ("", "0-3"):
        plan = Plan(seed=0, inputs=4, depth=2, features=4, thresholds=3, bins=8, binary=binary)
        model = Boosting(plan, 2, 3)
        state = model.initial()
        while not model.is_complete(state):
            how = model.teach(state, [0])[0]
            found = sums_at(how.settings, state, how.extras["rows"], x, y)
            state = model.learn(state, [Reply(0, 60, found._asdict())])
        made.append((state, model.predict(state, x)))
    assert np.array_equal(made[0][0]["feature"], made[1][0]["feature"])
    assert np.array_equal(made[0][1], made[1][1])

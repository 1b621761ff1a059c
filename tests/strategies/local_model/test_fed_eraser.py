from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.federation import Federation
from strategies.global_model.retrain import Retrain
from strategies.local_model.fed_eraser import FedEraser, calibrate
from strategies.roster import Roster
from tests.support.toy import ToyFederation, ToyGrid, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.protocol import Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

SCOPES = ("per_client_layer", "per_client_model", "mean_layer")


def update(a: Iterable[float], b: float, mean: float = 0.0, steps: int = 0) -> Arrays:
    """Return an update of a model of two parameters and two buffers."""
    return {
        "a": np.array(list(a), np.float32),
        "b": np.array([b], np.float32),
        "running_mean": np.array([mean], np.float32),
        "num_batches_tracked": np.array(steps),
    }


# The calibration of one update --------------------------------------------------------------


def test_calibration_by_hand_per_layer() -> None:
    """Return (stored length) * (fresh direction), array by array.

    a: |(3, 4)| = 5, direction (0, -1): (0, -5). b: |12| = 12, direction -1: -12.
    """
    found = calibrate(update((3, 4), 12), update((0, -3), -4))
    np.testing.assert_allclose(found["a"], [0, -5])
    np.testing.assert_allclose(found["b"], [-12])


def test_calibration_by_hand_per_model() -> None:
    """|(3, 4, 12)| = 13 and |(0, -3, -4)| = 5: everything times 13 / 5."""
    found = calibrate(update((3, 4), 12), update((0, -3), -4), per_layer=False)
    np.testing.assert_allclose(found["a"], [0, -7.8], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [-10.4], rtol=1e-6)


def test_buffers_are_those_of_the_fresh_update() -> None:
    old, new = update((1, 1), 1, mean=7, steps=3), update((1, 1), 1, mean=-2, steps=9)
    for per_layer in (True, False):
        found = calibrate(old, new, per_layer=per_layer)
        assert (found["running_mean"], found["num_batches_tracked"]) == (-2, 9)


@pytest.mark.parametrize("per_layer", [True, False])
def test_no_direction_and_no_length_are_zero(per_layer: bool) -> None:
    """Oracle 10: a fresh update of zeros has no direction, a stored one no length."""
    zero, some = update((0, 0), 0), update((3, -4), -1)
    for old, new in ((some, zero), (zero, some), (zero, zero)):
        found = calibrate(old, new, per_layer=per_layer)
        assert named.norm(found) == 0
        assert named.is_finite(found)
    tiny = named.scale(some, 1e-13)
    assert named.norm(calibrate(some, tiny, per_layer=per_layer)) == 0


def test_calibration_needs_the_same_names() -> None:
    with pytest.raises(ValueError, match="'b' is on one side"):
        calibrate(update((1, 1), 1), {"a": np.ones(2)})


VALUES = hnp.arrays(np.float64, (4,), elements=st.floats(-64, 64, width=16))


@given(VALUES, VALUES)
def test_length_is_kept_and_direction_replaced(old: np.ndarray, new: np.ndarray) -> None:
    """Oracle 9, and the angle: for vectors u, v of length |u|, |v|, u @ v = |u| |v|."""
    found = calibrate({"w": old}, {"w": new})["w"]
    if np.linalg.norm(new) < 1e-12:
        assert not found.any()
        return
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(old))
    assert found @ new == pytest.approx(np.linalg.norm(found) * np.linalg.norm(new))


# The whole reconstruction -------------------------------------------------------------------

ROUNDS = {
    1: {1: update((1, -1), 2), 2: update((-3, 1), -2), 9: update((100, 100), 100)},
    2: {1: update((3, 4), 12), 2: update((0, -2), 0), 9: update((-100, 100), 100)},
}
FRESH = {1: update((0, -3), -4, mean=4, steps=5), 2: update((3, 0), -4, mean=0, steps=6)}
NUM_EXAMPLES = {1: 1, 2: 3, 9: 50}


def golden(strategy: FedEraser, rounds: dict[int, dict[int, Arrays]] | None = None) -> History:
    """Give a strategy the federation above, of which client 9 leaves; return its history."""
    history = History(keep=("globals", "updates"))
    history.start(update((0, 0), 0))
    for t, updates in (rounds or ROUNDS).items():
        with history.record(t, update((t - 1, 0), 0)) as entry:
            for client, step in updates.items():
                entry.add(client, NUM_EXAMPLES[client], step)
    nodes = {client: 1000 + i for i, client in enumerate(NUM_EXAMPLES)}
    roster = Roster(ToyGrid(None, len(nodes)), nodes)  # type: ignore[arg-type]
    roster.forget([9])
    strategy.join(Federation(history=history, roster=roster, completed=max(rounds or ROUNDS)))
    return history


def rebuild(strategy: FedEraser, history: History, present: tuple[int, ...] = (1, 2)) -> Arrays:
    """Return the rebuilt model; ``present`` answer with their fresh updates."""
    leaves = Request(Scope.CLIENT, clients=(9,))
    arrays, rounds = strategy.prepare(leaves, history, update((50, 50), 50))
    for j in range(1, rounds + 1):
        asked = strategy.instruct(j)
        replies = [
            Reply(client, NUM_EXAMPLES[client], {}, {}, FRESH[client])
            for client in present
            if client in asked
        ]
        arrays = strategy.combine(j, arrays, iter(replies))
    return arrays


def test_the_first_round_is_reused_without_the_leaver() -> None:
    """From w0 = 0, with p' = 1/4 and 3/4: no client is asked.

    a = (1/4 - 9/4, -1/4 + 3/4) = (-2, 0.5), b = 2/4 - 6/4 = -1.
    """
    strategy = FedEraser(interval=1)
    history = golden(strategy, {1: ROUNDS[1]})
    arrays = rebuild(strategy, history)
    np.testing.assert_allclose(arrays["a"], [-2, 0.5])
    np.testing.assert_allclose(arrays["b"], [-1])
    assert strategy.instruct(1) == {}


def test_golden_per_client_layer() -> None:
    """Round 1 leaves (-2, 0.5) and -1. In round 2 clients 1 and 2 have weights 1/4 and 3/4.

    Client 1: a = 5 * (0, -1), b = 12 * -1. Client 2: a = 2 * (1, 0), b = 0 * -1.
    Mean: a = (1.5, -1.25), b = -3. Sum: a = (-0.5, -0.75), b = -4.
    """
    strategy = FedEraser(interval=1, calibration_scope="per_client_layer")
    arrays = rebuild(strategy, golden(strategy))
    np.testing.assert_allclose(arrays["a"], [-0.5, -0.75], rtol=1e-6)
    np.testing.assert_allclose(arrays["b"], [-4], rtol=1e-6)


def test_golden_per_client_model() -> None:
    """The paper's formula, one vector per client.

    Client 1: times 13 / 5: a = (0, -7.8), b = -10.4. Client 2: times 2 / 5: a = (1.2, 0),
    b = -1.6. Mean: a = (0.9, -1.95), b = -2.6 - 1.2 = -3.8. Sum: a = (-1.1, -1.45), b = -4.8.
    """
    strategy = FedEraser(interval=1, calibration_scope="per_client_model")
    arrays = rebuild(strategy, golden(strategy))
    np.testing.assert_allclose(arrays["a"], [-1.1, -1.45], rtol=1e-6)
    np.testing.assert_allclose(arrays["b"], [-4.8], rtol=1e-6)


def test_golden_mean_layer() -> None:
    """The released code: average first, then calibrate array by array.

    Stored mean: a = (3/4, 4/4 - 6/4) = (0.75, -0.5), length sqrt(13/16); b = 3.
    Fresh mean: a = (9/4, -3/4), length sqrt(90/16); b = -4.
    Step: a = sqrt(13/90) * (2.25, -0.75), b = -3.
    """
    strategy = FedEraser(interval=1, calibration_scope="mean_layer")
    arrays = rebuild(strategy, golden(strategy))
    factor = np.sqrt(13 / 90)
    np.testing.assert_allclose(arrays["a"], [-2 + 2.25 * factor, 0.5 - 0.75 * factor], rtol=1e-6)
    np.testing.assert_allclose(arrays["b"], [-4], rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_buffers_are_averaged_as_state(scope: str) -> None:
    """running_mean: 4 * 1/4 + 0 * 3/4 = 1; the counter is that of the last client."""
    strategy = FedEraser(interval=1, calibration_scope=scope, interval_scale=3.0)
    arrays = rebuild(strategy, golden(strategy))
    assert arrays["running_mean"] == pytest.approx(1)
    assert arrays["num_batches_tracked"] == 6


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [("per_client_layer", (-1, -1.5)), ("per_client_model", (-2.2, -2.9))],
)
def test_the_scale_multiplies_every_step(scope: str, wanted: tuple[float, float]) -> None:
    """Starting from zero, twice the steps lead twice as far."""
    strategy = FedEraser(interval=1, calibration_scope=scope, interval_scale=2.0)
    arrays = rebuild(strategy, golden(strategy))
    np.testing.assert_allclose(arrays["a"], wanted, rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_left_at_0_the_scale_makes_up_for_the_rounds_left_out(scope: str) -> None:
    found = [
        rebuild(strategy, golden(strategy))["a"].tolist()
        for strategy in (
            FedEraser(interval=2, calibration_scope=scope),
            FedEraser(interval=2, calibration_scope=scope, interval_scale=2.0),
            FedEraser(interval=2, calibration_scope=scope, interval_scale=1.0),
        )
    ]
    assert found[0] == found[1] != found[2]


def test_the_scale_multiplies_the_calibrated_mean_once() -> None:
    strategy = FedEraser(interval=1, calibration_scope="mean_layer", interval_scale=2.0)
    arrays = rebuild(strategy, golden(strategy))
    np.testing.assert_allclose(arrays["b"], [-8], rtol=1e-6)


def test_who_is_absent_now_is_left_out_and_weights_renormalised() -> None:
    """Client 1 alone in round 2: its whole step (0, -5), -12 on top of (-2, 0.5), -1."""
    strategy = FedEraser(interval=1)
    arrays = rebuild(strategy, golden(strategy), present=(1,))
    np.testing.assert_allclose(arrays["a"], [-2, -4.5], rtol=1e-6)
    np.testing.assert_allclose(arrays["b"], [-13], rtol=1e-6)


def test_a_round_of_the_leaver_alone_is_skipped() -> None:
    """Rounds 1, 2 (the leaver alone), 3: as if round 2 had not been."""
    strategy = FedEraser(interval=1)
    history = golden(strategy, {1: ROUNDS[1], 2: {9: ROUNDS[2][9]}, 3: ROUNDS[2]})
    np.testing.assert_allclose(rebuild(strategy, history)["a"], [-0.5, -0.75], rtol=1e-6)
    assert strategy.instruct(2) == {}
    assert strategy.rewritten is not None
    assert strategy.rewritten.rounds == (1, 2, 3)
    assert strategy.rewritten.participants(2) == {}


def test_the_interval_says_which_rounds_are_replayed() -> None:
    """Of rounds 1 to 5, interval 2 replays 1, 3 and 5."""
    strategy = FedEraser(interval=2)
    history = golden(strategy, dict.fromkeys(range(1, 6), ROUNDS[2]))
    rebuild(strategy, history)
    assert strategy.rewritten is not None
    assert strategy.rewritten.rounds == (1, 3, 5)


@pytest.mark.parametrize("scope", SCOPES[:2])
def test_the_rewritten_history_adds_up(scope: str) -> None:
    """Oracle 3 on the clean trajectory, which serves the next request."""
    strategy = FedEraser(interval=1, calibration_scope=scope)
    arrays = rebuild(strategy, golden(strategy))
    clean = strategy.rewritten
    assert clean is not None
    total = np.zeros(2)
    for t in clean.rounds:
        assert list(clean.participants(t)) == [1, 2]
        np.testing.assert_allclose(clean.arrays(t)["a"], total, atol=1e-6)
        for client, weight in clean.weights(t).items():
            total = total + weight * clean.update(t, client)["a"]
    np.testing.assert_allclose(arrays["a"], total, rtol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "epochs", "steps", "wanted"),
    [
        (0.5, 10, 0, {"local_epochs": 5}),
        (0.5, 3, 0, {"local_epochs": 2}),
        (0.01, 10, 0, {"local_epochs": 1}),
        (1.0, 4, 0, {"local_epochs": 4}),
        (0.5, 10, 5, {"local_epochs": 5, "max_steps": 3}),
    ],
)
def test_calibration_is_short_and_rounded_up(
    ratio: float, epochs: int, steps: int, wanted: dict[str, int]
) -> None:
    strategy = FedEraser(interval=1, ratio=ratio)
    history = golden(strategy)
    strategy.federation.train = {"local_epochs": epochs, "max_steps": steps}
    rebuild(strategy, history)
    assert dict(strategy.instruct(2)[1].settings) == wanted
    assert strategy.instruct(2)[1].seed_round == 2


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0},
        {"ratio": 0.0},
        {"ratio": 1.1},
        {"interval_scale": -1.0},
        {"calibration_scope": "layer"},
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"option '{name}'"):
        FedEraser(**options)  # type: ignore[arg-type]


# In a federation ----------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_to_forget_gives_the_original_model(tmp_path: Path, scope: str) -> None:
    """Oracle 9: with r = 1 and interval 1, the same seeds make the same updates, bit for bit.

    The request names a sample that does not exist, so that its owner is replayed from the start.
    """
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(3)
    strategy = FedEraser(interval=1, ratio=1.0, calibration_scope=scope)
    after = toy.unlearn(strategy, Request(Scope.SAMPLE, samples={1: (999,)}), arrays)
    assert named.digest(after) == named.digest(arrays)
    assert len([step for _, step in toy.asked if step != "fingerprints"]) == 12 + 1 + 4 + 4
    assert (
        toy.asked.count((1, "fingerprints")) == 1
    )  # no weight moved: is there anything to forget?


def test_a_late_joiner_is_erased_from_its_first_round_on(tmp_path: Path) -> None:
    """Client 2 joins in round 3: rounds 1 and 2 stay as they were, round 3 is reused."""
    toy = ToyFederation(tmp_path, late={2: 3})
    arrays = toy.learn(4)
    history, strategy = toy.federation.history, FedEraser(interval=1)
    toy.asked.clear()
    toy.unlearn(strategy, request("client", 2), arrays)
    clean = strategy.rewritten
    assert clean is not None
    assert clean.rounds == (1, 2, 3, 4)
    for t in (1, 2, 3):
        assert named.digest(clean.arrays(t)) == named.digest(history.arrays(t))
        for client in (0, 1, 3):
            mine, theirs = clean.update(t, client), history.update(t, client)
            assert named.digest(mine) == named.digest(theirs)
    assert sorted(toy.asked) == [(client, "train") for client in (0, 1, 3)]


def test_a_late_joiner_between_two_replayed_rounds(tmp_path: Path) -> None:
    """Client 2 joins in round 4; with interval 2 the last clean one of 1, 3, 5 is 3."""
    toy = ToyFederation(tmp_path, late={2: 4})
    arrays = toy.learn(5)
    strategy = FedEraser(interval=2)
    toy.unlearn(strategy, request("client", 2), arrays)
    assert strategy.rewritten is not None
    assert strategy.rewritten.rounds == (1, 2, 3, 5)


def test_owners_of_samples_stay_and_calibrate_without_them(tmp_path: Path) -> None:
    """In round 1 only the owner trains again; its weight is that of what it has left."""
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(2)
    toy.asked.clear()
    strategy = FedEraser(interval=1)
    toy.unlearn(strategy, request("sample", 1), arrays)
    assert toy.asked == [(1, "train"), *((client, "train") for client in range(4))]
    left = {0: 8, 1: 8, 2: 14, 3: 17}  # 11 less 3
    assert strategy.rewritten is not None
    assert [strategy.rewritten.participants(t) for t in (1, 2)] == [left, left]


def test_a_class_is_everybodys(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(2)
    toy.asked.clear()
    strategy = FedEraser(interval=1)
    toy.unlearn(strategy, request("class"), arrays)
    assert toy.asked == [(client, "train") for client in range(4)] * 2
    left = {k: int((shard.labels != 2).sum()) for k, shard in toy.shards.items()}
    assert strategy.rewritten is not None
    assert strategy.rewritten.participants(1) == left


@pytest.mark.parametrize("scope", ["sample", "class"])
def test_owners_who_stay_are_calibrated_from_the_first_round_on(tmp_path: Path, scope: str) -> None:
    """Oracle 9 for the mean: as long, array by array, as the mean of the stored updates."""
    toy = ToyFederation(tmp_path)
    arrays, history = toy.learn(2), toy.federation.history
    strategy = FedEraser(interval=1, calibration_scope="mean_layer")
    toy.unlearn(strategy, request(scope), arrays)
    clean = strategy.rewritten
    assert clean is not None
    old = named.weighted_mean((n, history.update(1, k)) for k, n in toy.sizes.items())
    step = named.delta(clean.arrays(1), clean.arrays(2))
    for name in ("layer.weight", "layer.bias"):
        assert np.linalg.norm(step[name]) == pytest.approx(np.linalg.norm(old[name]), rel=1e-5)
        assert not np.allclose(step[name], old[name], rtol=1e-3)


def test_stored_lengths_survive_storage_in_halves(tmp_path: Path) -> None:
    """Updates kept in float16 rebuild nearly the same model."""
    models = []
    for dtype in ("float32", "float16"):
        history = History(keep=("globals", "updates"), dtype=dtype)
        toy = ToyFederation(tmp_path / dtype, history=history)
        models.append(toy.unlearn(FedEraser(interval=1), request("client"), toy.learn(3)))
    distance = named.norm(named.subtract(*models))
    assert 0 < distance < 2e-3 * named.norm(models[0])


@pytest.mark.parametrize(("interval", "wanted"), [(2, 200 / 45), (1, 200 / 95)])
def test_the_expected_speed_up(tmp_path: Path, interval: int, wanted: float) -> None:
    """T = 20 rounds of E = 10 local epochs, r = 0.5.

    Interval 2: 10 rounds are stored, the first is reused, 9 have 5 epochs: 200 / 45.
    Interval 1: 19 have 5 epochs: 200 / 95. Counted in examples, which is exact.
    """
    toy = ToyFederation(tmp_path, clients=3)
    toy.federation.train = {**toy.federation.train, "local_epochs": 10, "batch_size": 64}
    arrays = toy.learn(20)
    examples = []
    for i, strategy in enumerate((Retrain(), FedEraser(interval=interval, ratio=0.5))):
        twin = toy.branch(tmp_path / str(i))
        twin.unlearn(strategy, request("client"), arrays)
        examples.append(twin.federation.costs["unlearn"].examples)
    assert examples[0] == 20 * 10 * (8 + 14)
    assert examples[0] / examples[1] == wanted

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn import functional

from clients import steps
from clients.participant import arrays_of
from clients.steps import Local, Outcome, Shard
from strategies.local_model.gradient_ascent import GradientAscent, project, reference
from tests.support.toy import ToyFederation, ToyModel, record_configs, request, shard
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.protocol import Scalar, Wire
from unlearning.records.memory import ClientMemory
from unlearning.request import Request, Scope

# The server's projection --------------------------------------------------------------------


def test_projection_by_hand() -> None:
    """From (1, -1) to (4, 3) is (3, 4), length 5; half of it is (1.5, 2)."""
    centre = {"w": np.array([1.0, -1.0]), "running_mean": np.array([7.0])}
    point = {"w": np.array([4.0, 3.0]), "running_mean": np.array([9.0])}
    found = project(centre, point, 2.5)
    np.testing.assert_allclose(found["w"], [2.5, 1.0])
    assert found["running_mean"] == 9


def test_inside_the_ball_nothing_happens() -> None:
    centre, point = {"w": np.zeros(2)}, {"w": np.array([3.0, 4.0])}
    assert project(centre, point, 5.0) is point
    assert project(centre, point, float("inf")) is point


VALUES = hnp.arrays(np.float64, (3,), elements=st.floats(-64, 64, width=16))


@given(VALUES, VALUES, st.floats(0, 50))
def test_projection_is_onto_the_ball(centre: np.ndarray, point: np.ndarray, radius: float) -> None:
    found = project({"w": centre}, {"w": point}, radius)["w"]
    distance = np.linalg.norm(point - centre)
    assert np.linalg.norm(found - centre) == pytest.approx(min(radius, distance), abs=1e-9)


# The client's step --------------------------------------------------------------------------

STILL = 1e-30  # a rate with which no float32 moves

SETTINGS: dict[str, Scalar] = {
    "ascent_rate": 0.1,
    "ascent_epochs": 1,
    "momentum": 0.0,
    "batch_size": 4,
    "clip": 5.0,
    "radius": 100.0,
    "stop_distance": 0.0,
    "stop_accuracy": 0.0,
    "share": 0.0,
    "last_round": 3,
}


def ascend(
    model: nn.Module,
    forget: Shard,
    remembered: Arrays | None = None,
    *,
    of_round: int = 3,
    **settings: Scalar,
) -> Outcome:
    local = Local(
        retain=forget.take(torch.arange(0)),
        forget=forget,
        held_out=forget,
        fresh_model=ToyModel,
        remembered=remembered,
        facts={"round": of_round},
    )
    generator = np.random.default_rng(0)
    return steps.find("ascend")(model, local, {**SETTINGS, **settings}, generator)


def weights(arrays: Arrays) -> np.ndarray:
    found = named.parameters(arrays).values()
    return np.concatenate([array.astype(float).ravel() for array in found])


def loss(arrays: Arrays, examples: Shard) -> float:
    logits = examples.features.numpy() @ arrays["layer.weight"].T + arrays["layer.bias"]
    return float(functional.cross_entropy(torch.from_numpy(logits), examples.labels))


def test_the_reference_is_the_average_of_the_others() -> None:
    """Oracle 13: (1 - p) w_ref + p w_u = w."""
    share, model, last = 0.3, ToyModel(1), arrays_of(ToyModel(2))
    whole = weights(arrays_of(model))
    ascend(model, shard(1, 8), last, share=share, ascent_rate=STILL)
    reference = weights(arrays_of(model))
    np.testing.assert_allclose((1 - share) * reference + share * weights(last), whole, rtol=1e-5)
    assert not np.allclose(reference, whole)


@pytest.mark.parametrize(
    "changes", [{"share": 0.0}, {"of_round": 2}, {"remembered": None}, {"share": 1.0}]
)
def test_without_a_part_in_the_average_the_ball_lies_around_the_model(
    changes: dict[str, object],
) -> None:
    given: dict[str, object] = {"remembered": arrays_of(ToyModel(2)), "share": 0.3, **changes}
    model = ToyModel(1)
    ascend(model, shard(1, 8), ascent_rate=STILL, **given)  # type: ignore[arg-type]
    np.testing.assert_array_equal(weights(arrays_of(model)), weights(arrays_of(ToyModel(1))))


def test_the_loss_on_the_forget_set_goes_up() -> None:
    model, forget = ToyModel(1), shard(1, 16)
    before = loss(arrays_of(model), forget)
    outcome = ascend(model, forget, ascent_epochs=3)
    assert loss(arrays_of(model), forget) > before + 0.1
    assert (outcome.num_examples, outcome.examples_processed) == (16, 48)


def test_the_step_stays_in_the_ball() -> None:
    model = ToyModel(1)
    outcome = ascend(model, shard(1, 16), ascent_rate=2.0, radius=0.25, ascent_epochs=3)
    distance = np.linalg.norm(weights(arrays_of(model)) - weights(arrays_of(ToyModel(1))))
    assert distance == pytest.approx(0.25, rel=1e-5)
    assert outcome.metrics["distance"] == pytest.approx(distance, rel=1e-6)
    assert outcome.metrics["radius"] == 0.25


def test_the_radius_comes_from_fresh_models() -> None:
    """sqrt(1/3) of the root mean square distance of ten fresh models: delta^2 = mean(d^2) / 3."""
    model = ToyModel(1)
    centre = weights(arrays_of(model))
    seeds = np.random.default_rng(0).integers(2**31, size=10)
    fresh = [weights(arrays_of(ToyModel(int(seed)))) for seed in seeds]
    wanted = np.sqrt(np.mean([((one - centre) ** 2).sum() for one in fresh]) / 3)
    outcome = ascend(model, shard(1, 8), radius=0.0)
    assert outcome.metrics["radius"] == pytest.approx(wanted, rel=1e-5)


class Bias(nn.Module):
    """Two logits, the same for every example."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w.expand(len(x), 2)


def bias_ascend(**settings: Scalar) -> tuple[np.ndarray, list[int]]:
    """Ascend on one example of each class, one after the other; return logits and the order."""
    forget = Shard(torch.zeros(2, 1), torch.tensor([0, 1]))
    model = Bias()
    local = Local(forget.take(torch.arange(0)), forget, forget, Bias)
    given = {**SETTINGS, "batch_size": 1, "ascent_rate": 1.0, **settings}
    steps.find("ascend")(model, local, given, np.random.default_rng(0))
    return model.w.detach().double().numpy(), np.random.default_rng(0).permutation(2).tolist()


def test_one_pass_by_hand() -> None:
    """At w = 0 both probabilities are 1/2; ascent on class y adds (1/2, 1/2) - e_y.

    So class a first: w_a = -1/2, w_b = 1/2. Then p_a = 1 / (1 + e), p_b = 1 - p_a, and ascent on
    class b adds p_a to w_a and p_b - 1 = -p_a to w_b.
    """
    found, (a, b) = bias_ascend()
    p = 1 / (1 + np.e)
    assert found[a] == pytest.approx(-0.5 + p, rel=1e-5)
    assert found[b] == pytest.approx(0.5 - p, rel=1e-5)


def test_gradients_are_clipped_by_hand() -> None:
    """The first gradient is (1/2, 1/2) - e_a, length sqrt(1/2); clipped to 0.1 it is 0.1 long."""
    found, (a, b) = bias_ascend(clip=0.1, stop_distance=1e-6)
    assert found[a] == pytest.approx(-0.1 / np.sqrt(2), rel=1e-4)
    assert found[b] == pytest.approx(0.1 / np.sqrt(2), rel=1e-4)


def test_momentum_does_not_survive_a_projection() -> None:
    """Both steps leave the ball, in opposite directions.

    The second gradient is as long as the first, so that with 0.9 of the first still in it, it
    would get from one side of the ball of radius 0.2 only to about 0.13 on the same side; alone it
    crosses the ball.
    """
    found, (a, b) = bias_ascend(momentum=0.9, radius=0.2)
    assert np.linalg.norm(found) == pytest.approx(0.2, rel=1e-5)
    assert found[a] > 0 > found[b]


def test_momentum_survives_a_projection_where_it_is_wanted() -> None:
    """As above with 0.9 of the first step still in the second one: it stays on the same side."""
    found, (a, b) = bias_ascend(momentum=0.9, radius=0.2, restart=False)
    assert found[a] < 0 < found[b]


def test_below_0_there_is_no_ball() -> None:
    """The two steps of one pass by hand, as far as they go."""
    assert np.array_equal(bias_ascend(radius=-1.0)[0], bias_ascend(radius=100.0)[0])


def test_momentum_counts_inside_the_ball() -> None:
    """As by hand above, with 0.9 of the first step (-1/2, 1/2) added to the second."""
    found, (a, b) = bias_ascend(momentum=0.9)
    p = 1 / (1 + np.e)
    assert found[a] == pytest.approx(-0.5 + p - 0.45, rel=1e-5)
    assert found[b] == pytest.approx(0.5 - p + 0.45, rel=1e-5)


@pytest.mark.parametrize("remembered", [False, True])
def test_the_ascent_ends_at_a_distance(remembered: bool) -> None:
    """Measured from the leaver's own last model if that is known, else from the global one."""
    last = arrays_of(ToyModel(2)) if remembered else None
    share = 0.3 if remembered else 0.0
    given = {"ascent_epochs": 50, "share": share}
    model, forget = ToyModel(1), shard(1, 16)
    full = ascend(ToyModel(1), forget, last, **given)
    outcome = ascend(model, forget, last, stop_distance=3.0, **given)
    start = weights(last if last is not None else arrays_of(ToyModel(1)))
    distance = np.linalg.norm(weights(arrays_of(model)) - start)
    assert 3.0 < distance < 3.0 + 0.1 * 5
    assert outcome.examples_processed < full.examples_processed == 50 * 16


def test_the_ascent_ends_when_the_forget_set_is_forgotten() -> None:
    model, forget = ToyModel(1), shard(1, 16)
    given = {"ascent_epochs": 50, "stop_accuracy": 0.3}
    outcome = ascend(model, forget, **given)
    arrays = arrays_of(model)
    logits = forget.features.numpy() @ arrays["layer.weight"].T + arrays["layer.bias"]
    assert (logits.argmax(1) == forget.labels.numpy()).mean() < 0.3
    assert 0 < outcome.examples_processed < 50 * 16


def test_an_empty_forget_set_gives_weight_zero() -> None:
    model = ToyModel(1)
    outcome = ascend(model, shard(1, 8).take(torch.arange(0)))
    assert (outcome.num_examples, outcome.examples_processed) == (0, 0)
    np.testing.assert_array_equal(weights(arrays_of(model)), weights(arrays_of(ToyModel(1))))


# In a federation ----------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> ToyFederation:
    return ToyFederation(tmp_path)


def shares(seen: list[dict[str, object]]) -> dict[int, float]:
    """Return client -> share in the average, of all ascents asked for."""
    found = {}
    for config in seen:
        if config[Wire.STEP] == "ascend":
            settings = json.loads(str(config[Wire.SETTINGS]))
            found[int(str(config[Wire.CLIENT]))] = settings["share"]
    return found


def test_the_leaver_alone_is_asked_and_told_its_share(toy: ToyFederation) -> None:
    """11 of 8 + 11 + 14 + 17 = 50 examples."""
    arrays, seen = toy.learn(2), record_configs(toy)
    toy.unlearn(GradientAscent(), request("client", 1), arrays)
    assert [(c[Wire.CLIENT], c[Wire.STEP]) for c in seen] == [(1, "ascend")]
    assert shares(seen) == {1: pytest.approx(11 / 50)}
    settings = json.loads(str(seen[0][Wire.SETTINGS]))
    assert settings["last_round"] == 2
    assert settings["ascent_rate"] == 0.01
    assert settings["momentum"] == 0.9
    assert settings["batch_size"] == 128


def test_the_model_forgets_the_leaver(toy: ToyFederation) -> None:
    """Oracle 13: the loss on the forget set went up; it was the leaver who found the way."""
    arrays = toy.learn(3)
    options = {"ascent_rate": 0.1, "stop_distance": 0.0}
    after = toy.unlearn(GradientAscent(**options), request("client", 1), arrays)  # type: ignore[arg-type]
    assert loss(after, toy.shards[1]) > loss(arrays, toy.shards[1]) + 0.1


def test_the_clients_reference_is_the_average_of_the_others_update(toy: ToyFederation) -> None:
    """With a rate that moves nothing, the answer is the mean of what the other three brought."""
    arrays = toy.learn(2)
    history = toy.federation.history
    others = named.weighted_mean(
        (toy.sizes[client], history.update(2, client)) for client in (0, 2, 3)
    )
    wanted = named.apply_update(history.arrays(2), others)
    strategy = GradientAscent(ascent_rate=1e-12, ascent_momentum=0.0, radius=100.0)
    after = toy.unlearn(strategy, request("client", 1), arrays)
    np.testing.assert_allclose(weights(after), weights(wanted), rtol=1e-4, atol=1e-6)


FREE = {"ascent_rate": 0.1, "stop_distance": 0.0, "trust": 0.0, "ascent_momentum": 0.0}


@pytest.mark.parametrize("leavers", [(1,), (1, 2)])
def test_a_later_round_climbs_on_inside_the_same_ball(
    toy: ToyFederation, tmp_path: Path, leavers: tuple[int, ...]
) -> None:
    arrays, asked = toy.learn(3), Request(Scope.CLIENT, clients=leavers)

    def found(name: str, **options: float) -> Arrays:
        strategy = GradientAscent(**{**FREE, **options})  # type: ignore[arg-type]
        return toy.branch(tmp_path / name).unlearn(strategy, asked, arrays)

    losses = [
        loss(found(f"far-{n}", radius=100.0, ascent_rounds=n), toy.shards[1]) for n in (1, 2, 3)
    ]
    assert losses[0] < losses[1] < losses[2]
    reference = weights(found("still", ascent_rate=1e-12, radius=100.0))
    for n in (1, 3):
        near = weights(found(f"near-{n}", radius=0.1, ascent_rounds=n))
        if len(leavers) == 1:
            assert np.linalg.norm(near - reference) == pytest.approx(0.1, rel=1e-2)
        assert np.linalg.norm(near - reference) < 0.1 + 1e-3


def test_buffers_stay_those_of_the_global_model(toy: ToyFederation) -> None:
    """Statistics of the forget set are the last thing to keep."""
    arrays = toy.learn(2)
    after = toy.unlearn(GradientAscent(), request("client", 1), arrays)
    for name in ("running_mean", "num_batches_tracked"):
        np.testing.assert_array_equal(after[name], arrays[name])


def test_who_was_not_in_the_last_round_has_no_share(toy: ToyFederation) -> None:
    draw = toy.federation.sample
    toy.federation.sample = lambda t, clients: tuple(  # type: ignore[method-assign]
        c for c in draw(t, clients) if t == 1 or c != 1
    )
    arrays, seen = toy.learn(2), record_configs(toy)
    toy.unlearn(GradientAscent(), request("client", 1), arrays)
    assert shares(seen) == {1: 0.0}


def test_a_second_request_before_the_next_round_has_no_share(toy: ToyFederation) -> None:
    """The model is no longer the average of the last round; after a further round it is again."""
    arrays, seen = toy.learn(2), record_configs(toy)
    for client in (1, 2):
        toy.federation.ledger.receive(request("client", client))
    toy.run(GradientAscent(), arrays, rounds=0)
    assert shares(seen) == {1: pytest.approx(11 / 50), 2: 0.0}
    toy.federation.ledger.receive(request("client", 3))
    toy.run(GradientAscent(), arrays, rounds=0)
    assert shares(seen)[3] == pytest.approx(17 / 25)


SEVERAL = Request(Scope.CLIENT, clients=(1, 3))


def test_several_leavers_are_taken_out_of_the_average_together(toy: ToyFederation) -> None:
    """Without an ascent the answer is the average of the others' last local models."""
    arrays, history = toy.learn(2), toy.federation.history
    after = toy.unlearn(GradientAscent(ascent_rate=1e-12, trust=100.0), SEVERAL, arrays)
    left, start = history.weights(2, without=(1, 3)), history.arrays(2)
    others = named.weighted_mean(
        (share, named.apply_update(start, history.update(2, client)))
        for client, share in left.items()
    )
    np.testing.assert_allclose(weights(after), weights(others), rtol=1e-5, atol=1e-6)
    own = (named.apply_update(start, history.update(2, client)) for client in (1, 3))
    single = named.weighted_mean(  # the planted fault: each still holds the other
        (n, {k: (arrays[k] - p * w[k]) / (1 - p) for k in named.parameters(arrays)})
        for n, p, w in zip((11, 17), map(history.weights(2).get, (1, 3)), own, strict=True)
    )
    assert np.abs(weights(single) - weights(others)).max() > 1e-2
    for name in ("running_mean", "num_batches_tracked"):
        np.testing.assert_array_equal(after[name], arrays[name])


def test_several_leavers_ascend_from_one_reference_inside_one_ball(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    still = toy.branch(toy.home.with_name("still"))
    centre = still.unlearn(GradientAscent(ascent_rate=1e-12, trust=100.0), SEVERAL, arrays)
    twin = toy.branch(toy.home.with_name("twin"))
    strategy = GradientAscent(radius=0.05, ascent_rate=0.5, trust=100.0, stop_distance=0.0)
    after = twin.unlearn(strategy, SEVERAL, arrays)
    distance = np.linalg.norm(weights(after) - weights(centre))
    assert 0.01 < distance < 0.05 * (1 + 1e-4)
    assert twin.asked == [(k, step) for step in ("last_local", "ascend") for k in (1, 3)]


@pytest.mark.parametrize("shares", [{1: 0.3, 3: 0.45}, {1: 0.0, 3: 0.2}])
def test_the_reference_of_several_by_its_identities(shares: dict[int, float]) -> None:
    """(1 - p_U) w_ref + sum p_u w_u = w; no leaver's model has any weight in w_ref."""
    rng = np.random.default_rng(0)
    model = {"w": rng.normal(size=5), "running_mean": np.ones(2)}
    locals_ = {u: {"w": rng.normal(size=5), "running_mean": np.zeros(2)} for u in shares}
    found = reference(model, locals_, {"": shares})
    left = 1 - sum(shares.values())
    back = left * found["w"] + sum(p * locals_[u]["w"] for u, p in shares.items())
    np.testing.assert_allclose(back, model["w"], rtol=1e-14)
    np.testing.assert_array_equal(found["running_mean"], model["running_mean"])
    moved = {u: {**w, "w": w["w"] + 7.0} for u, w in locals_.items()}
    follows = {**model, "w": model["w"] + 7.0 * sum(shares.values())}
    again = reference(follows, moved, {"": shares})
    np.testing.assert_allclose(again["w"], found["w"], rtol=1e-12, atol=1e-13)


def test_a_leaver_whose_model_is_not_there_is_named(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    for path in toy.home.glob("client-00003/*.safetensors"):
        path.unlink()
    with pytest.raises(FederationError, match=r"clients \[3\]"):
        toy.unlearn(GradientAscent(), SEVERAL, arrays)


def note(answers: list[Arrays], names: list[str]) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    def noting(arrays: list[np.ndarray]) -> list[np.ndarray]:
        answers.append(dict(zip(names, arrays, strict=True)))
        return arrays

    return noting


@pytest.mark.parametrize("leavers", [(1,), (1, 2)])
def test_the_only_participants_of_the_last_round_are_refused(
    toy: ToyFederation, leavers: tuple[int, ...]
) -> None:
    """Their average without them is undefined: p = 1."""
    draw = toy.federation.sample
    toy.federation.sample = lambda t, clients: (  # type: ignore[method-assign]
        draw(t, clients) if t == 1 else leavers
    )
    arrays = toy.learn(2)
    with pytest.raises(FederationError, match=r"only participants of the last .* use retrain"):
        toy.unlearn(GradientAscent(), Request(Scope.CLIENT, clients=leavers), arrays)
    assert {step for _, step in toy.asked} == {"train"}


@pytest.mark.parametrize("scope", ["sample", "class"])
def test_owners_who_stay_ascend_around_the_model(toy: ToyFederation, scope: str) -> None:
    arrays, seen = toy.learn(2), record_configs(toy)
    asked = request(scope, 1)
    toy.federation.ledger.receive(asked)
    toy.run(GradientAscent(), arrays, rounds=0)
    owners = {1} if scope == "sample" else {0, 1, 2, 3}
    assert shares(seen) == dict.fromkeys(owners, 0.0)
    forgotten = {client: count for client, step, count in toy.seen if step == "ascend"}
    labels = {k: one.labels.numpy() for k, one in toy.shards.items()}
    wanted = {1: 3} if scope == "sample" else {k: int((y == 2).sum()) for k, y in labels.items()}
    assert forgotten == wanted
    assert toy.federation.roster.clients == (0, 1, 2, 3)


@pytest.mark.parametrize("trust", [1.0, 0.1])
def test_a_malicious_answer_is_bounded(toy: ToyFederation, trust: float) -> None:
    """No farther from the model than ``trust`` times the model is from where it began."""
    arrays = toy.learn(3)
    toy.faults[1] = lambda answer: [a + 50 if a.dtype.kind == "f" else a for a in answer]
    after = toy.unlearn(GradientAscent(trust=trust), request("client", 1), arrays)
    travelled = named.norm(named.subtract(arrays, toy.initial))
    moved = named.norm(named.subtract(after, arrays))
    assert moved == pytest.approx(trust * travelled, rel=1e-4)


def test_a_poisonous_answer_ends_in_words_and_keeps_the_data_out(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    toy.faults[1] = lambda answer: [
        np.full_like(a, np.nan) if a.dtype.kind == "f" else a for a in answer
    ]
    asked = request("client", 1)
    toy.federation.ledger.receive(asked)
    after = toy.run(GradientAscent(), arrays, rounds=0)
    assert toy.federation.ledger.state(asked.id) == "failed"
    assert named.is_finite(after)
    reason = str(toy.federation.ledger.events(asked.id)[-1].facts)
    assert "client 1: quarantined: a value of array 'running_mean' is not finite" in reason
    assert toy.federation.roster.clients == (0, 2, 3)


def test_a_leaver_that_lost_its_last_model_can_still_help(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    for path in toy.home.rglob("*.safetensors"):
        path.unlink()
    after = toy.unlearn(GradientAscent(), request("client", 1), arrays)
    assert loss(after, toy.shards[1]) > loss(arrays, toy.shards[1])


def test_the_last_model_is_gone_when_the_request_is_served(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    toy.federation.ledger.receive(request("client", 1))
    toy.run(GradientAscent(), arrays, rounds=0)
    assert ClientMemory(toy.home, 1).recall("last_local") is None
    assert ClientMemory(toy.home, 1).tombstones.everything
    assert ClientMemory(toy.home, 2).recall("last_local") is not None


def test_without_the_last_models_it_says_so(toy: ToyFederation) -> None:
    toy.federation.remember = False
    arrays = toy.learn(1)
    with pytest.raises(ConfigError, match="kept their last local model"):
        toy.unlearn_checked(GradientAscent(), request("client", 1), arrays)


@pytest.mark.parametrize(
    "options",
    [
        {"ascent_rate": 0.0},
        {"ascent_epochs": 0},
        {"ascent_momentum": 1.5},
        {"ascent_batch_size": 0},
        {"clip": 0.0},
        {"radius": -1.0},
        {"stop_distance": -1.0},
        {"stop_accuracy": 1.5},
        {"trust": -1.0},
    ],
)
def test_options_are_checked(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"option '{name}'"):
        GradientAscent(**options)  # type: ignore[arg-type]

"""Newton in a federation: within the budget one step, beyond it a new beginning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.app import Message

from experiments.models import networks as models
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.structure.newton import Newton
from tests.support.toy import CLASSES, FEATURES, ToyFederation, request
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.models import newton
from unlearning.models.logistic_model import LogisticModel
from unlearning.request import Guarantee, Request, Scope

GENEROUS = {"epsilon": 1e6}


def federation(home: Path, key: bytes | None = b"for a test", **more: object) -> ToyFederation:
    made = ToyFederation(home)
    settings = {"penalty": 0.02, "sigma": 0.1, **more}
    model = models.array_model("logistic", (FEATURES,), CLASSES, settings, 3)
    assert isinstance(model, LogisticModel)
    model.key = key
    made.federation.model, made.initial = model, model.initial()
    return made


@pytest.fixture
def toy(tmp_path: Path) -> ToyFederation:
    return federation(tmp_path)


SEARCHED = {"direct_up_to": 0, "tolerance": 1e-12, "products": 6}
LONG = 8 * 9  # nine steps: as many products as features, gradient, bound, rounding


@pytest.fixture
def lean(tmp_path: Path) -> ToyFederation:
    """Return the same federation, in which nobody forms a matrix."""
    return federation(tmp_path / "lean", **SEARCHED)


@pytest.fixture(scope="module")
def converged(tmp_path_factory: pytest.TempPathFactory) -> tuple[ToyFederation, Arrays]:
    """Return it when it has learned, and its model; it is there to be branched from."""
    made = federation(tmp_path_factory.mktemp("lean") / "lean", **SEARCHED)
    return made, made.run(UnlearningStrategy(), rounds=LONG)


@pytest.fixture
def searched(
    converged: tuple[ToyFederation, Arrays], tmp_path: Path
) -> tuple[ToyFederation, Arrays]:
    """Return a branch of it, with noise of its own to destroy, and its model."""
    made, arrays = converged
    twin = made.branch(tmp_path / "twin")
    twin.federation.model = cast(LogisticModel, made.federation.model).twin()
    return twin, arrays


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_one_step_brings_the_model_near_the_retrained_one(toy: ToyFederation, scope: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=12)
    asked = request(scope)
    after = toy.unlearn_checked(Newton(**GENEROUS), asked, arrays)
    expected = toy.unlearn_checked(Retrain(), asked, arrays)
    far = np.linalg.norm(arrays["weights"] - expected["weights"])
    near = np.linalg.norm(after["weights"] - expected["weights"])
    assert near < far / (10 if scope == "sample" else 2)
    assert after["counts"].tolist() == expected["counts"].tolist()


@pytest.mark.parametrize("searched", [False, True])
def test_where_nobody_holds_an_example_any_more_the_model_is_nobodys(
    tmp_path: Path, searched: bool
) -> None:
    toy = federation(tmp_path, **(SEARCHED if searched else {}))
    arrays = toy.learn_without_serving(12 if not searched else LONG)
    toy.federation.recovery_rounds = 1
    everything = {client: tuple(range(size)) for client, size in toy.sizes.items()}
    asked = Request(Scope.SAMPLE, samples=everything, id="all")
    toy.federation.ledger.receive(asked)
    after = toy.run(Newton(), arrays, rounds=0)
    assert toy.federation.ledger.state("all") == "fulfilled"
    assert not after["weights"].any()
    assert not after["counts"].any()
    assert after["epoch"].tolist() == [1]


def test_bounds_add_up_until_the_budget_is_used_and_noise_is_drawn_anew(
    toy: ToyFederation,
) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=12)
    asked = [Request(Scope.SAMPLE, samples={3: (i,)}) for i in range(3)]
    strategy = Newton(**GENEROUS)
    first = toy.unlearn(strategy, asked[0], arrays)
    second = toy.unlearn(strategy, asked[1], first)
    assert 0 < first["spent"][0] < second["spent"][0] == strategy.spent
    # A budget between the two: delta = 1.5 exp(-1/2) makes c = 1, so it is sigma epsilon.
    limit = float(second["spent"][0]) * 1.01 / 0.1
    narrow = Newton(epsilon=limit, delta=1.5 * math.exp(-0.5), newton_rounds=8)
    third = toy.unlearn(narrow, asked[2], second)
    assert narrow.budget == pytest.approx(0.1 * limit)
    assert third["epoch"][0] == 1
    assert third["spent"][0] == 0
    model = cast(LogisticModel, toy.federation.model)
    noise = model.noise(third)
    assert not np.allclose(noise, model.noise(second))
    # Learned anew, without any of the three: converged with the new noise.
    left = [held.table() for held in toy.shards.values()]
    left[3] = (left[3][0][3:], left[3][1][3:])
    rows = newton.rows_of(np.concatenate([x for x, _ in left]))
    labels = np.concatenate([y for _, y in left])
    found = newton.terms(third["weights"], rows, labels)
    slope = newton.gradient(third["weights"], found, noise, 0.02)
    assert np.abs(slope).max() < 1e-9


def test_within_the_budget_clients_are_asked_once(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=3)
    toy.asked.clear()
    toy.unlearn(Newton(**GENEROUS), request("client"), arrays)
    assert toy.asked == [(k, "newton_terms") for k in (0, 2, 3)]


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_a_step_that_is_searched_for_is_the_direct_one(
    toy: ToyFederation, searched: tuple[ToyFederation, Arrays], scope: str
) -> None:
    expected = toy.run(UnlearningStrategy(), rounds=12)
    lean, arrays = searched
    np.testing.assert_allclose(arrays["weights"], expected["weights"], atol=1e-9)
    expected = toy.unlearn(Newton(**GENEROUS), request(scope), expected)
    lean.asked.clear()
    found = lean.unlearn(Newton(**GENEROUS), request(scope), arrays)
    np.testing.assert_allclose(found["weights"], expected["weights"], atol=1e-9)
    assert found["counts"].tolist() == expected["counts"].tolist()
    # The bound takes the sum of the clients' largest eigenvalues for that of the whole.
    assert expected["spent"] * (1 - 1e-6) <= found["spent"] < 1.5 * expected["spent"]
    steps = list(dict.fromkeys(step for _, step in lean.asked))
    assert steps == ["newton_terms", "newton_products"]
    remaining = 3 if scope == "client" else 4
    assert len(lean.asked) <= remaining * (FEATURES + 1 + 3)


def test_a_request_in_the_middle_of_a_search_leaves_nothing_of_it(lean: ToyFederation) -> None:
    for rounds in (30, 31, 32):
        twin = lean.branch(lean.home.with_name(f"twin-{rounds}"))
        arrays = twin.run(UnlearningStrategy(), rounds=rounds)
        strategy = Newton(**GENEROUS)
        strategy.join(twin.federation)
        begun, _ = strategy.prepare(request("client"), twin.federation.history, arrays)
        assert begun["stage"] == 0
        assert not begun["direction"].any()
        after = twin.unlearn(strategy, request("client"), arrays)
        assert after["stage"] == after["goal"] == after["stretch"] == 0
        assert not any(after[name].any() for name in ("solution", "residual", "direction"))
        assert (after["weights"] != arrays["weights"]).all()


def test_a_client_lost_on_the_way_is_left_out_of_the_whole_step(
    searched: tuple[ToyFederation, Arrays],
) -> None:
    lean, arrays = searched
    answered: list[str] = []

    def stays_away(answer: list[np.ndarray]) -> list[np.ndarray]:
        if len(answered) > 2:
            raise RuntimeError("gone")
        answered.append(lean.asked[-1][1])
        return answer

    lean.asked.clear()
    lean.faults[0] = stays_away
    after = lean.unlearn(Newton(**GENEROUS), request("sample", client=3), arrays)
    assert answered == ["newton_terms", "newton_products", "newton_products"]
    assert after["counts"].sum() == sum(lean.sizes.values()) - lean.sizes[0] - 3
    left = [lean.shards[client].table() for client in (1, 2)]
    x, labels = lean.shards[3].table()
    stays = np.setdiff1d(np.arange(len(labels)), (0, 2, 5))
    left.append((x[stays], labels[stays]))
    rows = newton.rows_of(np.concatenate([x for x, _ in left]))
    found = newton.terms(arrays["weights"], rows, np.concatenate([y for _, y in left]))
    noise = cast(LogisticModel, lean.federation.model).noise(arrays)
    expected = arrays["weights"] + newton.step(arrays["weights"], found, noise, 0.02)
    np.testing.assert_allclose(after["weights"], expected, atol=1e-9)


def test_clients_that_come_and_go_are_an_error_and_no_model(
    searched: tuple[ToyFederation, Arrays],
) -> None:
    lean, arrays = searched
    calls = iter(range(10**6))

    def now_and_then(answer: list[np.ndarray]) -> list[np.ndarray]:
        if next(calls) % 2:
            raise RuntimeError("away")
        return answer

    lean.faults[0] = now_and_then
    with pytest.raises(FederationError, match="found no step"):
        lean.unlearn(Newton(**GENEROUS, newton_rounds=1), request("sample", client=3), arrays)


def test_beyond_the_budget_a_search_begins_anew_too(
    searched: tuple[ToyFederation, Arrays],
) -> None:
    lean, arrays = searched
    strategy = Newton(epsilon=1e-6, newton_rounds=9)
    after = lean.unlearn(strategy, request("client"), arrays)
    assert after["epoch"] == 1
    assert after["spent"] == strategy.spent == 0
    left = [lean.shards[client].table() for client in (0, 2, 3)]
    rows = newton.rows_of(np.concatenate([x for x, _ in left]))
    found = newton.terms(after["weights"], rows, np.concatenate([y for _, y in left]))
    noise = cast(LogisticModel, lean.federation.model).noise(after)
    assert np.abs(newton.gradient(after["weights"], found, noise, 0.02)).max() < 1e-9


def test_rounds_in_which_nobody_is_asked_are_not_shown(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=3)
    shown: list[int] = []
    toy.federation.watch = lambda phase, server_round, arrays: shown.append(server_round)
    toy.unlearn(Newton(**GENEROUS), request("client"), arrays)
    assert shown == [1]


def test_the_noise_stays_at_the_server(toy: ToyFederation) -> None:
    one_copy = 4 * (CLASSES * (FEATURES + 1) * 8 + 128)
    toy.run(UnlearningStrategy(), rounds=1)
    assert toy.federation.costs["learn"].bytes_down <= one_copy


def test_no_message_state_or_history_holds_the_noise(tmp_path: Path) -> None:
    """What everybody can see: whatever was sent, what the federation keeps, what it released."""
    toy = federation(tmp_path, key=None)
    sent: list[np.ndarray] = []
    push = toy.grid.push_messages

    def noting(messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        for message in batch:
            sent.extend(a.numpy() for a in message.content["arrays"].values())
        return push(batch)

    toy.grid.push_messages = noting  # type: ignore[method-assign]
    arrays = toy.run(UnlearningStrategy(), rounds=6)
    strategy = Newton(**GENEROUS)
    after = toy.unlearn(strategy, request("client"), arrays)
    model, history = cast(LogisticModel, toy.federation.model), toy.federation.history
    noise = model.noise(after)
    seen = [*sent, *after.values(), *arrays.values(), *history.initial.values()]
    shaped = [array for array in seen if array.shape == noise.shape]
    assert len(shaped) > 10
    assert min(np.abs(array - noise).max() for array in shaped) > model.sigma / 10
    assert strategy.guarantee is Guarantee.CERTIFIED
    key = model.vault.key(0)
    assert key.hex() not in repr(vars(strategy)) + repr(vars(model)) + repr(toy.federation)


def test_noise_is_fresh_for_every_run_and_epoch_and_given_keys_are_not_certified(
    tmp_path: Path,
) -> None:
    one, two = (federation(tmp_path / place, key=None).federation.model for place in "ab")
    assert isinstance(one, LogisticModel)
    assert isinstance(two, LogisticModel)
    draws = [model.noise(model.begun(epoch)) for model in (one, two) for epoch in (0, 1)]
    for left, right in itertools.combinations(draws, 2):
        assert np.abs(left - right).max() > 0.01
    np.testing.assert_array_equal(one.noise(one.begun(0)), draws[0])
    toy = federation(tmp_path / "given")
    strategy = Newton()
    strategy.join(toy.federation)
    assert strategy.guarantee is Guarantee.APPROXIMATE
    assert Newton.guarantee is Guarantee.CERTIFIED


def test_a_branch_destroys_its_own_keys_alone(tmp_path: Path) -> None:
    toy = federation(tmp_path, key=None)
    arrays = toy.run(UnlearningStrategy(), rounds=6)
    shared = cast(LogisticModel, toy.federation.model)
    noise = shared.noise(arrays)
    toy.unlearn(Newton(epsilon=1e-6, newton_rounds=2), request("client"), arrays)
    mine = cast(LogisticModel, toy.federation.model)
    np.testing.assert_array_equal(shared.noise(arrays), noise)
    assert np.abs(mine.noise(arrays) - noise).max() > 0.01  # gone: drawn anew if asked for


def test_settings_of_the_search_out_of_range_are_refused() -> None:
    for wrong in ({"products": 0}, {"tolerance": 0.0}, {"tolerance": 1.0}):
        with pytest.raises(ConfigError, match=r"products = .*tolerance = "):
            models.array_model("logistic", (4,), 3, wrong)


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"epsilon": 0}, {"delta": 1.0}, {"newton_rounds": 0}):
        with pytest.raises(ConfigError, match="must be from"):
            Newton(**wrong)  # type: ignore[arg-type]

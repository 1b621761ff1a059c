"""Ridge, k-means and support vector machines in a federation: exact against retraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.models import networks as models
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.structure.k_means import KMeans
from strategies.structure.partwise import _Partwise
from strategies.structure.ridge import Ridge
from strategies.structure.svm import Svm
from tests.support.toy import CLASSES, FEATURES, ToyFederation, request
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.fulfil import fulfil
from unlearning.models.parts import clients
from unlearning.request import Request, Scope

FAMILIES: dict[str, type[_Partwise]] = {"ridge": Ridge, "k-means": KMeans, "svm": Svm}
SCOPES = ["client", "sample", "class"]


def _toy(home: Path, name: str, **settings: object) -> ToyFederation:
    toy = ToyFederation(home)
    model = models.array_model(name, (FEATURES,), CLASSES, settings, 3)
    assert model is not None
    toy.federation.model, toy.initial = model, model.initial()
    return toy


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def toy(tmp_path: Path, family: str) -> ToyFederation:
    return _toy(tmp_path, family)


def _same(family: str, found: Arrays, expected: Arrays) -> None:
    """Compare all that retraining determines: not how the inverse came about, nor dual weights."""
    assert clients(found) == clients(expected)
    for name, array in expected.items():
        if name in ("inverse", "downdates") or name.startswith("alpha"):
            continue
        if family == "k-means":
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], array, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("scope", SCOPES)
def test_deletion_equals_retraining(toy: ToyFederation, family: str, scope: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=2)
    asked = request(scope)
    found = toy.unlearn_checked(FAMILIES[family](), asked, arrays)
    _same(family, found, toy.unlearn_checked(Retrain(), asked, arrays))


def test_one_request_after_the_other_equals_retraining(toy: ToyFederation, family: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    generator = np.random.default_rng(5)
    strategy = FAMILIES[family]()
    strategy.join(toy.federation)
    federation = toy.federation
    asked = [
        Request(Scope.SAMPLE, samples={int(k): (int(i),)})
        for k, i in {(k % 4, i) for k, i in generator.integers(8, size=(14, 2))}
    ]
    for one in [*asked, Request(Scope.CLIENT, clients=(2,)), Request(Scope.CLASS, classes=(0,))]:
        arrays = fulfil(one, strategy, arrays, federation.history, federation.ledger)
    fresh = _toy(toy.home / "again", family)
    fresh.federation.forgotten = federation.forgotten
    fresh.federation.roster.forget({2})  # type: ignore[union-attr]
    learner = UnlearningStrategy()
    learner.join(fresh.federation)
    fresh.federation.ledger = federation.ledger
    expected = fresh.run(learner, rounds=1)
    _same(family, arrays, expected)
    probabilities = federation.model.predict(arrays, np.zeros((2, FEATURES)))  # type: ignore[union-attr]
    assert (probabilities[:, 0] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_learning_on_changes_nothing(toy: ToyFederation, family: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    _same(family, toy.run(UnlearningStrategy(), arrays, rounds=2), arrays)


@pytest.mark.parametrize("scope", SCOPES)
def test_only_owners_are_asked_and_never_to_train(
    toy: ToyFederation, family: str, scope: str
) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    toy.asked.clear()
    toy.unlearn_checked(FAMILIES[family](), request(scope), arrays)
    expected = {"client": [], "sample": [1], "class": [0, 1, 2, 3]}[scope]
    assert [client for client, _ in toy.asked] == expected
    assert all(step != "train" for _, step in toy.asked)


def test_an_owner_that_is_lost_is_left_out_whole(toy: ToyFederation, family: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)

    def fail(arrays: list[np.ndarray]) -> list[np.ndarray]:
        raise RuntimeError("gone")

    toy.faults[1] = fail
    after = toy.unlearn_checked(FAMILIES[family](), request("class"), arrays)
    assert clients(after) == (0, 2, 3)
    toy.faults.update(dict.fromkeys(range(4), fail))
    with pytest.raises(FederationError, match="0 of 4 clients"):
        toy.unlearn_checked(FAMILIES[family](), request("class", client=2), arrays)


def test_an_answer_of_the_wrong_shape_is_left_out_by_name(
    toy: ToyFederation, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    toy.faults[2] = lambda arrays: [a[..., :0] for a in arrays]
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    assert 2 not in clients(arrays)
    assert "client 2 answered shape" in caplog.text


def test_the_hooks_change_no_input(toy: ToyFederation, family: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    before = {name: array.copy() for name, array in arrays.items()}
    for scope in SCOPES:
        toy.unlearn(FAMILIES[family](), request(scope), arrays)
    for name, array in before.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_no_message_carries_the_state(toy: ToyFederation, family: str) -> None:
    """Parts of one client are no other's business; what goes down is a few settings."""
    toy.run(UnlearningStrategy(), rounds=1)
    assert toy.federation.costs["learn"].bytes_down == 0


def test_another_familys_strategy_is_refused(toy: ToyFederation, family: str) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    other = next(cls for name, cls in FAMILIES.items() if name != family)
    with pytest.raises(ConfigError, match="does not work on the model"):
        toy.unlearn_checked(other(), request("client"), arrays)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ridge", {"penalty": 0.0}),
        ("ridge", {"refactorise_every": -1}),
        ("k-means", {"cell": 0.0}),
        ("svm", {"kernel": "cubic"}),
        ("svm", {"ceiling": -1.0}),
        ("logistic", {"sigma": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        models.array_model(name, (FEATURES,), CLASSES, settings)


def test_the_inverse_is_computed_anew_in_time(tmp_path: Path) -> None:
    toy = _toy(tmp_path, "ridge", refactorise_every=2)
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    counts = []
    for position in range(5):
        asked = Request(Scope.SAMPLE, samples={3: (position,)})
        arrays = toy.unlearn(Ridge(), asked, arrays)
        counts.append(int(arrays["downdates"][0]))
    assert counts == [1, 2, 0, 1, 2]


def test_seeds_that_stay_cost_a_count_alone(tmp_path: Path) -> None:
    toy = _toy(tmp_path, "k-means", clusters=3)
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    other = next(i for i in range(11) if i not in arrays["seeds/1"])
    toy.unlearn(KMeans(), Request(Scope.SAMPLE, samples={1: (other,)}), arrays)
    assert toy.federation.costs["unlearn"].examples == 1


@pytest.mark.parametrize("name", [*FAMILIES, "logistic"])
def test_nobodys_model_answers_evenly(name: str) -> None:
    model = models.array_model(name, (FEATURES,), CLASSES)
    assert model is not None
    np.testing.assert_allclose(model.predict(model.initial(), np.ones((2, FEATURES))), 1 / CLASSES)
    assert model.predict(model.initial(), np.ones((0, FEATURES))).shape == (0, CLASSES)

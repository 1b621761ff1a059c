"""What every strategy for a model that is no network promises, checked for each that is found.

The checks of ``test_contract.py`` that do not rest on updates, on the same small federations.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from experiments.models import networks as models
from strategies import registry
from strategies.base import EVERY_MODEL, UnlearningStrategy
from tests.support.structure import toy_with
from tests.support.toy import RestlessGrid, ToyFederation, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError, UnsupportedRequestError
from unlearning.fulfil import fulfil
from unlearning.models.array_model import ArrayModel
from unlearning.models.logistic_model import LogisticModel
from unlearning.request import Request, Scope

StrategyClass = type[UnlearningStrategy]

ROUNDS = 5

FOUND = {
    name: cls
    for name, cls in registry.strategies().items()
    if cls.models is not None and cls.models != EVERY_MODEL
}


def cases() -> Iterator[object]:
    for name, cls in FOUND.items():
        for model in sorted(cls.models or ()):
            for scope in sorted(cls.scopes):
                yield pytest.param((cls, model, scope), id=f"{name}-{model}-{scope}")


def made(name: str) -> ArrayModel:
    found = models.array_model(name, (3,), 3, seed=0)
    assert found is not None
    if isinstance(found, LogisticModel):
        found.key = b"so that a test comes out the same twice"
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ToyFederation, Arrays]]:
    found: dict[str, tuple[ToyFederation, Arrays]] = {}
    for name in sorted({name for cls in FOUND.values() for name in cls.models or ()}):
        toy = toy_with(tmp_path_factory.mktemp(name), made(name))
        found[name] = toy, toy.run(UnlearningStrategy(), rounds=ROUNDS)
    return found


@pytest.mark.parametrize("name", FOUND)
def test_declarations(name: str) -> None:
    cls = FOUND[name]
    assert cls.models
    assert cls.models <= set(models.names())
    assert cls.scopes
    assert not cls.needs
    known = registry.options(cls)
    assert cls().options() == known
    assert json.loads(json.dumps(known)) == known
    assert "\nReferences\n----------\n" in (inspect.getdoc(inspect.getmodule(cls)) or "")
    with pytest.raises(ConfigError, match="'no_such_option'"):
        registry.make(name, {"no_such_option": 1})


@pytest.mark.parametrize("name", FOUND)
def test_a_network_and_foreign_scopes_are_refused(
    name: str, learned: dict[str, tuple[ToyFederation, Arrays]], tmp_path: Path
) -> None:
    cls = FOUND[name]
    toy, arrays = learned[min(cls.models or ())]
    for scope in set(Scope) - cls.scopes:
        twin = toy.branch(tmp_path / scope)
        strategy = cls()
        strategy.join(twin.federation)
        with pytest.raises(UnsupportedRequestError):
            fulfil(
                request(scope), strategy, arrays, twin.federation.history, twin.federation.ledger
            )
        assert not twin.grid.pushed
    twin = toy.branch(tmp_path / "network")
    twin.federation.model = None
    with pytest.raises(ConfigError, match="does not work on the model"):
        twin.unlearn_checked(cls(), request(min(cls.scopes)), arrays)


@dataclass(frozen=True)
class Case:
    """A strategy, a model and a scope, and a federation that has learned the model."""

    cls: StrategyClass
    model: str
    scope: Scope
    toy: ToyFederation
    arrays: Arrays


@pytest.fixture(params=list(cases()))
def case(request: pytest.FixtureRequest, learned: dict[str, tuple[ToyFederation, Arrays]]) -> Case:
    cls, model, scope = request.param
    return Case(cls, model, scope, *learned[model])


def test_contract(case: Case, tmp_path: Path) -> None:
    cls, scope, toy, arrays = case.cls, case.scope, case.toy, case.arrays
    for array in arrays.values():
        array.flags.writeable = False
    before = named.digest(arrays)

    def answer(place: str, seed: int | None = None) -> tuple[ToyFederation, Arrays]:
        grid = None if seed is None else RestlessGrid(toy.app, len(toy.sizes), seed)
        twin = toy.branch(tmp_path / place, grid=grid)
        return twin, twin.unlearn_checked(cls(), request(scope), arrays)

    twin, after = answer("first")
    assert named.is_finite(after)
    assert named.digest(arrays) == before
    assert twin.federation.history.participants(1) == toy.federation.history.participants(1)
    if scope is Scope.CLIENT:
        assert cls.asks_forgotten or 1 not in {client for client, _ in twin.asked}
    assert named.digest(answer("again")[1]) == named.digest(after)
    assert named.digest(answer("restless", 1)[1]) == named.digest(after)
    probabilities = made(case.model).predict(after, np.linspace(0, 1, 12).reshape(4, 3))
    assert probabilities.shape == (4, 3)
    assert probabilities.sum(1) == pytest.approx(1)


def test_requests_follow_one_another_and_leave_nothing(case: Case, tmp_path: Path) -> None:
    cls, scope, toy, arrays = case.cls, case.scope, case.toy, case.arrays
    twin = toy.branch(tmp_path)
    twin.federation.recovery_rounds = 1
    wanted = [Request.from_json(request(scope).to_json())]
    if scope is not Scope.CLASS:
        wanted.append(request(scope, 2))
    for asked in wanted:
        twin.federation.ledger.receive(asked)
    twin.run(cls(), arrays, rounds=0)
    states = [twin.federation.ledger.state(asked.id) for asked in wanted]
    assert states == ["fulfilled"] * len(wanted)
    history = twin.federation.history
    assert history.verify() == []
    gone = {client for asked in wanted for client in asked.leavers}
    assert all(not gone & set(history.participants(t)) for t in history.rounds)
    if scope is Scope.CLIENT:
        everybody = Request(Scope.CLIENT, clients=(0, 3))
        left = twin.unlearn(cls(), everybody, arrays)
        assert named.digest(left) == named.digest(toy.initial)


def test_silence_raises(case: Case, tmp_path: Path) -> None:
    twin = case.toy.branch(tmp_path)

    def fails(answer: list[np.ndarray]) -> list[np.ndarray]:
        raise RuntimeError("broken on purpose")

    twin.faults |= dict.fromkeys(twin.sizes, fails)
    strategy = case.cls()
    try:
        twin.unlearn(strategy, request(case.scope), case.arrays)
    except FederationError:
        assert strategy.rewritten is None
    else:
        assert not twin.asked

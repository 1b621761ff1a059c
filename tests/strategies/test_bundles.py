"""Several requests at once and one after the other: none takes back what another did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from strategies.global_model.sifu import Sifu
from strategies.local_model.gradient_ascent import GradientAscent
from strategies.registry import strategies
from tests.support.everyone import Learned, everyone, learned_once, made
from tests.support.taskworld import World
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.models.heads import trunk
from unlearning.request import Guarantee, Request, Scope

LEAVER, OTHER, TASK = 1, 3, Scope.TASK
Bundle = Sequence[Sequence[Request]]  # what is open together, time after time


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Learned]:
    return learned_once(tmp_path_factory.mktemp("learned"), 0)


@pytest.fixture(scope="module")
def kept() -> dict[object, Any]:
    """Keep what strategies and controls answer: the same to all that ask the same of a model.

    A bundle may come to the same as another, without what a strategy does not serve.
    """
    return {}


def client(which: int) -> Request:
    return Request(Scope.CLIENT, clients=(which,))


def samples(*which: int) -> Request:
    return Request(Scope.SAMPLE, samples={LEAVER: which})


def label(which: int) -> Request:
    return Request(Scope.CLASS, classes=(which,))


def everything(toy: ToyFederation) -> Request:
    return samples(*range(toy.sizes[LEAVER]))


BUNDLES: dict[str, Callable[[ToyFederation], Bundle]] = {
    "two-leavers": lambda toy: [[client(LEAVER), client(OTHER)]],
    "two-leavers-apart": lambda toy: [[client(LEAVER)], [client(OTHER)]],
    "two-samples": lambda toy: [[samples(0, 1), samples(2)]],
    "two-classes": lambda toy: [[label(0), label(1)]],
    "sample-class-client": lambda toy: [[samples(0, 2)], [label(0)], [client(LEAVER)]],
    "sample-class-client-at-once": lambda toy: [[samples(0, 2), label(0), client(LEAVER)]],
    "the-same-twice": lambda toy: [[client(LEAVER), client(LEAVER)]],
    "the-same-class-twice": lambda toy: [[label(0)], [label(0)]],
    "all-samples-then-leaving": lambda toy: [[everything(toy)], [client(LEAVER)]],
    "all-samples": lambda toy: [[everything(toy)]],
}


@dataclass(frozen=True)
class Answers:
    """What came of a bundle: the model after recovery, and of every request its edit and end."""

    after: Arrays
    edits: list[Arrays]
    states: list[str]


def answered(
    toy: ToyFederation,
    arrays: Arrays,
    strategy: UnlearningStrategy,
    bundle: Bundle,
    home: Path,
    *,
    batch: int = 1,
    recovery: int = 0,
) -> Answers:
    """Ask for a bundle; a round of recovery follows whatever was open together."""
    edits: list[Arrays] = []

    def note(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
        edits.append(named.copy(after))
        return {}

    twin = toy.branch(home)
    twin.federation.batch, twin.federation.recovery_rounds = batch, recovery
    twin.federation.judge = note
    asked = served(bundle, type(strategy))
    for together in asked:
        for one in together:
            twin.federation.ledger.receive(one)
        arrays = twin.run(strategy, arrays, rounds=0)
    states = [twin.federation.ledger.state(one.id) for many in asked for one in many]
    return Answers(arrays, edits, states)


def served(bundle: Bundle, cls: type[UnlearningStrategy]) -> Bundle:
    """Return what a strategy is asked of a bundle, time after time."""
    return [[one for one in together if one.scope in cls.scopes] for together in bundle]


def control(cls: type[UnlearningStrategy], of: type[UnlearningStrategy]) -> UnlearningStrategy:
    """Return a strategy that serves whatever another one does."""
    kind = type(of.__name__, (of,), {"scopes": cls.scopes, "models": EVERY_MODEL})
    return kind()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize(("cls", "model"), list(everyone()))
def test_a_bundle_is_answered_by_more_than_learning_on(
    cls: type[UnlearningStrategy],
    model: str | None,
    name: str,
    learned: Callable[..., Learned],
    kept: dict[object, Answers],
    tmp_path: Path,
) -> None:
    """By the edit itself, and after a round of recovery."""
    if cls is FineTune or cls.scopes == {Scope.TASK}:
        pytest.skip("the control itself, or a strategy of several tasks")
    toy, arrays = learned(cls, model)
    bundle = BUNDLES[name](toy)
    if not any(served(bundle, cls)):
        pytest.skip("none of the scopes is served")

    def end(strategy: UnlearningStrategy, home: str, batch: int = 1) -> Answers:
        return answered(toy, arrays, strategy, bundle, tmp_path / home, batch=batch, recovery=1)

    def answer_of(of: type[UnlearningStrategy]) -> Answers:
        # What clients keep beside, for other strategies, is nothing to a control.
        wanted = [[replace(one, id="") for one in many] for many in served(bundle, cls) if many]
        key = (of, named.digest(arrays), repr(wanted))
        if key not in kept:
            kept[key] = end(made(cls) if of is cls else control(cls, of), of.__name__)
        return kept[key]

    it = answer_of(cls)
    assert set(it.states) == {"fulfilled"}
    at_first = next(many for many in served(bundle, cls) if many)
    assert named.digest(told(it.edits[len(at_first) - 1])) != named.digest(told(arrays))
    if model is None:  # else learning on is learning again from nothing
        assert named.digest(told(it.after)) != named.digest(told(answer_of(FineTune).after))
    elif cls.guarantee is Guarantee.EXACT:
        exact = answer_of(Retrain)
        for ours, again in zip([*it.edits, it.after], [*exact.edits, exact.after], strict=True):
            same(of_data(ours), of_data(again))
    if len(bundle) == 1 and len(it.states) == 2:
        strategy = made(cls)
        together = end(strategy, "batch", batch=2)
        assert together.states == it.states
        if strategy.guarantee is not Guarantee.CERTIFIED and cls is not Sifu:  # noise is new
            assert named.digest(together.edits[-1]) == named.digest(it.edits[-1])
            assert named.digest(together.after) == named.digest(it.after)


@pytest.mark.parametrize(("cls", "model"), list(everyone()))
def test_a_list_of_all_samples_of_a_client_is_its_leaving(
    cls: type[UnlearningStrategy],
    model: str | None,
    learned: Callable[..., Learned],
    tmp_path: Path,
) -> None:
    if not {Scope.CLIENT, Scope.SAMPLE} <= cls.scopes or cls is GradientAscent:
        pytest.skip("one of the scopes is not served, or answered in another way as it says")
    toy, arrays = learned(cls, model)
    found = [
        answered(toy, arrays, made(cls), [[request]], tmp_path / name).after
        for name, request in (("list", everything(toy)), ("client", client(LEAVER)))
    ]
    if cls.guarantee is Guarantee.CERTIFIED:  # noise is new
        return
    if model is None:
        assert named.digest(told(found[0])) == named.digest(told(found[1]))
    else:
        same(of_data(found[0]), of_data(found[1]))


@pytest.mark.parametrize("recovery", [0, 1], ids=["edit", "recovered"])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("alias", sorted(n for n, c in strategies().items() if TASK in c.scopes))
def test_two_tasks_are_answered_by_more_than_learning_on(
    alias: str, at_once: bool, recovery: int, kept: dict[object, Arrays], tmp_path: Path
) -> None:
    if alias in ("fine-tune", "isolated-adapters"):
        pytest.skip("the control itself, or one that works on isolated tasks alone")

    def answer(name: str) -> Arrays:
        world = World(tmp_path / name)
        world.federation.recovery_rounds, arrays = recovery, world.learned
        strategy, ledger = made(strategies()[name]), world.federation.ledger
        for task in ("parity", "right"):
            ledger.receive(Request(TASK, tasks=(task,), id=task))
            if not at_once:
                arrays = world.run(strategy, arrays, 0)
        arrays = world.run(strategy, arrays, 0)
        assert [ledger.state(task) for task in ("parity", "right")] == ["fulfilled"] * 2
        return arrays

    key = ("two tasks", at_once, recovery)
    if key not in kept:
        kept[key] = answer("fine-tune")
    both = [answer(alias), kept[key]]
    found = {named.digest(each if alias == "head-drop" else trunk(each)) for each in both}
    assert len(found) == 2


def told(arrays: Arrays) -> Arrays:
    """Return what answers: statistics alone are no forgetting."""
    return named.parameters(arrays) if "layer.weight" in arrays else arrays


def of_data(arrays: Arrays) -> Arrays:
    """Return a state without the notes on how it came about."""
    return {n: a for n, a in arrays.items() if n not in ("downdates", "history")}


def same(left: Arrays, right: Arrays) -> None:
    """Check that two states agree; sums of which something was taken out, to rounding."""
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_allclose(array, right[name], rtol=1e-9, atol=1e-12, err_msg=name)

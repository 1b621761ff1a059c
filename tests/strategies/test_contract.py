"""What every strategy of the package promises, checked for each one that is found there.

A check is a function ``check_*`` below. It is run once per strategy, or, where it takes a scope,
once per strategy and scope that the strategy serves. What applies follows from what the strategy
declares; a new one is covered by just existing.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from clients import steps
from strategies import registry
from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.federation import ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC, Federation
from tests.support.everyone import BRIEF, SETTINGS, network_for
from tests.support.toy import RestlessGrid, ToyFederation, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import (
    ConfigError,
    FederationError,
    FedUnlearnError,
    UnsupportedRequestError,
)
from unlearning.fulfil import fulfil
from unlearning.records.history import COLUMNS, History
from unlearning.request import Guarantee, Request, Scope

StrategyClass = type[UnlearningStrategy]

CLIENTS, ROUNDS, LEAVER = 4, 3, 1


@dataclass(frozen=True)
class Answer:
    """What a strategy made of a request, and whom it asked on the way."""

    before: Arrays
    after: Arrays
    asked: tuple[tuple[int, str], ...]
    cost: Cost

    @property
    def clients(self) -> list[int]:
        return sorted({client for client, step in self.asked if step != "fingerprints"})

    @property
    def digest(self) -> str:
        return named.digest(self.after)


class World:
    """Federations that a strategy has learned in, and as many branches of them as a check needs."""

    def __init__(self, cls: StrategyClass, folder: Path) -> None:
        self.cls = cls
        self.usual = functools.cache(self.answer)
        self._folder = folder
        self._numbers = itertools.count()

    def make(self) -> UnlearningStrategy:
        """Return the strategy with its defaults, but fewer rounds: no check needs many."""
        options = registry.options(self.cls)
        many = {name: 2 for name, n in options.items() if name.endswith("_rounds") and n > 2}
        return self.cls(**many, **SETTINGS.get(self.cls, {}))  # type: ignore[arg-type]

    def home(self) -> Path:
        return self._folder / str(next(self._numbers))

    @functools.cached_property
    def _learned(self) -> tuple[ToyFederation, Arrays]:
        return self.learn(keep=tuple(self.cls.needs & COLUMNS))

    @functools.cached_property
    def _thin(self) -> tuple[ToyFederation, Arrays]:
        return self.learn(seed=seed_with_lonely_leaver(), fraction=1 / CLIENTS)

    @functools.cached_property
    def _recorded(self) -> tuple[ToyFederation, Arrays]:
        return self.learn(keep=tuple(COLUMNS))

    def learn(self, **settings: object) -> tuple[ToyFederation, Arrays]:
        kept = {"remember": LAST_LOCAL in self.cls.needs, "keepsakes": self.make().keepsakes()}
        network = network_for(self.cls)
        toy = ToyFederation(self.home(), clients=CLIENTS, network=network, **kept, **settings)  # type: ignore[arg-type]
        toy.federation.noise_key = b"so that a test comes out the same twice"
        toy.federation.train = BRIEF
        toy.federation.recovery_rounds = 1
        return toy, toy.run(self.make(), rounds=ROUNDS)

    def branch(self, *, restless: int | None = None) -> tuple[ToyFederation, Arrays]:
        """Return a federation whose every round had all clients, and its model."""
        toy, arrays = self._learned
        grid = None if restless is None else RestlessGrid(toy.app, CLIENTS, restless)
        return toy.branch(self.home(), grid=grid), named.copy(arrays)

    def thin_branch(self) -> tuple[ToyFederation, Arrays]:
        """Return a federation of one client per round: round 2 is the leaver's alone."""
        toy, arrays = self._thin
        return toy.branch(self.home()), named.copy(arrays)

    def recorded_branch(self) -> tuple[ToyFederation, Arrays]:
        """Return a federation whose history kept all there is to keep."""
        toy, arrays = self._recorded
        return toy.branch(self.home()), named.copy(arrays)

    def answer(self, scope: Scope, *, restless: int | None = None) -> Answer:
        toy, arrays = self.branch(restless=restless)
        after = toy.unlearn(self.make(), request(scope, LEAVER), arrays)
        cost = toy.federation.costs.get("unlearn", Cost())
        return Answer(arrays, after, tuple(toy.asked), cost)


@functools.cache
def seed_with_lonely_leaver() -> int:
    """Return a seed with which round 2, and no other, draws the leaver."""
    for seed in itertools.count():
        federation = Federation(seed=seed, fraction=1 / CLIENTS)
        drawn = [federation.sample(t, tuple(range(CLIENTS))) for t in range(1, ROUNDS + 1)]
        if [LEAVER in clients for clients in drawn] == [False, True, False]:
            return seed
    raise AssertionError("unreachable")


def bystander(history: History) -> int:
    """Return a client that took part in no round."""
    seen = set().union(*(history.participants(t) for t in history.rounds))
    return next(client for client in range(CLIENTS) if client not in seen)


def steps_of(toy: ToyFederation, client: int) -> set[str]:
    return {step for asked, step in toy.asked if asked == client}


def contents(history: History) -> dict[object, str]:
    """Return the digest of everything a history lets one read."""
    found: dict[object, str] = {"initial": named.digest(history.initial)}
    for t in history.rounds:
        found["participants", t] = str(history.participants(t))
        if "globals" in history.keep:
            found["global", t] = named.digest(history.arrays(t))
        for client in history.participants(t):
            if "updates" in history.keep:
                found["update", t, client] = named.digest(history.update(t, client))
            if "contributions" in history.keep:
                found["contribution", client] = named.digest(history.contribution(client))
    return found


# The checks: of a strategy ------------------------------------------------------------------


def check_default_constructible(world: World) -> None:
    strategy = world.cls()
    known = registry.options(world.cls)
    assert strategy.options() == known
    assert json.loads(json.dumps(known)) == known
    parameters = list(inspect.signature(world.cls).parameters.values())
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


def check_unknown_option_refused(world: World) -> None:
    alias = next(name for name, cls in registry.strategies().items() if cls is world.cls)
    with pytest.raises(ConfigError, match="'no_such_option'") as caught:
        registry.make(alias, {"no_such_option": 1})
    assert all(name in str(caught.value) for name in registry.options(world.cls))


def check_declarations(world: World) -> None:
    cls = world.cls
    assert cls.scopes
    assert all(isinstance(scope, Scope) for scope in cls.scopes)
    assert isinstance(cls.guarantee, Guarantee)
    assert cls.needs == cls.needs & (COLUMNS | {ATTRIBUTION, INITIAL, LAST_LOCAL, PUBLIC}) | set(
        cls().keepsakes()
    )
    assert cls().keepsakes().keys() <= set(steps.names())
    assert isinstance(cls.asks_forgotten, bool)


def check_documented(world: World) -> None:
    module = inspect.getdoc(inspect.getmodule(world.cls)) or ""
    assert "\nReferences\n----------\n" in module
    text = "\n".join(inspect.cleandoc(cls.__doc__ or "") for cls in world.cls.__mro__)
    named_in_lists = re.findall(r"^([\w, ]+) : ", text, flags=re.MULTILINE)
    documented = {name for names in named_in_lists for name in names.split(", ")}
    assert set(registry.options(world.cls)) <= documented


def check_foreign_scopes_refused_before_any_message(world: World) -> None:
    for scope in set(Scope) - world.cls.scopes:
        toy, arrays = world.branch()
        toy.federation.ledger.receive(asked := request(scope, LEAVER))
        strategy = world.make()
        strategy.join(toy.federation)
        with pytest.raises(UnsupportedRequestError, match=f"'{scope}'") as caught:
            fulfil(asked, strategy, arrays, toy.federation.history, toy.federation.ledger)
        assert all(name in str(caught.value) for name in registry.who_serves(scope))
        assert toy.federation.ledger.state(asked.id) == "refused"
        assert toy.federation.roster.clients == tuple(range(CLIENTS))
        assert not toy.grid.pushed


def check_needs_are_enforced(world: World) -> None:
    scope = min(world.cls.scopes)
    if world.cls.needs & COLUMNS:
        toy, arrays = world.learn(keep=())
        with pytest.raises(FedUnlearnError, match=min(world.cls.needs & COLUMNS)):
            toy.unlearn_checked(world.make(), request(scope), arrays)
    for kept in world.make().keepsakes():
        toy, arrays = world.branch()
        toy.federation.keepsakes = {}
        with pytest.raises(FedUnlearnError, match=f"needs '{kept}'"):
            toy.unlearn_checked(world.make(), request(scope), arrays)
    if LAST_LOCAL in world.cls.needs:
        toy, arrays = world.branch()
        toy.federation.remember = False
        with pytest.raises(FedUnlearnError, match="last local"):
            toy.unlearn_checked(world.make(), request(scope), arrays)
    if PUBLIC in world.cls.needs:
        toy, arrays = world.branch()
        toy.federation.distil = None
        with pytest.raises(FedUnlearnError, match=r"data\.public"):
            toy.unlearn_checked(world.make(), request(scope), arrays)


# The checks: of a strategy and a scope ------------------------------------------------------


def check_result_fits_the_model(world: World, scope: Scope) -> None:
    answer = world.usual(scope)
    assert named.mismatch(answer.before, answer.after) is None
    assert list(answer.after) == list(answer.before)
    assert named.is_finite(answer.after)


def check_forgotten_data_are_never_trained_on(world: World, scope: Scope) -> None:
    toy, arrays = world.branch()
    asked = request(scope, LEAVER)
    toy.federation.ledger.receive(asked)
    toy.run(world.make(), arrays, rounds=1)
    if scope is Scope.CLIENT:
        steps = steps_of(toy, LEAVER)
        assert "train" not in steps
        assert not steps or world.cls.asks_forgotten
    for client, step, count in toy.seen:
        if step == "train":
            assert count <= kept(toy, asked, client)


def check_inputs_are_left_alone(world: World, scope: Scope) -> None:
    toy, arrays = world.branch()
    asked = request(scope, LEAVER)
    before, wanted = contents(toy.federation.history), asked.to_json()
    given = named.copy(arrays)
    for array in given.values():
        array.flags.writeable = False
    toy.unlearn(world.make(), asked, given)
    assert contents(toy.federation.history) == before
    assert named.digest(given) == named.digest(arrays)
    assert asked.to_json() == wanted


def check_same_seed_same_bits(world: World, scope: Scope) -> None:
    assert world.answer(scope).digest == world.usual(scope).digest


def check_order_of_replies_does_not_matter(world: World, scope: Scope) -> None:
    assert world.answer(scope, restless=1).digest == world.usual(scope).digest


def check_one_object_answers_twice_the_same(world: World, scope: Scope) -> None:
    strategy = world.make()
    for leaver in (LEAVER + 1, LEAVER):
        toy, arrays = world.branch()
        after = toy.unlearn(strategy, request(scope, leaver), arrays)
    assert named.digest(after) == world.usual(scope).digest


def check_one_reply_lost_works(world: World, scope: Scope) -> None:
    """Lost or malformed, it is left out and named, and the result is the same for both."""
    asked, digests = world.usual(scope).clients, set()
    for fault in (fails, poisons) if len(asked) > 1 else ():
        toy, arrays = world.branch()
        toy.faults[asked[0]] = fault
        lost: set[int] = set()
        roster = toy.federation.roster
        toy.federation.watch = lambda *_, lost=lost, roster=roster: lost.update(roster.lost)
        after = toy.unlearn(world.make(), request(scope, LEAVER), arrays)
        assert named.mismatch(arrays, after) is None
        assert named.is_finite(after)
        assert asked[0] in lost
        digests.add(named.digest(after))
    assert len(digests) <= 1


def check_all_replies_lost_raises(world: World, scope: Scope) -> None:
    asked = world.usual(scope).clients
    toy, arrays = world.branch()
    toy.faults |= dict.fromkeys(range(CLIENTS), fails)
    before = contents(toy.federation.history)
    strategy, wanted = world.make(), request(scope, LEAVER)
    if not asked:
        if not world.usual(scope).asked:  # else nobody says that there is nothing to forget
            toy.unlearn(strategy, wanted, arrays)
        return
    with pytest.raises(FederationError, match=r"0 of \d clients .*client \d: .*broken"):
        toy.unlearn(strategy, wanted, arrays)
    assert contents(toy.federation.history) == before
    assert strategy.rewritten is None
    assert wanted in toy.federation.forgotten.requests


def check_round_of_the_forgotten_alone(world: World, scope: Scope) -> None:
    toy, arrays = world.thin_branch()
    assert list(toy.federation.history.participants(2)) == [LEAVER]
    after = toy.unlearn(world.make(), request(scope, LEAVER), arrays)
    assert named.mismatch(arrays, after) is None
    assert named.is_finite(after)


def check_bystander_changes_nothing(world: World, scope: Scope) -> None:
    toy, arrays = world.thin_branch()
    asked = request(scope, bystander(toy.federation.history))
    if toy.federation.history.first_round(asked) is not None:
        return  # a class is everybody's
    after = toy.unlearn(world.make(), asked, arrays)
    assert named.digest(after) == named.digest(arrays)
    assert toy.federation.costs.get("unlearn", Cost()) == Cost()
    assert not toy.grid.pushed


def check_empty_history_is_an_error_in_words(world: World, scope: Scope) -> None:
    toy, arrays = world.branch()
    toy.federation.history = History(keep=toy.federation.history.keep)
    toy.federation.history.start(arrays)
    with pytest.raises(FedUnlearnError, match="none is recorded"):
        toy.unlearn(world.make(), request(scope, LEAVER), arrays)
    assert not toy.grid.pushed


def check_nothing_is_left_after_fulfilment(world: World, scope: Scope) -> None:
    toy, arrays = world.recorded_branch()
    federation, asked = toy.federation, served(world, toy, scope, LEAVER)
    history, first = federation.history, federation.history.first_round(asked)
    owners = asked.owners(range(CLIENTS))
    tainted = {named.digest(arrays)} | {
        value
        for key, value in contents(history).items()
        if (key[0] == "global" and key[1] > first)
        or (key[0] in ("update", "contribution") and key[-1] in owners)
    }
    strategy = world.make()
    strategy.join(federation)
    after = fulfil(asked, strategy, arrays, history, federation.ledger)
    if any(kept(toy, asked, client) < toy.sizes[client] for client in owners):
        assert tainted.isdisjoint(readable(history))
    assert history.verify() == []
    deletion = federation.ledger.events(asked.id)[-1].facts["deletion"]
    assert (deletion["acknowledged"], deletion["unacknowledged"]) == (list(owners), [])
    for left in asked.leavers:
        assert all(left not in history.participants(t) for t in history.rounds)
        assert left not in federation.roster.clients

    toy.asked.clear()
    toy.run(strategy, after, rounds=1)
    assert toy.asked
    assert not {client for client, _ in toy.asked} & asked.leavers

    known, toy.asked[:] = len(federation.ledger.events()), []
    assert fulfil(asked, strategy, after, history, federation.ledger) is after
    assert not toy.asked
    assert len(federation.ledger.events()) == known


def check_cost_is_metered(world: World, scope: Scope) -> None:
    answer = world.usual(scope)
    cost = answer.cost
    assert cost.wall_s > 0
    if answer.asked and not answer.clients:
        return  # nothing was done but to ask what is held
    assert cost.client_rounds == len(answer.asked)
    assert cost.bytes_down >= cost.client_rounds * named.nbytes(answer.before)
    assert bool(cost.bytes_up) == bool(cost.client_s) == bool(answer.asked)


def check_requests_follow_one_another(world: World, scope: Scope) -> None:
    toy, arrays = world.branch()
    wanted = [served(world, toy, scope, LEAVER), served(world, toy, scope, LEAVER + 1)]
    for asked in wanted:
        toy.federation.ledger.receive(asked)
    after = toy.run(world.make(), arrays, rounds=0)
    assert named.is_finite(after)
    assert [toy.federation.ledger.state(asked.id) for asked in wanted] == ["fulfilled"] * 2
    if scope is Scope.CLIENT:
        assert "train" not in steps_of(toy, LEAVER)
        last = toy.federation.history.rounds[-1]
        assert list(toy.federation.history.participants(last)) == [0, 3]


def check_forgetting_all_gives_the_initial_model(world: World, scope: Scope) -> None:
    if scope is Scope.CLIENT:
        toy, arrays = world.branch()
        everybody = Request(Scope.CLIENT, clients=tuple(range(CLIENTS)))
        after = toy.unlearn(world.make(), everybody, arrays)
        assert named.digest(after) == named.digest(toy.initial)


# What the checks share ----------------------------------------------------------------------


def fails(arrays: list[np.ndarray]) -> list[np.ndarray]:
    raise RuntimeError("broken on purpose")


def poisons(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [np.full_like(array, np.nan) if array.dtype.kind == "f" else array for array in arrays]


def served(world: World, toy: ToyFederation, scope: Scope, client: int) -> Request:
    """Return a request that the strategy takes: of a task's owner, or else of all owners."""
    asked, strategy = request(scope, client), world.make()
    strategy.join(toy.federation)
    try:
        strategy.check(asked)
    except UnsupportedRequestError:
        return dataclasses.replace(asked, clients=())
    return asked


def kept(toy: ToyFederation, asked: Request, client: int) -> int:
    """Return how many of a client's examples a request leaves."""
    gone, labels = asked.omission(client), toy.shards[client].labels.tolist()
    return sum(
        not gone.everything and i not in gone.samples and label not in gone.classes
        for i, label in enumerate(labels)
    )


def readable(history: History) -> set[str]:
    """Return digests of all arrays that are left, wherever reading them is no error."""
    found = {named.digest(history.initial)}
    for t in history.rounds:
        reads: list[Callable[[], Arrays]] = [functools.partial(history.arrays, t)]
        for client in range(CLIENTS):
            reads.append(functools.partial(history.update, t, client))
            reads.append(functools.partial(history.contribution, client))
        for read in reads:
            try:
                found.add(named.digest(read()))
            except FedUnlearnError:
                continue
    return found


def cases() -> Iterator[object]:
    """Yield a parameter set per strategy, check and scope."""
    for alias, cls in registry.strategies().items():
        if (
            cls.models and cls.models != EVERY_MODEL
        ):  # no network: test_array_contract.py checks these
            continue
        for name, check in CHECKS.items():
            if "scope" not in inspect.signature(check).parameters:
                yield pytest.param(cls, check, None, id=f"{alias}-{name}")
                continue
            for scope in sorted(cls.scopes):
                yield pytest.param(cls, check, scope, id=f"{alias}-{name}-{scope}")


CHECKS: dict[str, Callable[..., None]] = {
    name.removeprefix("check_"): value
    for name, value in list(globals().items())
    if name.startswith("check_")
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[StrategyClass], World]:
    return functools.cache(lambda cls: World(cls, tmp_path_factory.mktemp(cls.__name__)))


@pytest.mark.parametrize(("cls", "check", "scope"), list(cases()))
def test_contract(
    worlds: Callable[[StrategyClass], World],
    cls: StrategyClass,
    check: Callable[..., None],
    scope: Scope | None,
) -> None:
    check(worlds(cls), *([] if scope is None else [scope]))


def test_all_strategies_are_found() -> None:
    """A guard for the walk: without it, an empty parametrisation would pass in silence."""
    assert {"retrain", "fine-tune", "fed-eraser", "gradient-ascent"} <= set(registry.strategies())

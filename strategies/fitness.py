"""Whether a strategy fits what is asked of it: options, scope, model, data, what was recorded.

Each check takes what a strategy declares and what there is, and raises in one line; none of them
sends a message or changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from strategies import discovery
from strategies.federation import LAST_LOCAL, PUBLIC, Federation, without_public_data
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, HistoryError, UnsupportedRequestError
from unlearning.request import Scope

__all__ = [
    "EVERY_MODEL",
    "Declares",
    "Ground",
    "check_foreign",
    "check_ground",
    "check_model",
    "check_needs",
    "check_scope",
    "ground_of",
    "in_range",
    "one_of",
    "who_serves",
    "works_on",
]

EVERY_MODEL = frozenset({"*"})  # of a strategy: networks, and whatever else can be learned

Models = frozenset[str] | None


class Declares(Protocol):
    """The facts of a strategy that are looked at here."""

    scopes: ClassVar[frozenset[Scope]]
    models: ClassVar[Models]

    several_tasks: ClassVar[bool]
    moves_inputs: ClassVar[bool]


@dataclass(frozen=True)
class Ground:
    """What a strategy is going to stand on, as far as it is known before the first round.

    Parameters
    ----------
    has_tasks : bool
        Whether an example has a label per task.
    has_text : bool
        Whether text is learned.
    interval : int
        Of how many rounds one is recorded.
    initial : callable
        Returns the untrained model.
    """

    has_tasks: bool
    has_text: bool
    interval: int
    initial: Callable[[], Arrays]


Kind = TypeVar("Kind", bound=Declares)


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless the value of an option is from ``low`` to ``high``."""
    if not low <= value <= high:
        raise ConfigError(f"option {name!r} is {value!r}; it must be from {low:g} to {high:g}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ConfigError unless the value of an option is one of ``known``."""
    if value not in known:
        raise ConfigError(f"option {name!r} is {value!r}; it must be one of {', '.join(known)}")


def works_on(models: Models, model: str | None) -> bool:
    """Return whether a strategy works on a model.

    Parameters
    ----------
    models : frozenset of str or None
        The array models it declares, by name; None: any network; ``EVERY_MODEL``: both.
    model : str or None
        The array model that is learned, by its name; None: a network.
    """
    if models is None or models == EVERY_MODEL:
        return model is None or models is not None
    return model in models


def who_serves(base: type[Kind], scope: Scope, model: str | None = None) -> list[str]:
    """Return the aliases of the strategies that serve requests of a scope, of those of a base.

    Parameters
    ----------
    base : type
        What all strategies derive from.
    scope : Scope
        Of the request.
    model : str or None
        The array model that is learned, by its name; None: a network.
    """
    known = discovery.concrete(base).items()
    return [name for name, cls in known if scope in cls.scopes and works_on(cls.models, model)]


def check_scope(cls: type[Kind], base: type[Kind], scope: Scope, model: str | None) -> None:
    """Refuse a request of a scope that is not served, naming the strategies that could.

    Raises
    ------
    UnsupportedRequestError
        If the scope is not among those that ``cls`` declares.
    """
    if scope not in cls.scopes:
        able = who_serves(base, scope, model)
        raise UnsupportedRequestError(
            f"{cls.__name__} does not serve requests of scope {scope.value!r} "
            f"(it serves: {', '.join(sorted(cls.scopes)) or 'none'}); strategies that do: "
            f"{', '.join(able) or 'none'}"
        )


def check_model(cls: type[Declares], model: str | None) -> None:
    """Refuse to work on a model that a strategy does not know.

    Raises
    ------
    ConfigError
        If the model (None: a network) is not among those that ``cls`` declares.
    """
    if not works_on(cls.models, model):
        fitting = "any network" if cls.models is None else ", ".join(sorted(cls.models))
        chosen = "a network" if model is None else repr(model)
        raise ConfigError(
            f"{cls.__name__} does not work on the model that is learned, {chosen} "
            f"(it works on: {fitting}); choose another strategy or another model.name"
        )


def ground_of(federation: Federation) -> Ground:
    """Return what the strategies of a federation stand on."""
    history = federation.history
    return Ground(
        federation.has_tasks, federation.has_text, history.interval, lambda: history.initial
    )


def check_ground(cls: type[Declares], ground: Ground) -> None:
    """Refuse data of a kind that a strategy does not work on.

    Raises
    ------
    UnsupportedRequestError
        If examples have a label per task and it knows one; if it moves inputs and text has none.
    """
    if ground.has_tasks and not cls.several_tasks:
        raise UnsupportedRequestError(
            f"{cls.__name__} works on one label per example, and these have one per "
            "task; use retrain, fed-eraser or gradient-ascent"
        )
    if ground.has_text and cls.moves_inputs:
        raise UnsupportedRequestError(
            f"{cls.__name__} moves the inputs along a slope, and text has none; "
            "choose another strategy, or learn something else than text"
        )


def check_foreign(name: str, needs: Collection[str]) -> None:
    """Refuse a model that was trained elsewhere if anything of its training is needed.

    Raises
    ------
    HistoryError
        If ``needs`` is not empty.
    """
    if missing := sorted(needs):
        raise HistoryError(
            f"{name} needs {', '.join(missing)}, and this model was trained "
            "elsewhere: nothing of that was recorded; use a strategy that needs nothing, such "
            "as no-t or fine-tune (`fedunlearn list strategies`)"
        )


def check_needs(
    name: str, needs: frozenset[str], kept: Iterable[str], federation: Federation
) -> None:
    """Refuse a run that was not recorded as a strategy needs, or kept less than it needs.

    Parameters
    ----------
    name : str
        Of the strategy, for the message.
    needs : frozenset of str
        What it declares.
    kept : iterable of str
        The steps whose result clients must have kept while they trained.
    federation : Federation
        Where it is to work.

    Raises
    ------
    HistoryError
        If a column of the history is missing, or rounds were learned with momentum of the server
        that the updates kept of them do not tell.
    ConfigError
        If the server has no public data, or the clients did not keep something.
    """
    federation.history.require(needs, name)
    if needs & {"updates", "contributions"} and _hides_momentum(federation):
        raise HistoryError(
            f"{name} rebuilds the model from the updates of its rounds, and the server's momentum "
            "(recovery.server_momentum) in recovery since an earlier request is in none of them; "
            "set it to 0, or use retrain"
        )
    if PUBLIC in needs and federation.distil is None:
        raise without_public_data(name)
    if missing := sorted(set(kept) - federation.keepsakes.keys()):
        raise ConfigError(
            f"{name} needs {missing[0]!r}, which the clients did not make while "
            "they trained; learn with this strategy configured from the start"
        )
    if LAST_LOCAL in needs and not federation.remember:
        raise ConfigError(
            f"{name} needs clients that kept their last local model; "
            "learn with this strategy configured from the start"
        )


def _hides_momentum(federation: Federation) -> bool:
    recovered = federation.forgotten.requests and federation.has_learned
    return bool(federation.server_momentum and recovered)

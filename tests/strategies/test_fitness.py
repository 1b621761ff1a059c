from __future__ import annotations

import pytest

from strategies import fitness
from strategies.base import UnlearningStrategy
from strategies.federation import LAST_LOCAL, PUBLIC, Federation
from unlearning.errors import ConfigError, FedUnlearnError, HistoryError, UnsupportedRequestError
from unlearning.request import Scope


class Leaves:
    """All that is looked at: what a strategy declares."""

    scopes = frozenset({Scope.CLIENT})
    models = frozenset({"forest"})


def test_a_scope_that_is_not_served_names_who_serves_it() -> None:
    fitness.check_scope(Leaves, Leaves, Scope.CLIENT, "forest")
    with pytest.raises(UnsupportedRequestError, match=r"Leaves .* 'class' \(it serves: client\)"):
        fitness.check_scope(Leaves, Leaves, Scope.CLASS, "forest")
    assert "ridge" in fitness.who_serves(UnlearningStrategy, Scope.CLASS, "ridge")


def test_a_model_it_does_not_know() -> None:
    fitness.check_model(Leaves, "forest")
    with pytest.raises(ConfigError, match=r"a network \(it works on: forest\)"):
        fitness.check_model(Leaves, None)


@pytest.mark.parametrize(
    ("models", "network", "forest"),
    [
        (None, True, False),
        (fitness.EVERY_MODEL, True, True),
        (frozenset({"forest"}), False, True),
    ],
)
def test_what_it_works_on(models: frozenset[str] | None, network: bool, forest: bool) -> None:
    assert fitness.works_on(models, None) is network
    assert fitness.works_on(models, "forest") is forest


def test_a_model_from_elsewhere_has_no_past() -> None:
    fitness.check_foreign("NoT", ())
    with pytest.raises(HistoryError, match="FedEraser needs globals, updates"):
        fitness.check_foreign("FedEraser", {"updates", "globals"})


@pytest.mark.parametrize(
    ("needs", "kept", "words"),
    [
        ({"updates"}, (), "updates"),
        ({PUBLIC}, (), r"data\.public"),
        ({LAST_LOCAL}, (), "last local"),
        ((), ("synthetic",), "needs 'synthetic'"),
    ],
)
def test_what_was_not_kept(needs: set[str], kept: tuple[str, ...], words: str) -> None:
    with pytest.raises(FedUnlearnError, match=words):
        fitness.check_needs("It", frozenset(needs), kept, Federation())


def test_what_was_kept() -> None:
    federation = Federation(remember=True, keepsakes={"synthetic": {}})
    fitness.check_needs("It", frozenset({LAST_LOCAL}), ("synthetic",), federation)

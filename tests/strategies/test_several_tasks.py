"""Where an example has a label per task, a strategy works or refuses; none works on a part."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from strategies.base import EVERY_MODEL
from strategies.registry import strategies
from tests.support.everyone import made
from tests.support.taskworld import World
from unlearning import arrays as named
from unlearning.request import Request, Scope

CLIENT = sorted(
    alias
    for alias, cls in strategies().items()
    if Scope.CLIENT in cls.scopes and cls.models in (None, EVERY_MODEL)
)


def without_client_1(
    alias: str, folder: Path, *, recovery_rounds: int
) -> tuple[World, named.Arrays]:
    """Let a strategy answer that a client leaves; return the world and the model after it."""
    world = World(folder)
    world.federation.recovery_rounds = recovery_rounds
    world.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    return world, world.run(made(strategies()[alias]), world.learned, 0)


@pytest.mark.parametrize("alias", [a for a in CLIENT if not strategies()[a].several_tasks])
def test_strategies_for_one_label_refuse_before_anybody_is_asked(
    alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        world, after = without_client_1(alias, tmp_path, recovery_rounds=0)
    assert world.federation.ledger.state("r") == "refused"
    assert "left out" not in caplog.text
    assert "one label per example" in caplog.text
    assert named.digest(after) == named.digest(world.learned)


@pytest.mark.parametrize(
    "alias", ["gradient-ascent", "ewc-ascent", "dampening", "negated-update", "subspace", "fused"]
)
def test_the_others_lose_no_client(
    alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        without_client_1(alias, tmp_path, recovery_rounds=1)
    assert "left out" not in caplog.text

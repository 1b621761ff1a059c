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


@pytest.mark.parametrize("alias", [a for a in CLIENT if not strategies()[a].several_tasks])
def test_strategies_for_one_label_refuse_before_anybody_is_asked(
    alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world, asked = World(tmp_path), Request(Scope.CLIENT, clients=(1,))
    world.federation.recovery_rounds = 0
    world.federation.ledger.receive(asked)
    with caplog.at_level(logging.WARNING):
        after = world.run(made(strategies()[alias]), world.learned, 0)
    assert world.federation.ledger.state(asked.id) in ("refused", "failed")
    assert "left out" not in caplog.text
    keeps = bool(made(strategies()[alias]).keepsakes())  # of what was not made while learning
    assert ("did not make" if keeps else "one label per example") in caplog.text
    assert named.digest(after) == named.digest(world.learned)


@pytest.mark.parametrize(
    "alias", ["gradient-ascent", "ewc-ascent", "dampening", "negated-update", "subspace", "fused"]
)
def test_the_others_lose_no_client(
    alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world, asked = World(tmp_path), Request(Scope.CLIENT, clients=(1,))
    world.federation.recovery_rounds = 1
    world.federation.ledger.receive(asked)
    with caplog.at_level(logging.WARNING):
        world.run(made(strategies()[alias]), world.learned, 0)
    assert "left out" not in caplog.text

"""What clients are asked to keep is known before anything starts."""

from __future__ import annotations

import re

from experiments.federation.founding import keepsakes, strange_need
from strategies.global_model.fine_tune import FineTune


def test_a_need_that_nobody_can_make_is_named() -> None:
    class Own(FineTune):
        """One letter is missing."""

        needs = frozenset({"update"})

    assert re.match(r"unknown need 'update'.*updates", strange_need(Own()))


def test_columns_are_recorded_by_the_server_and_steps_made_by_clients() -> None:
    class Own(FineTune):
        """A column, a model, and a step."""

        needs = frozenset({"updates", "initial", "fisher"})

    assert keepsakes([Own()]) == {"fisher": {}}
    assert not strange_need(Own())

"""The ball that the server keeps an answer in, also of a model that was trained elsewhere."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from strategies import registry
from strategies.federation import Federation
from strategies.local_model.trust import mean_within, reach
from tests.support.past import joined, past, vector
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.protocol import Reply
from unlearning.records.history import History


def test_the_radius_is_the_distance_learned() -> None:
    history, final = past(vector(1.0, 1.0), [{0: (1, vector(3.0, 4.0))}])
    assert reach(2.0, Federation(history=history), final) == 10.0


def test_of_a_model_trained_elsewhere_it_is_the_length() -> None:
    history = History()
    history.start(vector(3.0, 4.0))
    federation = Federation(history=history, foreign=True)
    assert reach(1.0, federation, vector(3.0, 4.0)) == 5.0


def test_a_radius_of_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    history = History()
    history.start(vector(1.0))
    with caplog.at_level(logging.WARNING):
        assert reach(1.0, Federation(history=history), vector(1.0)) == 0
    assert "learned nothing" in caplog.text


def test_models_are_averaged_within_the_radius() -> None:
    replies = [Reply(0, 1, vector(10.0, 0.0)), Reply(1, 3, vector(0.0, 1.0))]
    found = mean_within(vector(0.0, 0.0), replies, 2.0)
    np.testing.assert_allclose(found["w"], [0.5, 0.75])


@pytest.mark.parametrize("name", ["ewc-ascent", "fed-osd", "quick-drop", "gradient-ascent"])
def test_every_strategy_moves_a_model_trained_elsewhere(name: str, tmp_path) -> None:
    """The run began with it, and nobody has trained since: the request is served all the same."""
    few = {
        "fed-osd": {"unlearning_rounds": 3, "unlearning_rate": 0.1},
        "quick-drop": {"repair_rounds": 0},
    }
    toy = ToyFederation(tmp_path / "learn")
    learned = toy.learn(3)
    strategy = registry.make(name, few.get(name, {}))
    other = ToyFederation(tmp_path / "start")
    other.federation.history.start(learned)
    other.federation.foreign = True
    after = other.unlearn(strategy, request("client"), learned)
    moved = named.norm(named.delta(learned, after))
    assert 1e-4 < moved <= named.norm(learned) * (1 + 1e-6)


def test_joined_strategies_agree_on_the_ball() -> None:
    history, final = past(vector(1.0, 1.0), [{0: (1, vector(3.0, 4.0)), 1: (1, vector(3.0, 4.0))}])
    for name in ("ewc-ascent", "fed-osd", "quick-drop", "gradient-ascent"):
        strategy = joined(registry.make(name, {"trust": 0.5}), history, 2)
        strategy.prepare(request("client"), history, final)
        assert strategy._reach == 2.5

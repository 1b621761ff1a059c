"""What an estimate says of time: learning, what each strategy's unlearning takes, recovery."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.serverapp import Grid

from experiments.config.loading import from_mapping
from experiments.federation import estimate, rehearsal
from experiments.federation.estimate import estimated
from experiments.federation.founding import Site
from experiments.federation.rehearsal import extrapolated
from tests.support.small import SMALL, small
from unlearning.cost import Cost

LEAVES = {"scope": "client", "clients": [2]}


def test_unlearning_is_counted_by_each_strategys_own_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Retraining asks both others in every round again, fine-tuning nobody, ascent as ever."""
    seen: dict[str, list[Cost]] = {}
    answer = rehearsal._answer

    def noted(site: Site, grid: Grid, name: str, *rest: Any) -> Cost:
        cost = answer(site, grid, name, *rest)
        seen.setdefault(name, []).append(cost)
        return cost

    monkeypatch.setattr(rehearsal, "_answer", noted)
    names = ["retrain", "fine-tune", "gradient-ascent"]
    told: dict[str, Any] = estimated(small(rounds=12, recovery_rounds=3, requests=[LEAVES]), names)
    answers = {name: [cost.client_rounds for cost in costs] for name, costs in seen.items()}
    assert answers["retrain"] == [3 * 2, 6 * 2]
    assert answers["fine-tune"] == [0, 0]
    assert answers["gradient-ascent"][0] == answers["gradient-ascent"][1] > 0
    unlearning = 12 / 6 * seen["retrain"][1].wall_s
    assert told["seconds_of_unlearning_by_retrain"] == pytest.approx(unlearning, abs=0.06)
    recovery = 3 * told["seconds_per_round"]
    assert told["seconds_of_recovery_by_retrain"] == pytest.approx(recovery, abs=0.06)
    whole = told["seconds_of_learning"] + unlearning + recovery
    assert told["seconds_in_all_by_retrain"] == pytest.approx(whole, abs=0.2)


def test_a_strategy_that_cannot_answer_so_early_says_why() -> None:
    options = {"sifu": {"sigma": 5.0, "epsilon": 90.0}}
    found = estimated(small(rounds=12, requests=[LEAVES], options=options), ["sifu"])
    assert str(found["seconds_of_unlearning_by_sifu"]).startswith("not known: ")
    assert "seconds_in_all_by_sifu" not in found


def test_without_requests_nothing_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "rehearsed", None)
    assert not [name for name in estimated(small(requests=[])) if "unlearning" in name]


def test_more_requests_take_more_and_nothing_takes_less_than_nothing() -> None:
    one = Cost(wall_s=2.0, client_rounds=4)
    assert extrapolated(one, one, 100) == 2.0
    assert (
        extrapolated(Cost(wall_s=3.0, client_rounds=9), Cost(wall_s=1.0, client_rounds=1), 9) == 0
    )
    assert extrapolated(Cost(wall_s=1.0), Cost(wall_s=1.5), 9) == 1.5


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"strategies": ["retrain", "fine-tune"]}, {"retrain", "fine-tune"}),
        ({"strategy": "no-t", "strategies": ["retrain"]}, {"no-t"}),
        ({}, {"fed-eraser"}),
    ],
)
def test_strategies_are_those_of_the_config(named: dict[str, Any], told: set[str]) -> None:
    bare = {key: value for key, value in SMALL.items() if key != "strategy"}
    found = estimated(from_mapping({**bare, "rounds": 6, "requests": [LEAVES], **named}))
    of = "seconds_of_unlearning_by_"
    assert {name.removeprefix(of) for name in found if name.startswith(of)} == told

"""Recovery: who takes part, how clients count, the server's momentum, a strategy's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.app import client_app
from experiments.benchmarks.rows import CONFIGS
from experiments.config.loading import from_mapping, from_run_config, load
from experiments.config.registry import make
from experiments.federation.conduct import Conductor
from experiments.federation.grids import LocalGrid
from experiments.federation.party import Party
from experiments.federation.task import Scenario, task
from unlearning.arrays import Arrays, digest
from unlearning.errors import ConfigError
from unlearning.records.ledger import Ledger

RAW: dict[str, Any] = {
    "rounds": 2,
    "recovery_rounds": 3,
    "device": "cpu",
    "data": {"clients": 4, "limit": 160},
    "model": {"hidden": 4},
    "requests": [{"scope": "client", "clients": [1]}],
}


def compared(place: Path, *names: str, **changes: Any) -> dict[str, Party]:
    config = from_mapping({**RAW, **changes})
    strategies = {
        name: make(name, config.options_for(name)) for name in ("retrain", "fine-tune", *names)
    }
    conductor = Conductor(
        config, task(Scenario.of(config)), place, Ledger(), lambda _: None, lambda: False
    )
    found = conductor.compare(LocalGrid(client_app, 4), strategies)
    return {one.strategy: one for one in found if isinstance(one, Party)}


def asked(party: Party) -> int:
    return party.costs["recover"].client_rounds


def test_a_share_of_the_clients_recovers(tmp_path: Path) -> None:
    everyone = compared(tmp_path)
    half = compared(tmp_path, recovery={"fraction": 0.5})
    assert {asked(one) for name, one in everyone.items() if name != "original"} == {9}
    assert all(3 <= asked(half[name]) <= 6 for name in ("retrain", "fine-tune"))  # 2 of 4 drawn
    assert half["original"].costs["learn"].client_rounds == 8
    assert half["retrain"].costs["unlearn"].client_rounds == 6


def test_learning_without_has_the_recovery_of_retraining(tmp_path: Path) -> None:
    config = from_mapping({**RAW, "recovery": {"fraction": 0.5, "server_momentum": 0.5}})
    made = task(Scenario.of(config))
    conductor = Conductor(config, made, tmp_path, Ledger(), lambda _: None, lambda: False)
    again = conductor.without(LocalGrid(client_app, 4), *config.domain_requests({}))
    found = compared(tmp_path, recovery={"fraction": 0.5, "server_momentum": 0.5})
    assert digest(again) == digest(found["retrain"].arrays)


def test_equal_weights_count_clients_and_not_examples(tmp_path: Path) -> None:
    uneven = {"clients": 4, "limit": 160, "partitioner": "dirichlet", "alpha": 0.5}
    usual = compared(tmp_path, data=uneven)
    alike = compared(tmp_path, data=uneven, recovery={"equal_weights": True})
    learned = compared(tmp_path, data=uneven, train={"equal_weights": True})
    names = ("original", "fine-tune", "retrain")
    usual_, alike_, learned_ = (
        {name: digest(one[name].arrays) for name in names} for one in (usual, alike, learned)
    )
    assert usual_["original"] == alike_["original"] != learned_["original"]
    assert usual_["fine-tune"] != alike_["fine-tune"]


def rounds_of(place: Path, beta: float, rounds: int) -> Arrays:
    own = {"fine-tune": {"recovery": {"server_momentum": beta, "rounds": rounds}}}
    return compared(place, options=own)["fine-tune"].arrays


def test_momentum_carries_every_step_of_recovery_on(tmp_path: Path) -> None:
    """One client: w2 = w1 + d(w1) + b (w1 - w0), and without it w2 = w1 + d(w1)."""
    start = rounds_of(tmp_path, 0.0, 0)
    first = rounds_of(tmp_path, 0.5, 1)
    assert digest(first) == digest(rounds_of(tmp_path, 0.0, 1))  # a request begins with none
    plain, carried = rounds_of(tmp_path, 0.0, 2), rounds_of(tmp_path, 0.5, 2)
    for name in start:
        expected = plain[name] + 0.5 * (first[name] - start[name])
        np.testing.assert_allclose(carried[name], expected, atol=1e-6)


def test_a_strategy_recovers_in_a_way_of_its_own(tmp_path: Path) -> None:
    plain = compared(tmp_path, "no-t")
    own = {"no-t": {"recovery": {"rounds": 1, "learning_rate": 0.05}, "fine_tune_rounds": 1}}
    found = compared(tmp_path, "no-t", options=own)
    assert (asked(found["no-t"]), asked(found["fine-tune"])) == (3, 9)
    for name in ("retrain", "fine-tune", "original"):
        assert digest(found[name].arrays) == digest(plain[name].arrays)
    slow = {"no-t": {"recovery": {"rounds": 1}, "fine_tune_rounds": 1}}
    other = compared(tmp_path, "no-t", options=slow)
    assert digest(other["no-t"].arrays) != digest(found["no-t"].arrays)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"no-t": {"recovery": {"round": 1}}}, r"options\.no-t\.recovery\.round\b"),
        ({"recovery": {"rounds": -1}}, r"options\.recovery\.rounds"),
        ({"no-t": {"recovery": 3}}, r"options\.no-t\.recovery"),
    ],
)
def test_mistakes_in_it_are_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        from_mapping({**RAW, "strategy": "no-t", "options": options})


def test_updates_kept_with_momentum_are_not_rebuilt_from(tmp_path: Path) -> None:
    two = [{"scope": "client", "clients": [1], "at_round": 1}, {"scope": "client", "clients": [2]}]
    found = compared(
        tmp_path,
        "fed-eraser",
        "no-t",
        requests=two,
        recovery={"server_momentum": 0.5},
    )
    assert "no-t" in found
    assert "fed-eraser" not in found


def test_it_can_be_set_from_the_command_line_and_by_flower() -> None:
    config = load(
        CONFIGS / "digits_client.toml",
        ["options.no-t.recovery.rounds=2", "options.no-t.recovery.fraction=0.5"],
    )
    assert config.recovering("no-t").recovery_rounds == 2
    assert config.recovering("no-t").recovery_train.fraction == 0.5
    assert config.recovering("fed-osd") == config
    assert config.options_for("no-t") == {}
    run = from_run_config({"options.no-t.recovery.rounds": 3, "strategy": "no-t"})
    assert run.recovering("no-t").recovery_rounds == 3

"""The search for options: elsewhere than reported, held against controls, written down."""

import json
import tomllib

import pytest

from experiments.config.loading import Config
from experiments.tuning.controls import RandomReset
from experiments.tuning.trials import Try, elsewhere, measure
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import ConfigError

TINY = {
    "rounds": 2,
    "recovery_rounds": 1,
    "device": "cpu",
    "data": {"clients": 3, "limit": 90, "test_limit": 60},
    "marker": {"kind": "backdoor", "client": 2},
    "requests": [{"scope": "client", "clients": [2]}],
    "engine": {"grid": "local"},
}


def test_the_search_goes_to_other_seeds_and_another_forget_set():
    other, seeds = elsewhere(Config.model_validate({**TINY, "seed": 4}), 2)
    assert seeds == (1004, 1005)
    assert other.requests[0].clients == (0,)
    assert other.marker.client == 0


def test_another_class_stands_for_a_class():
    raw = {**TINY, "requests": [{"scope": "class", "classes": [0]}]}
    assert elsewhere(Config.model_validate(raw), 1)[0].requests[0].classes == (1,)


def test_samples_named_by_hand_cannot_be_moved():
    raw = {**TINY, "requests": [{"scope": "sample", "clients": [1], "samples": [4]}]}
    with pytest.raises(ConfigError, match="named one by one"):
        elsewhere(Config.model_validate(raw), 1)


def test_a_try_is_measured_beside_retraining_and_one_that_fails_says_why():
    config = Config.model_validate(TINY)
    tries = [
        Try("again", "retrain", {}),
        Try("negated", "no-t", {"fine_tune_rounds": 1}),
        Try("wrong", "no-t", {"layers": "nothing"}),
    ]
    found = measure(config, [0], tries)
    assert found["again"].distance == 0
    assert found["again"].cost == found["retrain"].cost == 1
    assert found["original"].cost == 0
    assert 0 < found["negated"].edited < 1
    assert found["negated"].rounds == 1
    assert "nothing" in found["wrong"].failed


def test_a_random_reset_puts_the_share_back(tmp_path):
    toy = ToyFederation(tmp_path)
    before = toy.learn()
    strategy = RandomReset(share=1.0)
    strategy.join(toy.federation)
    after, _ = strategy.prepare(request("client"), toy.federation.history, before)
    initial = named.parameters(toy.federation.history.initial)
    assert named.digest(named.parameters(after)) == named.digest(initial)


@pytest.mark.slow
@pytest.mark.nightly
def test_the_command_writes_options_that_a_config_can_take(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="tuning needs Optuna: pip install 'fedunlearn[tune]'")
    import tomli_w
    from typer.testing import CliRunner

    from experiments.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(tomli_w.dumps(TINY))
    storage = "sqlite:///study.db"
    call = ["tune", "c.toml", "--strategies", "no-t", "--trials", "3", "--seeds", "1"]
    call += ["--storage", storage]
    first = CliRunner().invoke(app, call)
    assert first.exit_code == 0, first.output
    options = tomllib.loads((tmp_path / "tuning/options.toml").read_text())
    Config.model_validate({**TINY, **options})
    (found,) = json.loads((tmp_path / "tuning/tuning.json").read_text())["strategies"]
    assert len(found["trials"]) == 3
    assert {"defaults", "found", "plain training", "random reset"} <= found["shown"].keys()
    assert "seeds 1000" in found["searched"]
    assert (tmp_path / "tuning/pareto.svg").read_text().startswith("<?xml")
    again = CliRunner().invoke(app, [*call[:4], "--trials", "3", *call[6:]])
    assert "3 of 3" not in again.stderr  # nothing was left to try


def test_a_strategy_without_ranges_is_refused():
    pytest.importorskip("optuna", reason="tuning needs Optuna: pip install 'fedunlearn[tune]'")
    from experiments.tuning.study import search

    with pytest.raises(ConfigError, match="declares no ranges"):
        search(Config.model_validate(TINY), "retrain")

"""Equal budgets: every strategy stops after the round that reaches the cost, retraining never."""

import pytest
from typer.testing import CliRunner

import fedunlearn
from experiments.cli import app
from tests.experiments.api.test_run import SMALL
from tests.support.undrawn import undrawn


def test_strategies_stop_at_the_same_cost_and_retraining_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    undrawn(monkeypatch.setattr)
    config = {**SMALL, "recovery_rounds": 4, "stop": {"examples": 500}}
    found = fedunlearn.compare(config, strategies={"no-t": {"fine_tune_rounds": 1}}, out="b")
    examples = found.to_frame().set_index("strategy").examples
    round_ = examples["retrain"] / 6  # two of learning, four of recovery: all of them
    assert 150 < round_ < 300
    for name in ("fine-tune", "no-t"):
        assert 500 <= examples[name] < 500 + round_
    assert examples["fine-tune"] == examples["no-t"]
    assert not found.to_frame().failed.notna().any()


@pytest.mark.parametrize("text", ["1e6", "wall=3", "examples=", "examples=0.5", "examples=-1"])
def test_another_budget_is_refused_in_one_line(text):
    result = CliRunner().invoke(
        app, ["compare", "experiments/configs/digits_client.toml", "--budget", text]
    )
    assert result.exit_code == 2
    assert "examples=1e6" in result.stderr

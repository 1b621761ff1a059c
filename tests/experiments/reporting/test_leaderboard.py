"""The page over many comparisons: gaps to retraining, no mixing of runs, a way to each command."""

import re

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.reporting.leaderboard import lines_of
from experiments.runs.results import read_results
from tests.support.finished import write_run


def invoke(*arguments):
    return CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])


def test_a_line_holds_mean_gaps_to_retraining_and_its_cost(tmp_path):
    write_run(tmp_path / "a")
    lines = {line.strategy: line for line in lines_of(read_results(tmp_path / "a")[1])}
    assert "original" not in lines
    assert lines["retrain"].numbers == (0, 0, 0, 0, 1)
    forget, backdoor, membership, utility, cost = lines["fine-tune"].numbers
    assert (forget, membership) == (0, 0)
    assert (backdoor, utility, cost) == pytest.approx((0.59, 0.01, 0.2))
    assert lines["fed-eraser"].seeds == 3


def test_runs_stand_side_by_side_and_each_line_leads_to_its_command(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", partitioner="dirichlet")
    out = tmp_path / "board.html"
    result = invoke(tmp_path / "a", tmp_path / "b", "--out", out)
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    assert re.findall(r"<h2 id=.group-\d.>(.*?)</h2>", text) == [
        "digits (dirichlet), mlp: forget a client",
        "digits (iid), mlp: forget a client",
    ]
    assert set(re.findall(r'href="#(run-\d)"', text)) == set(re.findall(r'id="(run-\d)"', text))
    assert "://" not in text


@pytest.mark.parametrize("twice", [True, False])
def test_what_is_no_comparison_or_named_twice_is_refused_in_one_line(tmp_path, twice):
    write_run(tmp_path / "a", strategies=("original", "fed-eraser"))
    write_run(tmp_path / "b")
    names = ["b", "b"] if twice else ["a"]
    result = invoke(*(tmp_path / name for name in names), "--out", tmp_path / "x.html")
    assert result.exit_code == 2
    assert ("named twice" if twice else "no retrained model") in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_recorded_results_stand_beside_runs(tmp_path):
    write_run(tmp_path / "a")
    (tmp_path / "found.csv").write_bytes((tmp_path / "a" / "results.csv").read_bytes())
    listed = tmp_path / "list.toml"
    listed.write_text(
        '[[recorded]]\ntitle = "old digits"\nfile = "found.csv"\ncommand = "made so"\n'
    )
    result = invoke(tmp_path / "a", listed, "--out", tmp_path / "x.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "old digits" in text
    assert "<code>made so</code>" in text


@pytest.mark.parametrize("text", ["", "[[recorded]]\nfile = 'x.csv'\n", "recorded = 3", "no toml"])
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path, text):
    listed = tmp_path / "list.toml"
    listed.write_text(text)
    result = invoke(listed, "--out", tmp_path / "x.html")
    assert result.exit_code == 2
    assert "list.toml is no list of recorded results" in result.stderr


def test_what_is_recorded_here_can_be_shown(tmp_path):
    from experiments.benchmarks.recorded import RESULTS

    result = invoke(RESULTS / "leaderboard.toml", "--out", tmp_path / "x.html")
    assert result.exit_code == 0, result.output

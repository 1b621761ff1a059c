"""Plans, resuming, and the way from a plan to its page with a small real federation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from experiments.api import calls
from experiments.cli import app
from experiments.families.across import render_across
from experiments.families.comparison import carry_out, finished_runs, write_comparison
from experiments.families.plan import DEFAULT, Plan, Scenario, is_complete, read_plan
from experiments.runs.folder import RunFolder
from experiments.runs.record import ResultsError
from tests.support.finished import write_run
from unlearning.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
PLANS = sorted((ROOT / "experiments/plans").glob("*.toml"))
SMALL = """
title = "Small"
seeds = [0, 1]
strategies = ["fed-recovery"]
overrides = [
    "engine.grid=local", "device=cpu", "rounds=2", "recovery_rounds=1", "train.local_epochs=1",
    "data.limit=200", "data.clients=4", "options=",
]
[[scenarios]]
name = "iid"
config = "experiments/configs/families_client.toml"
[[scenarios]]
name = "dirichlet"
config = "experiments/configs/families_client.toml"
overrides = ["data.partitioner=dirichlet", "data.alpha=1.0"]
"""


def silent(tick):
    pass


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_of_the_package_can_be_carried_out(path):
    plan = read_plan(path)
    assert plan.scenarios
    for scenario in plan.scenarios:
        course = plan.course(scenario, (), silent)
        assert course.seeds == (scenario.seeds or plan.seeds)
        assert len(course.seeds) >= 3
        for name in course.names:
            course._strategy(name)


def test_the_default_plan_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {s.name for s in read_plan(DEFAULT).scenarios} >= {"client-iid", "task-dirichlet"}


def test_scenarios_inherit_what_they_do_not_say(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(SMALL)
    plan = read_plan(path)
    course = plan.course(plan.scenarios[1], ["data.alpha=2.0"], silent)
    assert course.config.data.params == {"alpha": 2.0}
    assert course.config.rounds == 2
    assert course.names == ("retrain", "fine-tune", "fed-recovery")
    assert course.seeds == (0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sedes = [1]", "sedes.*known keys: title, margin"),
        ("margin = -1", "margin"),
        ("[[scenarios]]\nname = 'a'", "either config or run"),
        ("[[scenarios]]\nname = 'a'\nrun = 'b'\nconfig = 'c'", "either config or run"),
        ("[[scenarios]]\nname = 'A b'\nrun = 'b'", "name"),
        ("[[scenarios]]\nname = 'a'\nrun = 'b'\n" * 2, "two scenarios are named 'a'"),
        ("[[scenarios", "is not TOML"),
    ],
)
def test_a_wrong_plan_is_told_in_one_line(tmp_path, text, words):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_plan(tmp_path / "none.toml")


def test_an_unknown_scenario_is_refused_before_anything_runs(tmp_path):
    plan = Plan(scenarios=(Scenario(name="a", config="experiments/configs/families_client.toml"),))
    with pytest.raises(ConfigError, match="no scenario is named 'b'; the plan has a"):
        carry_out(plan, tmp_path, only=["b"], observer=silent)
    assert list(tmp_path.iterdir()) == []


def test_finished_runs_can_be_named(tmp_path):
    write_run(tmp_path / "Some Run")
    plan = Plan().with_runs([tmp_path / "Some Run"])
    assert [s.name for s in plan.scenarios] == ["some-run"]
    page = write_comparison(plan, tmp_path / "out")
    assert {path.name for path in page.parent.iterdir()} == {
        "families.html",
        "families.csv",
        "claims.csv",
        "families.json",
        "families.tex",
    }
    with pytest.raises(ConfigError, match="two scenarios"):
        plan.with_runs([tmp_path / "Some Run"])


def test_a_named_run_that_has_not_finished_is_an_error(tmp_path):
    plan = Plan(scenarios=(Scenario(name="a", run=str(tmp_path)),))
    with pytest.raises(ResultsError, match=r"results\.json does not exist"):
        finished_runs(plan, tmp_path)


def test_a_plan_without_a_finished_scenario_has_no_page(tmp_path):
    plan = Plan(scenarios=(Scenario(name="a", config="x.toml"),))
    with pytest.raises(ConfigError, match="no scenario of the plan has finished"):
        write_comparison(plan, tmp_path)


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """Return plan file and folder of a small comparison, one scenario of it still missing."""
    root = tmp_path_factory.mktemp("families")
    path = root / "small.toml"
    path.write_text(SMALL)
    told = []
    arguments = {"observer": silent, "tell": told.append}
    carry_out(read_plan(path), root / "out", only=["iid"], **arguments)
    assert told == ["iid: 1 of 1 to run"]
    return path, root / "out"


def test_what_is_there_is_kept_and_what_is_missing_is_told(carried_out):
    path, out = carried_out
    plan = read_plan(path)
    before = RunFolder(out / "iid").results.stat().st_mtime_ns
    told = []
    carry_out(plan, out, only=["iid"], observer=silent, tell=told.append)
    assert told == ["iid: kept"]
    assert RunFolder(out / "iid").results.stat().st_mtime_ns == before
    write_comparison(plan, out)
    found = json.loads((out / "families.json").read_text())
    assert found["missing"] == ["dirichlet"]
    (scenario,) = found["scenarios"]
    assert set(scenario["strategies"]) == {"original", "retrain", "fine-tune", "fed-recovery"}
    assert scenario["strategies"]["fed-recovery"]["gap"]["n"] == 2
    assert scenario["courses"]["fed-recovery"]["rounds"] == [0, 1]
    assert scenario["courses"]["retrain"]["rounds"] == [1, 2, 3]


def test_another_config_or_other_seeds_are_refused_and_nothing_is_lost(carried_out):
    path, out = carried_out
    plan = read_plan(path)
    with pytest.raises(ConfigError, match=r"another comparison .*rounds is 2 there, 3 here"):
        carry_out(plan, out, overrides=["rounds=3"], observer=silent)
    with pytest.raises(ConfigError, match="seeds are"):
        carry_out(plan.model_copy(update={"seeds": (0,)}), out, observer=silent)
    assert RunFolder(out / "iid").results.is_file()
    assert not (out / "dirichlet").exists()


def test_an_interrupted_scenario_is_run_again(carried_out, tmp_path):
    path, out = carried_out
    plan = read_plan(path)
    course = plan.course(plan.scenarios[0], (), silent)
    assert is_complete(out / "iid", course)
    assert not is_complete(tmp_path / "iid", course)
    half = tmp_path / "iid"
    half.mkdir()
    (half / "config.toml").write_text((out / "iid/config.toml").read_text())
    assert not is_complete(half, course)


def test_the_command_goes_from_finished_runs_to_the_page(carried_out, tmp_path):
    _, out = carried_out
    made = tmp_path / "page"
    result = CliRunner().invoke(app, ["families", "--from", str(out / "iid"), "--out", str(made)])
    assert result.exit_code == 0, result.output
    assert str(made / "families.html") in result.output.replace("\n", "")


def test_the_command_is_a_skin_over_the_function_of_the_same_name(
    carried_out, tmp_path, monkeypatch
):
    path, _ = carried_out
    asked = {}

    def families(plan, **rest):
        asked.update(rest, plan=plan)
        return SimpleNamespace(path=tmp_path, report=lambda: tmp_path / "families.html")

    monkeypatch.setattr(calls, "families", families)
    words = ["--only", "iid", "--from", "there", "--set", "data.alpha=2.0", "--set", "rounds=3"]
    result = CliRunner().invoke(app, ["families", str(path), *words])
    assert result.exit_code == 0, result.output
    assert asked["only"] == ("iid",)
    assert asked["runs"] == [Path("there")]
    assert asked["out"] == Path("runs/families-small")
    dirichlet = asked["plan"].course(asked["plan"].scenarios[1], (), silent)
    assert dirichlet.config.data.params == {"alpha": 2.0}  # over what the scenario itself says
    assert dirichlet.config.rounds == 3


def test_the_function_takes_a_plan_and_tells_of_every_scenario(carried_out, tmp_path):
    path, out = carried_out
    told = []
    made = calls.families(read_plan(path), only="iid", out=out, tell=told.append)
    assert told == ["iid: kept"]
    assert made.path == out
    assert set(made.to_frame().strategy) == {"original", "retrain", "fine-tune", "fed-recovery"}
    with pytest.raises(ConfigError, match="rounds is 2 there, 3 here"):
        calls.families(read_plan(path).with_overrides(["rounds=3"]), only="iid", out=out)


# --- one page across runs ------------------------------------------------------------------------


def test_one_page_across_runs(tmp_path):
    kinds = {"first": "iid", "second": "dirichlet"}
    folders = [write_run(tmp_path / name, partitioner=kind) for name, kind in kinds.items()]
    result = CliRunner().invoke(app, ["report", *map(str, folders)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "runs.html").read_text()
    assert "2 runs side by side" in text
    assert 'id="first"' in text
    assert 'id="second"' in text


def test_runs_of_one_config_with_other_seeds_are_one_on_the_page(tmp_path):
    folders = [write_run(tmp_path / str(seed), seeds=(seed,)) for seed in (0, 1)]
    text = render_across(folders).read_text()
    assert "in 1 scenario on digits" in text
    assert "2 seeds are few" in text


def test_runs_of_one_name_are_told_apart_and_none_is_named_twice(tmp_path):
    folders = [write_run(tmp_path / place / "run") for place in ("a", "b")]
    text = render_across(folders, tmp_path / "page.html").read_text()
    assert "a/run" in text
    assert "b/run" in text
    with pytest.raises(ConfigError, match="named twice"):
        render_across([folders[0], folders[0]], tmp_path / "page.html")
    with pytest.raises(ConfigError, match="does not exist"):
        render_across([folders[0], tmp_path / "none"])

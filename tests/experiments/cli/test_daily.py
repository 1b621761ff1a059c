"""Commands of daily life: what they print, and how they end."""

import json

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.runs.folder import RunFolder
from experiments.runs.log import LOG
from experiments.runs.progress import Tick
from tests.experiments.cli.test_cli import config, launched, mistake  # noqa: F401
from tests.experiments.runs.test_shelf import compared


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_runs_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = compared(tmp_path / "runs" / "one")
    assert "finished" in call("runs").stdout
    (found,) = json.loads(call("runs", tmp_path, "--json").stdout)
    assert found["run"] == str(folder.path)
    (tmp_path / "empty").mkdir()
    assert "no run lies in" in call("runs", tmp_path / "empty").stdout
    assert "does not exist" in mistake("runs", tmp_path / "nowhere")


def test_logs_are_shown_until_the_run_has_ended(tmp_path):
    folder = compared(tmp_path / "one")
    assert "kept no log" in mistake("logs", folder.path)
    (folder.path / LOG).write_text("a\nb\n")
    assert call("logs", folder.path).stdout == "a\nb\n"
    assert call("logs", folder.path, "--follow").stdout == "a\nb\n"


def test_a_run_is_watched_until_it_has_ended(tmp_path, monkeypatch):
    folder = compared(tmp_path / "one")
    assert call("watch", folder.path).stdout.startswith(f"{folder.path}: finished")

    def running():
        with folder.tracked(lambda tick: None) as observe:
            observe(Tick("no-t", 0, "recover", 1, 1, 3, 0.5))
            yield

    tell = running()
    next(tell)
    monkeypatch.setattr("time.sleep", lambda seconds: next(tell, None))
    said = call("watch", folder.path).stdout
    assert "running" in said
    assert "1 of 3 rounds done; accuracy 0.500" in said
    assert "finished" in said


def test_cleaning_says_first_what_it_would_do(tmp_path, monkeypatch):
    folder = compared(tmp_path / "one")
    folder.history(0).mkdir(parents=True)
    (folder.history(0) / "a").write_bytes(b"x" * 2**20)
    said = call("clean", folder.path).stdout
    assert f"would remove {folder.histories}" in said
    assert "1.0 MiB in all; --yes does it" in said
    assert folder.histories.is_dir()
    assert "removed" in call("clean", folder.path, "--yes").stdout
    assert not folder.histories.exists()
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    assert call("clean", "--cache", "--yes").exit_code == 0
    assert not (tmp_path / "cache").exists()
    assert "nothing is named" in mistake("clean")


def test_nothing_that_ended_is_stopped(tmp_path):
    assert "not running" in mistake("stop", compared(tmp_path / "one").path)


def test_a_strategy_is_begun(tmp_path):
    said = call("new", "mine", "--in", tmp_path).stdout
    assert f"wrote {tmp_path / 'mine.py'}" in said
    assert "is there already" in mistake("new", "mine", "--in", tmp_path)


@pytest.mark.usefixtures("config")
def test_the_demo_compares_from_any_folder(launched):  # noqa: F811
    assert call("demo", "--out", "here").exit_code == 0
    assert launched[0].config.marker.client == 3


def test_the_doctor_answers():
    found = json.loads(call("doctor", "--fast", "--json").stdout)
    assert {"name", "found", "state", "remedy"} == set(found[0])
    assert "ok  Python" in call("doctor", "--fast").stdout


def test_versions_are_told():
    lines = call("--version").stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines[1:]] == ["flwr", "torch", "ray"]


def test_quiet_shows_the_answer_alone(config, launched):  # noqa: F811
    result = call("run", config, "--out", "here", "--quiet")
    assert result.stderr == ""
    assert "fed-eraser" in result.stdout


def test_verbose_tells_of_every_round(config, launched):  # noqa: F811
    assert "[1/2] fed-eraser" in call("--verbose", "run", config, "--out", "here").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell, monkeypatch):
    monkeypatch.setenv("_FEDUNLEARN_COMPLETE", f"source_{shell}")
    result = CliRunner().invoke(app, [], prog_name="fedunlearn")
    assert "_FEDUNLEARN_COMPLETE" in result.stdout


def test_a_run_leaves_a_log(tmp_path):
    import fedunlearn
    from tests.experiments.api.test_run import SMALL

    made = fedunlearn.run(SMALL, out=tmp_path / "one", rounds=1, recovery_rounds=0)
    text = (RunFolder(made.path).path / LOG).read_text()
    assert "started: fedunlearn.run(" in text
    assert text.rstrip().endswith("finished")

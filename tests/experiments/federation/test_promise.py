"""What is asked late, comes late, or waits for somebody: it is served, or seen to be overdue."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.cli.options import seconds
from experiments.config.loading import Config
from experiments.federation import estimate, launch
from experiments.federation.estimate import Sizes, check_room, estimated
from experiments.federation.task import Scenario, task
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import overview
from tests.support.small import small
from unlearning.errors import ConfigError
from unlearning.records import book
from unlearning.request import Request, Scope


def config(**changes: object) -> Config:
    usual = {
        "strategy": "no-t",
        "data": {"clients": 4, "limit": 200},
        "model": {"hidden": 8},
        "train": {"local_epochs": 1, "batch_size": 32, "learning_rate": 0.1},
        "requests": [],
    }
    return small(**{**usual, **changes})


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    return RunFolder(launch.run(config(), tmp_path / "run", observer=lambda tick: None))


def test_a_request_to_a_finished_run_waits_or_is_served_at_once(finished: RunFolder) -> None:
    run = str(finished.path)
    found = CliRunner().invoke(app, ["request", run, "--client", "0", "--id", "a"])
    assert f"waiting: `fedunlearn resume {run}` serves it" in found.stdout
    found = CliRunner().invoke(app, ["request", run, "--client", "1", "--id", "b", "--now"])
    assert found.exit_code == 0, found.output
    with finished.open_ledger(readonly=True) as ledger:
        assert [ledger.state(name) for name in "ab"] == ["fulfilled", "fulfilled"]


def test_what_is_overdue_is_shown_first_and_in_the_exit_code(
    finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with finished.open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="early"))
    run = str(finished.path)
    assert CliRunner().invoke(app, ["status", run]).exit_code == 0
    assert "; due 20" in overview(finished).lines()[-1]
    later = book.now().replace(year=book.now().year + 1)
    monkeypatch.setattr("unlearning.records.ledger.now", lambda: later)
    with finished.open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="late"))
    found = CliRunner().invoke(app, ["status", run])
    assert found.exit_code == 3
    lines = found.stdout.splitlines()
    assert lines[2].startswith("OVERDUE since 20")
    assert "request early" in lines[2]
    assert "request late" in lines[3]


def test_the_config_says_when_a_request_is_due(tmp_path: Path) -> None:
    made = launch.run(config(promise={"due_days": 2}), tmp_path / "run", observer=lambda tick: None)
    with RunFolder(made).open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="a"))
        days = (ledger.due_date("a") - book.now()).total_seconds() / 86400
    assert 1.9 < days <= 2


def test_every_head_goes_to_the_anchor(tmp_path: Path) -> None:
    anchor = tmp_path / "elsewhere.jsonl"
    settings = config(ledger={"anchor": str(anchor)})
    made = launch.run(settings, tmp_path / "run", observer=lambda tick: None)
    with RunFolder(made).open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="a"))
        ledger.verify()
    assert len(anchor.read_text().splitlines()) == 3  # of none, where it lies, the request


def test_an_anchor_is_found_from_every_folder_and_one_that_cannot_be_written_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = launch.run(config(ledger={"anchor": "a"}), Path("run"), observer=lambda tick: None)
    run = made.absolute()
    monkeypatch.chdir(run)
    assert CliRunner().invoke(app, ["request", str(run), "--client", "0"]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(run)]).exit_code == 0
    assert not (run / "a").exists()
    for place in (tmp_path, tmp_path / "none" / "a"):
        with pytest.raises(ConfigError, match=r"ledger\.anchor: .* cannot be written"):
            launch.run(
                config(ledger={"anchor": str(place)}), tmp_path / "b", observer=lambda tick: None
            )
    assert not (tmp_path / "b").exists()


def test_a_run_that_stays_serves_what_comes_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def ask() -> None:
        while not (status := RunFolder(out).read_status()) or status.rounds_done < 2:
            time.sleep(0.05)
        time.sleep(0.7)
        with RunFolder(out).open_ledger() as ledger:
            ledger.receive(Request(Scope.CLIENT, clients=(0,), id="late"))

    asking = threading.Thread(target=ask)
    asking.start()
    launch.run(config(), out, observer=lambda tick: None, idle_s=8)
    asking.join()
    with RunFolder(out).open_ledger(readonly=True) as ledger:
        assert ledger.state("late") == "fulfilled"


def test_lengths_of_time_are_read() -> None:
    assert [seconds(text, "--idle") for text in ("90", "30s", "10m", "1h")] == [90, 30, 600, 3600]
    for text in ("", "h", "-1", "soon", "inf"):
        with pytest.raises(ConfigError, match="give a length of time"):
            seconds(text, "--idle")


def test_sizes_are_those_of_the_history(tmp_path: Path) -> None:
    settings = config(strategy="fed-eraser", rounds=4)
    sizes = Sizes.of(settings, task(Scenario.of(settings, 0)), {"globals", "updates"})
    made = launch.run(settings, tmp_path / "run", observer=lambda tick: None)
    stored = sum(p.stat().st_size for p in (made / "history").rglob("*.safetensors"))
    expected = sizes.round_history * 4 + sizes.model
    assert expected < stored < 1.4 * expected  # names and layout stand beside the numbers
    whole = sum(p.stat().st_size for p in (made / "history").rglob("*") if p.is_file())
    assert 0.5 < whole / sizes.history < 2
    found = estimated(settings)
    assert found["history_bytes_per_round"] == sizes.round_history
    assert found["seconds_per_round"] > 0


def test_a_disk_that_is_too_small_is_told_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda place: Usage)
    settings = config(strategy="fed-eraser")
    with pytest.raises(ConfigError, match=r"history will take about .* GB and .*--anyway"):
        launch.run(settings, tmp_path / "run", observer=lambda tick: None)
    assert not (tmp_path / "run").exists()
    check_room(Sizes(1, 0, 0, 1, 1), tmp_path)
    launch.run(settings, tmp_path / "run", observer=lambda tick: None, anyway=True)

"""One strategy that fails costs no other one its answer, and is not passed over."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config.loading import from_mapping
from experiments.config.schema import alias_of
from experiments.federation import launch
from experiments.runs.details import read_details
from experiments.runs.progress import Tick
from experiments.runs.results import read_failed, read_results
from experiments.runs.status import read
from tests.support.small import SMALL
from tests.support.undrawn import undrawn

RAW = {**SMALL, "requests": [{"scope": "client", "clients": [1]}]}
ROGUES = {
    "Raises": "ZeroDivisionError: integer division or modulo by zero",
    "Leaves": "asked for the end of the process (exit code 3)",
    "Refuses": "not on a Sunday",
    "NotFinite": "not finite",
    "WrongShape": "shape",
    "WrongNames": "",
    "NoInit": "super().__init__()",
    "Meddles": "RuntimeError: after meddling",
    "Keeps": "no_such_step",
}


def rogue(name: str) -> str:
    return f"tests.support.rogues:{name}"


def compare(out: Path, *names: str, observer=lambda tick: None, **changes) -> Path:
    config = from_mapping({**RAW, **changes})
    return launch.compare(config, out, strategies=names, observer=observer)


def digests(out: Path) -> dict[str, str | None]:
    return {row.strategy: row.model_digest for row in read_results(out)[1]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Digests of strategies that were each compared alone."""
    root = tmp_path_factory.mktemp("alone")
    found: dict[str, str | None] = {}
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch.setattr)
        for name in ("fed-eraser", "gradient-ascent", "quick-drop"):
            found |= digests(compare(root / name, name))
    return found


@pytest.fixture(scope="module")
def among_rogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one comparison: all strategies that fail, and then one that does not."""
    out = tmp_path_factory.mktemp("rogues") / "run"
    return compare(out, *map(rogue, ROGUES), "fed-eraser")


@pytest.mark.parametrize("name", ROGUES)
def test_a_strategy_that_fails_is_a_failed_row_and_the_others_answer(
    among_rogues: Path, alone: dict[str, str | None], name: str
) -> None:
    out, shown = among_rogues, alias_of(rogue(name))
    (failed,) = (found for found in read_failed(out) if found.strategy == shown)
    assert ROGUES[name] in failed.failed
    assert "\n" not in failed.failed
    wanted = ("original", "retrain", "fine-tune", "fed-eraser")
    assert digests(out) == {one: alone[one] for one in wanted}
    assert rogue(name) in {entry.strategy for entry in read_details(out).refused}
    assert "did not answer" in (out / "report.html").read_text()
    with (out / "results.csv").open(newline="") as file:
        (line,) = (line for line in csv.DictReader(file) if line["strategy"] == shown)
    assert line["failed"] == failed.failed
    assert read(out / "status.json").state == "finished"


@pytest.mark.parametrize(
    "names",
    [
        ("fed-eraser", "quick-drop", "gradient-ascent", rogue("Meddles")),
        (rogue("Meddles"), "gradient-ascent", "fed-eraser", rogue("Raises"), "quick-drop"),
        ("quick-drop", rogue("Keeps"), "gradient-ascent", "fed-eraser"),
    ],
)
def test_strategies_give_together_what_each_gives_alone(
    tmp_path: Path,
    alone: dict[str, str | None],
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undrawn(monkeypatch.setattr)
    assert digests(compare(tmp_path / "run", *names)) == alone


def test_a_failed_strategy_is_said_on_the_terminal_with_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomli_w

    (tmp_path / "small.toml").write_text(tomli_w.dumps(RAW))
    call = ["compare", str(tmp_path / "small.toml"), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*call, "--strategies", f"{rogue('Raises')},fed-eraser"])
    assert done.exit_code == 1, done.output
    assert "error: raises failed (seed 0): Raises raised ZeroDivisionError" in done.stderr
    row, reason = (line for line in done.stdout.splitlines() if line.startswith("raises "))
    assert row.split()[:3] == ["raises", "approximate", "failed"]
    assert "ZeroDivisionError" in reason


def test_what_was_finished_is_kept_and_called_a_part(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop(tick: Tick) -> None:
        if tick.strategy == "fed-eraser":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedError):
        compare(out, "fed-eraser", observer=stop)
    assert read(out / "status.json").state == "interrupted"
    assert json.loads((out / "results.json").read_text())["partial"] is True
    assert set(digests(out)) == {"original", "retrain", "fine-tune"}
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    assert "This is a part" in (out / "report.html").read_text()
    whole = compare(tmp_path / "whole", "fed-eraser")
    assert "partial" not in json.loads((whole / "results.json").read_text())
    assert "This is a part" not in (whole / "report.html").read_text()

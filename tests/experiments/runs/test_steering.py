"""What is said of a request that is in: only where somebody waits for it, and for a reason."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.runs.folder import COMPARE, FederationFacts, RunFolder
from experiments.runs.inspection import RequestState, overview
from unlearning.request import Request, Scope


def made(path: Path, kind: str = "run") -> RunFolder:
    folder = RunFolder.claim(path, {"rounds": 3})
    folder.write_federation(FederationFacts({0: 4, 1: 5}, kind=kind))
    with folder.open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    return folder


def said(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, list(words))
    return found.exit_code, found.output


def two_months_more(folder: RunFolder) -> str:
    with folder.open_ledger(readonly=True) as ledger:
        return f"{ledger.due_date('r') + timedelta(days=60):%Y-%m-%d}"


def commands(folder: RunFolder) -> list[list[str]]:
    run = str(folder.path)
    return [
        ["withdraw", run, "r", "--reason", "x"],
        ["extend", run, "r", "--to", two_months_more(folder), "--reason", "x"],
        ["release", run, "r"],
    ]


def test_in_a_comparison_nobody_waits(tmp_path: Path) -> None:
    folder = made(tmp_path, COMPARE)
    for words in commands(folder):
        code, output = said(*words)
        assert code == 2
        assert "is a comparison; nothing is" in output
    with folder.open_ledger() as ledger:
        assert [event.event for event in ledger.events()] == ["received"]


@pytest.mark.parametrize(
    ("to", "reason", "words"),
    [
        ("tomorrow", "x", "give a day as 2026-12-31"),
        ("2027-02-30", "x", "give a day as 2026-12-31"),
        ("9999-12-31T23:59-14:00", "x", "give a day as 2026-12-31"),
        ("0001-01-01T00:00+14:00", "x", "give a day as 2026-12-31"),
        ("2020-01-01", "x", "name a later day"),
        ("2099-01-01", " ", "for a reason"),
        ("2099-01-01", "x", "may be put off to"),
    ],
)
def test_a_bad_date_is_one_line_and_changes_nothing(
    tmp_path: Path, to: str, reason: str, words: str
) -> None:
    folder = made(tmp_path)
    code, output = said("extend", str(folder.path), "r", "--to", to, "--reason", reason)
    assert (code, words in output) == (2, True), output
    with folder.open_ledger() as ledger:
        assert len(ledger.events()) == 1


def test_more_time_does_not_hide_that_a_request_is_held(tmp_path: Path) -> None:
    folder = made(tmp_path)
    later = two_months_more(folder)
    with folder.tracked(lambda tick: None), folder.open_ledger() as ledger:
        ledger.add("r", "held", stage="batch", reason="it waits for others")
    assert said(*commands(folder)[1])[0] == 0
    output = said("status", str(folder.path))[1]
    assert f"client 1: held; due {later}" in output
    assert "it waits for others" in output


def test_two_months_are_all_the_time_there_is_however_often_it_is_put_off(tmp_path: Path) -> None:
    folder = made(tmp_path)
    run, later = str(folder.path), two_months_more(folder)
    assert said("extend", run, "r", "--to", later, "--reason", "x")[0] == 0
    code, output = said("extend", run, "r", "--to", two_months_more(folder), "--reason", "x")
    assert (code, f"to {later} at the latest" in output) == (2, True), output
    text = folder.config.read_text(encoding="utf-8")
    folder.config.write_text(f"{text}\n[promise]\nextension_days = 120\n", encoding="utf-8")
    assert said("extend", run, "r", "--to", two_months_more(folder), "--reason", "x")[0] == 0


def test_status_says_why_a_request_was_refused(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with folder.tracked(lambda tick: None), folder.open_ledger() as ledger:
        ledger.add("r", "refused", reason="it works on one label")
    assert "client 1: refused; it works on one label" in said("status", str(folder.path))[1]


def test_what_is_taken_back_is_taken_back_for_a_reason(tmp_path: Path) -> None:
    folder = made(tmp_path)
    code, output = said("withdraw", str(folder.path), "r", "--reason", " ")
    assert (code, "for a reason" in output) == (2, True)
    assert said(*commands(folder)[0])[0] == 0
    for words in commands(folder):
        assert said(*words)[0] == 2
    with folder.open_ledger() as ledger:
        assert ledger.state("r") == "withdrawn"


def test_status_says_how_a_failed_request_is_served_again(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with folder.tracked(lambda tick: None), folder.open_ledger() as ledger:
        ledger.add("r", "started")
        ledger.add("r", "failed", reason="the noise is longer than the model; lower sigma")
    output = said("status", str(folder.path))[1]
    assert "failed; due" in output
    assert "lower sigma; the data stay out of training" in output
    assert f"`fedunlearn resume {folder.path}` serves it again" in output
    assert (
        overview(folder)
        .requests[0]
        .remark.endswith("failed; the noise is longer than the model; lower sigma")
    )


def test_what_nobody_retrained_for_is_not_called_measured() -> None:
    def line(**fates: str) -> str:
        return RequestState("r", "client 1", None, {"": "fulfilled"}, verdicts=fates).line()

    assert line(sifu="not measured").endswith("not compared with a retrained model")
    assert line(sifu="forgotten").endswith("measured: sifu forgotten")

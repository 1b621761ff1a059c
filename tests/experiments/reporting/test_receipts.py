"""Receipts: good where nothing was touched, bad after any change, checked with the file alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.reporting.receipts import check_file, write
from experiments.runs.folder import COMPARE, FederationFacts, RunFolder
from tests.support.tampered import change
from unlearning.errors import LedgerError, RequestError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.claim(tmp_path / "run", {"rounds": 3})
    made.write_federation(FederationFacts({0: 4, 1: 5}))
    with Ledger(made.ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="other"))
        ledger.receive(Request(Scope.CLIENT, clients=(1,), asked_by="</script>&", id="r"))
        facts = {"strategy": "NoT", "guarantee": "approximate"}
        ledger.add("r", "started", **facts, options={"share": 0.1}, model_before="aa")
        ledger.add(
            "r",
            "fulfilled",
            **facts,
            model_after="bb",
            metrics={"mia_auc": 0.5, "backdoor_success": None},
            deletion={"acknowledged": [], "unacknowledged": [1]},
            deleted={"files": 1, "bytes": 9, "root": "cc", "first": ["dd  a/b"]},
        )
    return made


def invoke(*arguments: object) -> object:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_receipt_says_what_the_ledger_says_and_is_good(folder: RunFolder, tmp_path: Path) -> None:
    paths = write(folder, "r", tmp_path / "out")
    for path in paths:
        found = check_file(path, folder.ledger.with_suffix(".pub"))
        assert found.is_good, [one.what for one in found.checks if not one.holds]
        assert (found.state, found.forget) == ("fulfilled", "client 1")
    said = json.loads(paths[0].read_bytes())["statement"]
    assert said["owners_not_confirmed"] == [1]
    assert said["measures"] == {"mia_auc": 0.5}
    assert said["not_measured"] == ["backdoor_success"]
    assert said["claim_in_words"].startswith("nothing is proven")
    assert (said["model_before"], said["model_after"]) == ("aa", "bb")
    assert said["due"] > said["received"]
    page = paths[1].read_text()
    assert "client 1 has not confirmed the deletion" in page
    assert "<th>Owners who did not</th><td>client 1</td>" in page  # not: how many they are
    assert "//" not in page.split("<script")[0]


def test_a_receipt_says_that_no_weight_was_changed(folder: RunFolder, tmp_path: Path) -> None:
    said = "no weight was changed for it"
    assert said not in write(folder, "r", tmp_path / "a")[1].read_text()
    with Ledger(folder.ledger) as ledger:
        facts = {"strategy": "NoT", "guarantee": "approximate"}
        ledger.add("other", "started", **facts, model_before="aa")
        ledger.add("other", "fulfilled", **facts, model_after="aa", unchanged=True)
    page = write(folder, "other", tmp_path / "b")[1]
    assert said in page.read_text()
    assert check_file(page).is_good


def test_a_receipt_says_since_when_the_ledger_is_noted_elsewhere(tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    made = RunFolder.claim(tmp_path / "run", {"rounds": 3, "ledger": {"anchor": str(anchor)}})
    made.write_federation(FederationFacts({0: 4, 1: 5}))
    with made.open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    page = write(made, "r", tmp_path / "a")[1]
    assert "vouches for 2 of 2 event(s)." in page.read_text()
    anchor.unlink()
    with made.open_ledger() as ledger:
        ledger.add("r", "withdrawn", reason="x")
    paths = write(made, "r", tmp_path / "b")
    assert "begun after event 2" in paths[1].read_text()
    assert "it was lost before, and the operator has not said why" in paths[1].read_text()
    assert all(check_file(path).is_good for path in paths)
    assert invoke("verify", made.path).exit_code == 1  # type: ignore[attr-defined]
    told = invoke("status", made.path)
    assert told.exit_code == 1  # type: ignore[attr-defined]
    assert "LEDGER NOT TO BE TRUSTED: the anchor" in told.output  # type: ignore[attr-defined]
    said = invoke("reanchor", made.path, "--reason", "the disk broke")
    assert said.exit_code == 0  # type: ignore[attr-defined]
    assert invoke("status", made.path).exit_code == 0  # type: ignore[attr-defined]


def test_any_changed_byte_is_found(folder: RunFolder, tmp_path: Path) -> None:
    paths = write(folder, "r", tmp_path / "out")
    generator = np.random.default_rng(0)
    for path in paths:
        good = path.read_bytes()
        for place in generator.integers(0, len(good), 150):
            byte = bytes([(good[place] + 1 + int(generator.integers(254))) % 256])
            if byte == good[place : place + 1]:
                continue
            path.write_bytes(good[:place] + byte + good[place + 1 :])
            with suppress(LedgerError):  # not even a receipt any more
                assert not check_file(path).is_good, (path.name, place, byte)
        path.write_bytes(good + b"\n")
        assert not check_file(path).is_good
        path.write_bytes(good)
        assert check_file(path).is_good


def test_a_receipt_of_another_operator_is_not_taken(folder: RunFolder, tmp_path: Path) -> None:
    (path, _) = write(folder, "r", tmp_path / "out")
    with Ledger(tmp_path / "foreign.sqlite"):
        pass
    found = invoke("receipt", "check", path, "--key", tmp_path / "foreign.pub")
    assert found.exit_code == 1
    assert "BAD that key is the given one" in found.stdout
    assert "NOT good" in found.stdout


def test_check_works_in_a_bare_folder(folder: RunFolder, tmp_path: Path) -> None:
    (path, _) = write(folder, "r", tmp_path / "out")
    bare = tmp_path / "bare"
    bare.mkdir()
    os.rename(path, bare / "receipt.json")
    code = "from experiments.cli import app; app(['receipt', 'check', 'receipt.json'])"
    root = str(Path(__file__).parents[3])
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=bare,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "a receipt cannot prove:" in found.stdout
    assert "kept no other copy" in found.stdout
    assert [entry.name for entry in bare.iterdir()] == ["receipt.json"]


def test_the_commands_answer_mistakes_in_one_line(folder: RunFolder, tmp_path: Path) -> None:
    for arguments, words in [
        (("receipt", "make", folder.path, "q"), "unknown request 'q'"),
        (("receipt", "check", tmp_path / "none.json"), "cannot be read"),
        (("receipt", "check", folder.config), "no receipt"),
        (("extend", folder.path, "other", "--to", "soon", "--reason", "x"), "give a day as"),
        (("extend", folder.path, "other", "--to", "2020-01-01", "--reason", "x"), "later day"),
        (("withdraw", folder.path, "r", "--reason", "x"), "already fulfilled"),
    ]:
        found = invoke(*arguments)
        assert found.exit_code == 2, found.output
        assert words in found.stderr
        assert len(found.stderr.splitlines()) == 1


def test_of_a_ledger_that_was_cut_no_receipt_is_made(folder: RunFolder, tmp_path: Path) -> None:
    change(
        folder.ledger,
        "DELETE FROM events WHERE seq = (SELECT MAX(seq) FROM events)",
    )
    found = invoke("receipt", "make", folder.path, "r", "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "cut off" in found.stderr
    assert not (tmp_path / "out").exists()


def test_withdrawing_extending_and_a_new_key(folder: RunFolder) -> None:
    with Ledger(folder.ledger, readonly=True) as ledger:
        due = f"{ledger.due_date('other') + timedelta(days=60):%Y-%m-%d}"
    later = ("--to", due, "--reason", "many")
    assert invoke("extend", folder.path, "other", *later).exit_code == 0
    assert invoke("rekey", folder.path, "--reason", "lost").exit_code == 0
    assert invoke("withdraw", folder.path, "other", "--reason", "changed my mind").exit_code == 0
    with Ledger(folder.ledger, readonly=True) as ledger:
        ledger.verify()
        assert ledger.state("other") == "withdrawn"
        assert f"{ledger.due_date('other'):%Y-%m-%d}" == due
        assert [request.id for request in ledger.waiting()] == []


def test_receipts_are_of_runs(tmp_path: Path) -> None:
    made = RunFolder.claim(tmp_path / "run", {"rounds": 3})
    made.write_federation(FederationFacts({0: 4}, kind=COMPARE))
    with pytest.raises(RequestError, match="is a comparison"):
        write(made, "r", tmp_path / "out")


def test_receipts_given_out_before_stay_good() -> None:
    """A third party checks years later, with the program of then.

    Where this fails, what a receipt says or how its page is drawn has changed: keep the older way
    beside the new one, under a tag of its own, and add files to ``kept``; never replace these.
    """
    kept = Path(__file__).parent / "kept"
    for name in ("receipt.json", "receipt.html"):
        found = check_file(kept / name, kept / "ledger.pub")
        assert found.is_good, (name, [one.what for one in found.checks if not one.holds])
        assert (found.state, found.forget) == ("fulfilled", "client 1")

import json
import shutil
import sqlite3
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from experiments.cli import app
from experiments.runs.details import write_details
from experiments.runs.folder import FederationFacts, RunFolder
from experiments.runs.inspection import RequestState, overview, sweep, verify
from experiments.runs.progress import Tick
from experiments.runs.results import Row, write_results
from tests.support.tampered import change
from unlearning.arrays import digest
from unlearning.errors import HistoryError, LedgerError
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

MODEL = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


def silent(tick):
    pass


@pytest.fixture
def folder(tmp_path):
    """Return a finished run with two recorded rounds and one request served."""
    made = RunFolder.claim(tmp_path / "run", {"rounds": 2})
    request = Request(Scope.CLIENT, clients=(3,), at_round=2, id="first")
    with made.tracked(silent) as observe, Ledger(made.ledger) as ledger:
        observe(Tick("fed-eraser", 0, "recover", 2, 5, 5, 0.75))
        ledger.receive(request)
        ledger.add("first", "started")
        ledger.add("first", "fulfilled")
        head = ledger.head
    made.histories.mkdir()
    with History(made.history(0), keep=("globals", "updates"), key=made.key) as history:
        history.start(MODEL)
        for server_round in (1, 2):
            with history.record(server_round, MODEL) as entry:
                entry.add(0, 4, MODEL)
    save_file(MODEL, made.model)
    row = Row("fed-eraser", 0, "client", "approximate", {}, {}, digest(MODEL))
    write_results(made.path, {}, [row])
    write_details(made.path, {"ledger_head": head})
    return made


def test_the_overview_tells_how_far_and_what_became_of_requests(folder):
    found = overview(folder)
    assert found.status.state == "finished"
    assert found.requests[0].states == {"": "fulfilled"}
    text = "\n".join(found.lines())
    assert "fed-eraser, recover, round 2; 5 of 5 rounds done; accuracy 0.750" in text
    assert "request first: forget client 3 after round 2: fulfilled" in text
    assert json.loads(json.dumps(found.to_json()))["status"]["rounds_done"] == 5


def test_the_overview_of_a_comparison_tells_each_branch(folder):
    with Ledger(folder.ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="second"))
        ledger.on_branch("retrain/seed-0").add("second", "started")
        ledger.on_branch("fed-eraser/seed-0").add("second", "refused")
    second = overview(folder).requests[1]
    assert second.states == {"retrain/seed-0": "started", "fed-eraser/seed-0": "refused"}
    assert second.line().endswith("client 1: retrain/seed-0: started, fed-eraser/seed-0: refused")


def test_a_run_that_has_not_begun_is_said_so_and_left_alone(tmp_path):
    folder = RunFolder.claim(tmp_path, {})
    found = overview(folder)
    assert found.lines() == [f"{tmp_path}: not begun"]
    assert found.to_json()["status"] is None
    assert list(tmp_path.iterdir()) == [folder.config]


def test_a_sound_run_passes(folder):
    found = verify(folder)
    assert found.problems == ()
    assert found.to_json()["sound"] is True
    text = "\n".join(found.checked)
    assert "chain of 3 event(s) is sound" in text
    assert "history/seed-0: 2 round(s)" in text
    assert "model: it is the one" in text


def problems(folder):
    return "\n".join(verify(folder).problems)


def test_an_edited_ledger_is_found(folder):
    change(folder.ledger, "UPDATE events SET event = 'refused' WHERE seq = 3")
    assert "breaks at seq 3" in problems(folder)


def test_a_ledger_that_was_cut_off_is_found(folder):
    change(folder.ledger, "DELETE FROM events WHERE seq = 3")
    assert "its end was cut off" in problems(folder)


def test_a_missing_ledger_is_found_and_not_made(folder):
    folder.ledger.unlink()
    assert "ledger.sqlite is missing" in problems(folder)
    assert not folder.ledger.exists()


def test_a_status_without_its_ledger_is_an_error_and_no_empty_list(folder):
    folder.ledger.with_suffix(".head").write_text("{}")
    folder.ledger.unlink()
    with pytest.raises(LedgerError, match=r"ledger\.sqlite is missing"):
        overview(folder)


def test_a_missing_model_of_a_run_is_found(folder):
    folder.write_federation(FederationFacts(clients={0: 4}, classes=(0, 1), kind="run"))
    folder.model.unlink()
    assert "model.safetensors is missing" in problems(folder)
    folder.write_federation(FederationFacts(clients={0: 4}, classes=(0, 1), kind="compare"))
    assert "model.safetensors" not in problems(folder)  # a comparison keeps none


def test_a_flipped_byte_in_the_history_is_found(folder):
    file = next(folder.history(0).rglob("client-00000*"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert file.name in problems(folder)


def test_a_history_without_its_index_is_found(folder):
    (folder.history(0) / "index.sqlite").unlink()
    assert "index.sqlite" in problems(folder)


def test_another_model_is_found(folder):
    save_file({"weight": MODEL["weight"] + 1}, folder.model)
    assert "which no row of" in problems(folder)


def test_a_damaged_model_is_found(folder):
    folder.model.write_bytes(b"nonsense")
    assert "model.safetensors" in problems(folder)


def _content(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _recorded(tmp_path):
    """Return a run folder whose history holds one round, finished."""
    folder = RunFolder.claim(tmp_path / "kept", {"rounds": 1})
    folder.write_federation(FederationFacts({0: 10, 1: 10}))
    with folder.tracked(silent), Ledger(folder.ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,)))
        with History(folder.history(0), key=folder.key) as history:
            history.start({"w": np.ones(2, np.float32)})
    return folder


def test_looking_changes_nothing_and_takes_no_lock(tmp_path):
    folder = _recorded(tmp_path)
    stray = folder.history(0) / "rewrite-00009" / "x.safetensors"
    stray.parent.mkdir()
    stray.write_bytes(b"left by a crash")
    before = _content(folder.path)
    with History.open(folder.history(0), readonly=True):
        assert any("not in the index" in problem for problem in verify(folder).problems)
    assert _content(folder.path) == before
    with History.open(folder.history(0)) as writer:  # a run at work holds the lock
        verify(folder)
        assert writer.store.writable


def test_an_emptied_index_is_no_sound_history_and_is_not_swept(tmp_path):
    folder = _recorded(tmp_path)
    with sqlite3.connect(folder.history(0) / "index.sqlite") as db:
        db.execute("DELETE FROM blobs")
    db.close()
    assert any("not in the index" in problem for problem in verify(folder).problems)
    with pytest.raises(HistoryError, match="would delete all that is left"):
        sweep(folder)
    assert list(folder.history(0).rglob("*.safetensors"))


def test_a_history_that_is_gone_is_missed(tmp_path):
    folder = _recorded(tmp_path)
    assert verify(folder).problems == ()
    shutil.rmtree(folder.histories)
    assert any("holds no history" in problem for problem in verify(folder).problems)


def test_status_and_report_tell_of_a_ledger_that_was_cut(folder):
    def invoke(*words):
        return CliRunner().invoke(app, [*words, str(folder.path)])

    assert invoke("status").exit_code == 0
    change(folder.ledger, "DELETE FROM events WHERE seq = 3")
    told = invoke("status")
    assert told.exit_code == 1
    (line,) = [line for line in told.output.splitlines() if line.startswith("LEDGER NOT")]
    assert "its end was cut off" in line
    assert json.loads(invoke("status", "--json").output)["broken"] in line
    made = invoke("report")
    assert (made.exit_code, "cannot be trusted" in made.stderr) == (1, True)
    assert "The ledger cannot be trusted" in folder.report.read_text()


def test_a_ledger_that_grows_while_it_is_looked_at_is_sound(folder):
    stop = threading.Event()

    def write():
        with Ledger(folder.ledger) as ledger:
            while not stop.is_set():
                ledger.note("seen")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            assert overview(folder).broken == ""
    finally:
        stop.set()
        writer.join()


def test_what_is_served_and_measured_by_nothing_is_said_to_be_fulfilled():
    served = RequestState("a", "class 7", None, {"": "fulfilled"})
    assert served.remark == "request a: forget class 7: fulfilled"

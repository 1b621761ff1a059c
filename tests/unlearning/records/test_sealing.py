"""The rows of a history's index: a change there is found and named, and destroys nothing."""

from __future__ import annotations

import shutil
import sqlite3
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.records.history import COLUMNS, History
from unlearning.records.seal import Seal
from unlearning.request import Request, Scope

CHANGES = 1000
Row = tuple[object, ...]


def model(seed: int) -> Arrays:
    return {"w": np.random.default_rng(seed).normal(size=6).astype(np.float32)}


def record(history: History, server_round: int, clients: range) -> None:
    with history.record(server_round, model(server_round)) as entry:
        for client in clients:
            entry.add(client, 10 + client, model(100 * server_round + client))


def key_of(run: Path) -> Path:
    key = run / "ledger.key"
    if not key.exists():
        run.mkdir(parents=True, exist_ok=True)
        Seal.make(key)
    return key


def made(run: Path, rounds: int = 4, *, key: bool = True) -> Path:
    """Leave a history of three clients in a run folder; return its folder."""
    root = run / "history" / "seed-0"
    with History(root, keep=COLUMNS, key=key_of(run) if key else None) as history:
        history.start(model(0))
        for t in range(1, rounds + 1):
            record(history, t, range(3))
        history.keep_state({"s": np.arange(3.0)})
    return root


def problems(root: Path) -> list[str]:
    try:
        with History.open(root, readonly=True, key=root.parents[1] / "ledger.key") as history:
            return history.verify()
    except HistoryError as error:  # a setting without which nothing can be read
        return [str(error)]


def change(root: Path, statement: str, values: Row = ()) -> None:
    db = sqlite3.connect(root / "index.sqlite")
    with db:
        assert db.execute(statement, values).rowcount == 1
    db.close()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "UPDATE participants SET num_examples = 1000 * num_examples"
            " WHERE round = 2 AND client = 1",
            "with how many examples",
        ),
        ("DELETE FROM participants WHERE round = 2 AND client = 1", "who took part in round 2"),
        ("UPDATE participants SET client = 9 WHERE round = 2 AND client = 1", "who took part"),
        (
            "UPDATE blobs SET client = 7 WHERE round = 2 AND kind = 'update' AND client = 1",
            "whose they are",
        ),
        ("UPDATE blobs SET sha256 = 'x' WHERE round = 3 AND kind = 'global'", "files hold round 3"),
        ("UPDATE blobs SET client = 7 WHERE kind = 'contribution' AND client = 1", "contribution"),
        ("UPDATE rounds SET erased = 'request-1' WHERE round = 3", "took part in round 3"),
        ("DELETE FROM rounds WHERE round = 4", "took part in round 4"),
        ("INSERT INTO rounds VALUES (5, NULL)", "round 5 was added"),
        ("UPDATE settings SET value = '[]' WHERE key = 'keep'", "a setting"),
        ("UPDATE participants SET norms = 'x' WHERE round = 1 AND client = 0", "round 1"),
    ],
)
def test_a_changed_row_is_named(tmp_path: Path, statement: str, named: str) -> None:
    root = made(tmp_path)
    assert problems(root) == []
    change(root, statement)
    found = problems(root)
    assert any(named in problem for problem in found), found


def test_a_thousand_random_changes_are_all_found(tmp_path: Path) -> None:
    root = made(tmp_path, rounds=3)
    rng = np.random.default_rng(0)
    pristine = (root / "index.sqlite").read_bytes()
    files = sorted(path for path in root.rglob("*.safetensors"))
    missed = []
    for turn in range(CHANGES):
        (root / "index.sqlite").write_bytes(pristine)
        said = _random_change(root, rng)
        if not problems(root):
            missed.append(said)
        if turn % 50 == 0:  # whoever wants to write is refused in one line
            with pytest.raises(HistoryError) as refused:
                History.open(root, key=key_of(tmp_path))
            assert "\n" not in str(refused.value)
    assert missed == []
    assert sorted(path for path in root.rglob("*.safetensors")) == files


def _random_change(root: Path, rng: np.random.Generator) -> str:
    """Change, strike or double one row, or a value of it, at random; return what was done."""
    db = sqlite3.connect(root / "index.sqlite", isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    try:
        while True:
            tables = ("settings", "rounds", "participants", "blobs", "seals", "closing")
            table = str(rng.choice(tables))
            rows = db.execute(f"SELECT * FROM {table}").fetchall()
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            row = rows[rng.integers(len(rows))]
            own = " AND ".join(f"{name} IS ?" for name in columns)
            at = int(rng.integers(len(columns)))
            value = _other(row[at], rng)
            statement, values = {
                0: (f"DELETE FROM {table} WHERE {own}", row),
                1: (
                    f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})",
                    (*row[:at], value, *row[at + 1 :]),
                ),
            }.get(
                int(rng.integers(4)),
                (f"UPDATE {table} SET {columns[at]} = ? WHERE {own}", (value, *row)),
            )
            try:
                db.execute(statement, values)
            except sqlite3.Error:
                continue  # the tables' own rules refuse it
            if db.execute(f"SELECT * FROM {table}").fetchall() != rows:
                return f"{statement} {values}"
    finally:
        db.close()


def _other(value: object, rng: np.random.Generator) -> object:
    choices: list[object] = ["", "x", None, 0, -1, 2.5, b"\xff", 10**12]
    if isinstance(value, int | float):
        choices += [value + 1, value * 1000]
    if isinstance(value, str) and value:
        at = int(rng.integers(len(value)))
        choices += [value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :], value[:-1], value + " "]
    return choices[int(rng.integers(len(choices)))]


def test_cut_rounds_and_a_chain_made_anew_without_the_key_are_found(tmp_path: Path) -> None:
    root = made(tmp_path)
    twin = tmp_path / "twin"
    shutil.copytree(root, twin / "history" / "seed-0")
    for table in ("rounds", "participants", "blobs", "seals"):
        db = sqlite3.connect(root / "index.sqlite")
        with db:
            db.execute(f"DELETE FROM {table} WHERE round = 4")
        db.close()
    assert any("number of its rounds" in problem for problem in problems(root))
    shutil.copy2(tmp_path / "ledger.pub", twin / "ledger.pub")
    with History.open(twin / "history" / "seed-0") as forger:  # writes, and has no key
        forger.truncate(3)
    assert any("not signed by the key" in problem for problem in problems(twin / "history/seed-0"))


def test_another_history_in_its_place_is_found(tmp_path: Path) -> None:
    root = made(tmp_path)
    root.rename(root.with_name("seed-1"))
    assert any("sealed as 'seed-0'" in one for one in problems(root.with_name("seed-1")))


def test_whatever_a_history_does_leaves_it_sealed(tmp_path: Path) -> None:
    root = made(tmp_path)
    key = key_of(tmp_path)
    with History.open(root, key=key) as history:
        assert history.verify() == []
        assert "signed" in history.sealed
        fork = history.fork(root.with_name("seed-0.new"), durable=False)
        fork.truncate(1)
        record(fork, 2, range(2))
        assert fork.verify() == []
        history.adopt(fork, Request(Scope.CLIENT, clients=(2,), id="r"))
        fork.destroy()
        assert history.verify() == []
        record(history, 3, range(1))
        history.purge(Request(Scope.CLIENT, clients=(1,), id="q"))
        assert history.verify() == []
        history.truncate(2)
        history.keep_state({})
        memory = history.fork(None)
        record(memory, 3, range(1))
        assert memory.verify() == history.verify() == []
    assert problems(root) == []
    assert "signed" in History.open(root, readonly=True, key=key).sealed


def test_without_a_key_there_are_digests_alone(tmp_path: Path) -> None:
    root = made(tmp_path, key=False)
    with History.open(root) as history:
        assert history.sealed.endswith("without a key")
    change(root, "UPDATE participants SET weight = 0 WHERE round = 1 AND client = 0")
    assert "round 1" in problems(root)[0]


def test_a_history_of_an_older_format_is_read_and_sealed_when_it_goes_on(tmp_path: Path) -> None:
    root = made(tmp_path)
    db = sqlite3.connect(root / "index.sqlite")
    for statement in (
        "DROP TABLE seals",
        "DROP TABLE closing",
        "ALTER TABLE blobs DROP COLUMN key",
        "PRAGMA user_version=2",
    ):
        db.execute(statement)
    db.close()
    key = key_of(tmp_path)
    with History.open(root, readonly=True, key=key) as history:
        assert history.verify() == []
        assert "not sealed" in history.sealed
    with History.open(root, key=key) as history:
        record(history, 5, range(2))
        assert "signed" in history.sealed
    assert problems(root) == []
    change(root, "UPDATE participants SET num_examples = 1 WHERE round = 2 AND client = 1")
    assert "round 2" in problems(root)[0]


def test_a_round_costs_no_look_at_the_rounds_before(tmp_path: Path) -> None:
    """Statements are counted: the same number, over the rows of one round, in round 2 and 30."""
    with History(tmp_path / "h", key=key_of(tmp_path), keep={"globals"}) as history:
        history.start(model(0))
        steps = {}
        for t in range(1, 31):
            taken: list[int] = []
            history.store.db.set_progress_handler(lambda taken=taken: taken.append(1), 20)
            record(history, t, range(5))
            history.store.db.set_progress_handler(None, 20)
            steps[t] = len(taken)
    assert steps[30] <= 1.5 * steps[3] + 20


def test_rows_are_read_round_by_round(tmp_path: Path) -> None:
    """Whoever seals anew or checks holds the rows of one round, however many there are."""
    with History(tmp_path / "history") as history:
        history.start(model(0))
        for t in range(1, 201):
            with history.record(t, model(t)) as entry:
                for client in range(100):
                    entry.note(client, 10)
        tracemalloc.start()
        history.purge(Request(Scope.CLIENT, clients=(3,), id="r"))
        assert history.verify() == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert history.last_round == 200
    assert peak < 1e6  # all rows at once take 5 MB


@pytest.mark.parametrize(
    "changes", [60, pytest.param(CHANGES, marks=[pytest.mark.slow, pytest.mark.nightly])]
)
def test_any_change_of_a_stored_file_is_found_and_destroys_nothing(
    tmp_path: Path, changes: int
) -> None:
    """Bytes flipped, cut off or added, files exchanged, struck and put in place of others."""
    root = made(tmp_path / "run")
    files = sorted(path for path in root.rglob("*.safetensors"))
    held = {path: path.read_bytes() for path in files}
    generator = np.random.default_rng(0)
    with History.open(root, readonly=True, key=root.parents[1] / "ledger.key") as history:
        for turn in range(changes):
            one, other = (files[i] for i in generator.choice(len(files), 2, replace=False))
            data = held[one]
            at = int(generator.integers(len(data)))
            flipped = data[:at] + bytes([data[at] ^ 1 << int(generator.integers(8))])
            kind = turn % 6
            if kind == 0:
                one.write_bytes(flipped + data[at + 1 :])
            elif kind == 1:
                one.write_bytes(data[:at])
            elif kind == 2:
                one.write_bytes(data + b"\0" * (at + 1))
            elif kind == 3:
                one.unlink()
            elif kind == 4:
                one.write_bytes(held[other])
            else:
                one.write_bytes(held[other])
                other.write_bytes(data)
            found = history.verify()
            assert any(one.name in problem for problem in found) or held[one] == held[other], kind
            one.write_bytes(data)
            other.write_bytes(held[other])
        assert history.verify() == []
    assert {path: path.read_bytes() for path in files} == held

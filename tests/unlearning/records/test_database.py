"""What is said of a database that cannot be read depends on what is wrong: disk or file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from unlearning.records.database import connect, unread


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, "remove the cause and run it again"),
        (sqlite3.SQLITE_FULL, "remove the cause and run it again"),
        (sqlite3.SQLITE_BUSY, "remove the cause and run it again"),
        (sqlite3.SQLITE_CORRUPT, "restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, "restore it from a backup"),
    ],
)
def test_only_a_damaged_file_is_to_be_restored(tmp_path: Path, code: int, words: str) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    said = unread(str(tmp_path / "ledger.sqlite"), error)
    assert "what SQLite says" in said
    assert said.endswith(words)
    assert ("bytes are free" in said) == ("backup" not in said)


def test_a_database_in_memory_closes_itself_with_its_last_user(tmp_path: Path) -> None:
    held, filed = connect(None), connect(tmp_path / "filed.sqlite")
    held.__del__()  # type: ignore[attr-defined]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        held.execute("SELECT 1")
    assert type(filed) is sqlite3.Connection  # one to a file is closed by whoever opened it
    filed.close()

"""What is said of a database that cannot be read depends on what is wrong: disk or file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from unlearning.records.database import unread


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

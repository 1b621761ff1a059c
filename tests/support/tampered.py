"""A file of SQLite that someone changes behind the back of what wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["change"]


def change(path: Path, *statements: str) -> None:
    """Run statements on a ledger as an attacker would, who drops the guards first."""
    connection = sqlite3.connect(path, isolation_level=None)
    for trigger in ("never_changed", "never_deleted"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()

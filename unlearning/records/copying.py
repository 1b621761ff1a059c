"""One store taken over into another: whole, as a copy of its own, or its tables alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from unlearning.errors import HistoryError
from unlearning.records.blobs import Blobs, in_folder, in_memory
from unlearning.records.database import connect, transaction
from unlearning.records.files import room
from unlearning.records.sealing import Sealing
from unlearning.records.store import INDEX, Store

__all__ = ["begun_anew", "copy_tables", "copy_to", "lent"]


def copy_tables(store: Store, other: Store) -> None:
    """Replace rounds and participants by those of another store (inside a transaction)."""
    for table, columns in (("rounds", 2), ("participants", 7)):
        store.db.execute(f"DELETE FROM {table}")
        store.db.executemany(
            f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})",
            (  # one row after the other: there may be millions
                row + (None,) * (columns - len(row))  # an older format has fewer
                for row in other.db.execute(f"SELECT * FROM {table}")
            ),
        )


def begun_anew(store: Store) -> Store:
    """Return a store in memory with the same settings and what belongs to no round alone.

    It borrows these bytes, and is of use only as long as they lie where they are.
    """
    twin = Store(None)
    kept = store.select("kind IN ('initial', 'state')")
    twin.blobs = in_memory(store.blobs, (blob.path for blob in kept))
    twin.ring = store.ring
    with twin.transaction():
        twin.configure({**store.settings(), "incomplete": []})
        twin.insert(kept)
    return twin


def lent(store: Store) -> Store:
    """Return a copy in memory that borrows all bytes, and is of use while they lie where they are.

    What it records, rewrites and forgets is its own.
    """
    twin = _index_of(store)
    twin.blobs = in_memory(store.blobs, (blob.path for blob in store.select()))
    return twin


def copy_to(store: Store, root: Path | None, *, durable: bool = True) -> Store:
    """Return an independent copy in ``root``, which appears whole or not at all.

    Raises
    ------
    HistoryError
        If ``root`` exists and is not empty, or cannot be written.
    """
    if root is None:
        twin = _index_of(store)
        _copy_blobs(store, twin.blobs)
        return twin
    if root.exists() and any(root.iterdir()):
        raise HistoryError(f"{root} is not empty; choose another folder for the copy")
    building = root.with_name(f"{root.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        _copy_blobs(store, in_folder(building, durable=durable))
        _copy_index(store, root, building, durable)
        if root.exists():
            root.rmdir()
        building.replace(root)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise HistoryError(
            f"cannot copy the history to {root}: {error.strerror}{room(root)}; remove the cause "
            "or choose another folder"
        ) from error
    twin = Store(root, durable=durable, key=store.sealing.key)
    twin.ring = store.ring
    return twin


def _index_of(store: Store) -> Store:
    """Return a store in memory with the same index and keys, and no bytes yet."""
    twin = Store(None)
    store.db.backup(twin.db)
    twin.version, twin.ring = store.version, store.ring
    return twin


def _copy_index(store: Store, root: Path, building: Path, durable: bool) -> None:
    """Copy the index, sealed for the place where it will lie."""
    index = connect(building / INDEX)
    try:
        index.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        store.db.backup(index)
        copied = Sealing(index, str(root / INDEX), root.name, store.sealing.key)
        if copied.is_there:
            with transaction(index, str(building / INDEX), HistoryError):
                if store.root is None:
                    copied.redo()
                copied.close()
    finally:
        index.close()


def _copy_blobs(store: Store, target: Blobs) -> None:
    batches: set[str] = set()
    for blob in store.select():
        batch, _, name = blob.path.partition("/")
        target.take(batch, name, store.blobs, blob.path)
        batches.add(batch)
    for batch in sorted(batches):
        target.publish(batch)

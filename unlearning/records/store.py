"""Where the history lies: immutable safetensors blobs and an SQLite index that names them.

A batch of blobs is published first and then named by the index, in one transaction. Readers trust
the index alone: whatever it does not name is a leftover of a crash and is removed at the next
opening. Without a folder the same blobs and the same index live in memory.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from unlearning.errors import HistoryError
from unlearning.packing import Piece
from unlearning.records.blob import Blob, about
from unlearning.records.blobs import Blobs, in_folder, in_memory
from unlearning.records.compacting import STALE, compact, is_small, take_over
from unlearning.records.database import acquire, connect, create, transaction, unread, version_of
from unlearning.records.files import Tray, room
from unlearning.records.ring import Ring, key_id_of
from unlearning.records.sealing import SCHEMA, Sealing

__all__ = ["INDEX", "Blob", "Store"]

INDEX = "index.sqlite"
_LOCK = "index.lock"
_REWRITE = "rewrite-"  # begins the names of batches that hold no single new round
_VERSION = 4
_UPGRADES = {  # from this version to the next
    1: ("ALTER TABLE participants ADD COLUMN parts TEXT",),
    2: SCHEMA,
    3: ("ALTER TABLE blobs ADD COLUMN key TEXT",),
}
_SCHEMA = (
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE rounds (round INTEGER PRIMARY KEY, erased TEXT)",
    "CREATE TABLE participants (round INTEGER, client INTEGER, num_examples INTEGER NOT NULL,"
    " weight REAL NOT NULL, distance REAL, norms TEXT, parts TEXT,"
    " PRIMARY KEY (round, client)) WITHOUT ROWID",
    "CREATE TABLE blobs (path TEXT PRIMARY KEY, kind TEXT NOT NULL, round INTEGER NOT NULL,"
    " client INTEGER, sha256 TEXT NOT NULL, size INTEGER NOT NULL, key TEXT) WITHOUT ROWID",
    "CREATE INDEX blobs_by_kind ON blobs (kind, round, client)",
    *SCHEMA,
)


def _close(*connections: sqlite3.Connection | None) -> None:
    for connection in connections:
        if connection is not None:
            connection.close()


class Store:
    """Blobs and their index, in a folder or in memory.

    One process writes at a time; it holds a lock until it closes the store or ends. Others may
    read meanwhile.

    Parameters
    ----------
    root : Path or None
        Folder, made if missing; None: in memory.
    durable : bool
        What is committed survives a loss of power; False for copies that are thrown away.
    readonly : bool
        Nothing is made, locked, swept or changed: another process may be at work.
    key : Path or None
        The private key that signs what the index holds.

    Raises
    ------
    HistoryError
        If the folder holds batches without an index, or an index that cannot be read, or (where
        this process may write) one that was changed by somebody else.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        durable: bool = True,
        readonly: bool = False,
        key: Path | None = None,
    ) -> None:
        self.root, self.durable = root, durable
        self._unchanged_at: int | None = None
        self.ring: Ring | None = None
        self.owns_keys = False
        self.tray: Tray | None = None  # where what is read may lie
        self._lock: sqlite3.Connection | None = None
        if root is None:
            self.blobs = in_memory()
            self.db = connect(None)
        elif readonly:
            self.blobs = in_folder(root, durable=durable)
            self.db = connect(root / INDEX, readonly=True)
        else:
            self.blobs = self._folder(root, durable=durable)
            self._lock = acquire(root / _LOCK, HistoryError)
            self.db = connect(root / INDEX)
        self._finalizer = weakref.finalize(self, _close, self.db, self._lock)
        name = "" if root is None else root.name
        self.sealing = Sealing(self.db, self.place(INDEX), name, key)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def writable(self) -> bool:
        """Whether this process may write: in memory, or with the lock in hand."""
        return self.root is None or self._lock is not None

    @staticmethod
    def _folder(root: Path, *, durable: bool) -> Blobs:
        try:
            root.mkdir(parents=True, exist_ok=True)
            blobs = in_folder(root, durable=durable)
            leftovers = any(map(blobs.paths, blobs.batches()))
        except OSError as error:
            raise HistoryError(
                f"cannot use {root} for the history: {error.strerror}{room(root)}; choose another "
                "folder"
            ) from error
        if leftovers and not (root / INDEX).exists():
            raise HistoryError(
                f"{root / INDEX} is missing but {root} holds recorded files; restore the index "
                "from a backup or choose an empty folder"
            )
        return blobs

    def _prepare(self) -> None:
        if self.root is None:  # there are many of these, and most of them are small
            self.db.deserialize(_blank())
            self.db.execute("PRAGMA secure_delete=ON")
            self.version = _VERSION
            return
        try:
            # A rollback journal leaves no deleted bytes behind, as a write-ahead log does; it is
            # emptied, which is cheaper than to make a new one each time.
            synchronous = "synchronous=EXTRA" if self.durable else "synchronous=OFF"
            journal = "journal_mode=TRUNCATE"
            pragmas = ("temp_store=MEMORY", "secure_delete=ON", journal, synchronous)
            for pragma in pragmas if self.writable else ():
                self.db.execute(f"PRAGMA {pragma}")
            version = version_of(self.db)
            if version == 0 and self.writable:
                with self.transaction(is_new=True):
                    create(self.db, _SCHEMA, _VERSION)
                version = _VERSION
        except sqlite3.Error as error:
            otherwise = "restore it from a backup or choose an empty folder"
            raise HistoryError(unread(self.place(INDEX), error, otherwise)) from error
        if not 1 <= version <= _VERSION:
            raise HistoryError(
                f"{self.place(INDEX)} has format {version}, this version reads 1 to {_VERSION}; "
                "choose an empty folder"
            )
        self.version = version
        if self.writable:
            self._check_unchanged()  # before anything that the index does not name is swept
            self.sweep()
            if self.setting(STALE):
                self.vacuum()

    def locked_by(self, ring: Ring, *, owns_keys: bool) -> None:
        """Encrypt from now on, and read what is encrypted.

        Only the owner of the keys destroys any: a copy that reads with them does not.
        """
        self.ring, self.owns_keys = ring, owns_keys
        if self.writable:
            self.reap()

    def reap(self) -> None:
        """Destroy every key that the index does not name.

        The rows go first, in one transaction; after a crash in between the keys go when the history
        is opened again.
        """
        if self.ring is None or not self.owns_keys:
            return
        named = {row[0] for row in self.db.execute("SELECT DISTINCT key FROM blobs")}
        self.ring.destroy(self.ring.names() - named)

    def lock(
        self, data: Sequence[Piece], kind: str, server_round: int, client: int | None
    ) -> Sequence[Piece]:
        """Return a file's pieces as they are stored: locked by the client's key, or its own."""
        if self.ring is None:
            return data
        owner = None if client is None else f"client-{client:05d}"
        return [self.ring.lock(b"".join(data), owner, about(kind, server_round, client))]

    def unlock(self, data: Piece, kind: str, server_round: int, client: int | None) -> Piece:
        """Return what :meth:`lock` locked."""
        return self._unlocked(
            data, f"{kind} of round {server_round}", about(kind, server_round, client)
        )

    def _unlocked(self, data: Piece, place: str, what: str) -> Piece:
        if key_id_of(data) is None:
            return data
        if self.ring is None:
            raise HistoryError(f"{place} is encrypted; open the history with its keys")
        try:
            return self.ring.unlock(bytes(data), what)
        except HistoryError as error:
            raise HistoryError(f"{place} cannot be read: {error}") from error

    def place(self, path: str) -> str:
        """Return a path as a user can find it."""
        return f"{path} (in memory)" if self.root is None else str(self.root / path)

    @contextmanager
    def transaction(
        self, *, added: int | None = None, rewritten: bool = False, is_new: bool = False
    ) -> Iterator[None]:
        """Run statements as one transaction, undone on any exception.

        Parameters
        ----------
        added : int or None
            The round whose rows the statements add.
        rewritten : bool
            They change rows of rounds recorded before.
        is_new : bool
            They make the tables.

        Raises
        ------
        HistoryError
            If another process holds the store, or somebody else changed the index.
        """
        self.check_writable()
        with transaction(self.db, self.place(INDEX), HistoryError):
            version = _VERSION if is_new else self.version
            if not is_new:
                self._check_unchanged()
            for older in range(version, _VERSION):  # reading alone changes nothing
                create(self.db, _UPGRADES[older], older + 1)
            yield
            if self.root is not None:  # nobody else can change what lies in memory
                if rewritten or version < _VERSION:
                    self.sealing.redo()
                elif added is not None:
                    self.sealing.add(added)
                self.sealing.close()
        self.version = _VERSION

    def _check_unchanged(self) -> None:
        """Refuse to go on with rows that are not those this store has written.

        SQLite tells whether another connection has written since; only then are rows looked at.
        """
        if self.root is None:
            return
        now = int(self.db.execute("PRAGMA data_version").fetchone()[0])
        if now == self._unchanged_at:
            return
        if problems := self.sealing.problems():
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise HistoryError(
                f"{problems[0]}{more}; see `fedunlearn verify` and restore the folder from a backup"
            )
        self._unchanged_at = now

    def check_writable(self) -> None:
        """Raise HistoryError if another process holds the store or the folder is read-only."""
        if not self.writable:
            raise HistoryError(
                f"the history in {self.root} is being written by another process, or its folder is "
                "read-only; wait until that process ends or choose another folder"
            )

    @contextmanager
    def commit(
        self, batch: str, *, added: int | None = None, rewritten: bool = False
    ) -> Iterator[None]:
        """Publish a staged batch, then run the statements that name it, as one transaction."""
        with self._published(batch), self.transaction(added=added, rewritten=rewritten):
            yield
            self._count(batch)

    @contextmanager
    def rebuilt(
        self, batch: str, rows: Sequence[Blob], gone: Iterable[Blob], settings: dict[str, object]
    ) -> Iterator[None]:
        """Publish a staged batch and name it in an index built anew; the block fills its tables.

        Nothing that was deleted is left in it, and after a crash it is the old one or the new one.
        A large one is changed as it is; ``STALE`` then says that :meth:`vacuum` has to follow.

        Parameters
        ----------
        batch : str
            As :meth:`next_batch` names it.
        rows : sequence of Blob
            What it holds.
        gone : iterable of Blob
            What is named no more.
        settings : dict
            Those that change.
        """
        if self.root is None or self.version < _VERSION or not is_small(self.db):
            with self.commit(batch, rewritten=True):
                self.forget(gone)
                self.insert(rows)
                self.configure({**settings, STALE: True})
                yield
            return
        with self._published(batch), closing(connect(None)) as made:
            self._check_unchanged()
            lost = {blob.path for blob in gone}
            stays = [blob for blob in self.select() if blob.path not in lost]
            known = {**self.settings(), **settings, "rewrites": _number(batch)}
            known.pop(STALE, None)
            made.deserialize(_blank())
            disk, sealing = self.db, self.sealing
            self.db, self.sealing = made, sealing.of(made)
            try:
                with transaction(made, self.place(INDEX), HistoryError):
                    self.configure(known)
                    self.insert([*stays, *rows])
                    yield
                    self.sealing.redo()
                    self.sealing.close()
            finally:
                self.db, self.sealing = disk, sealing.of(disk)
            take_over(made, disk, self.place(INDEX))

    def _count(self, batch: str) -> None:
        if batch.startswith(_REWRITE):
            self.configure({"rewrites": _number(batch)})

    @contextmanager
    def _published(self, batch: str) -> Iterator[None]:
        """Publish a staged batch; take it back if the block fails, which is to name it."""
        self.check_writable()
        try:
            self.blobs.publish(batch)
            yield
        except BaseException as error:
            self.blobs.discard(batch)
            with suppress(HistoryError):  # what cannot be removed now is removed when next opened
                self.sweep()
            if isinstance(error, OSError):
                raise HistoryError(
                    f"cannot write {self.place(batch)}: {error.strerror}"
                    f"{room(self.place(batch))}; remove the cause and run it again"
                ) from error
            raise

    def stage(
        self, batch: str, kind: str, server_round: int, client: int | None, data: Sequence[Piece],
        *, name: str | None = None,
    ) -> Blob:  # fmt: skip
        """Stage bytes, given in pieces, and return the row that will name them."""
        data = self.lock(data, kind, server_round, client)
        state = hashlib.sha256()
        for piece in data:
            state.update(piece)
        key = None if self.ring is None else key_id_of(bytes(data[0]))
        row = Blob("", kind, server_round, client, state.hexdigest(), sum(map(len, data)), key)
        name = name or row.name
        self.blobs.write(batch, name, data)
        return replace(row, path=f"{batch}/{name}")

    def insert(self, rows: Iterable[Blob]) -> None:
        """Name blobs in the index (inside a transaction)."""
        self.db.executemany(
            "INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(b.path, b.kind, b.server_round, b.client, b.sha256, b.size, b.key) for b in rows],
        )

    def forget(self, rows: Iterable[Blob]) -> None:
        """Take blobs out of the index (inside a transaction)."""
        self.db.executemany("DELETE FROM blobs WHERE path = ?", [(blob.path,) for blob in rows])

    def select(self, where: str = "1", values: tuple[object, ...] = ()) -> list[Blob]:
        """Return the rows of the index that fulfil a condition, in order of their paths."""
        found = self.db.execute(f"SELECT * FROM blobs WHERE {where} ORDER BY path", values)
        return [Blob(*row) for row in found]

    def read(self, blob: Blob) -> Piece:
        """Return what a blob holds, checked and decrypted.

        Raises
        ------
        HistoryError
            If it is missing, not what was written, or its key is gone.
        """
        return self._unlocked(self._checked(blob), self.place(blob.path), blob.about)

    def _checked(self, blob: Blob) -> Piece:
        """Return the bytes of a blob as they are stored, checked."""
        problem = None
        try:
            data = self.blobs.read(blob.path, self.tray)
        except FileNotFoundError:
            problem = "is missing"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        else:
            if hashlib.sha256(data).hexdigest() != blob.sha256:
                problem = "is damaged (its sha256 is not the one recorded)"
        if problem:
            raise HistoryError(
                f"{self.place(blob.path)} {problem}; restore it from a backup or run the "
                "federation again in another folder"
            )
        return data

    def next_batch(self) -> str:
        """Return a name for a batch that rewrites history; the index names no other one by it.

        It is used up when the batch is committed: what lies there before is left over.
        """
        number = int(str(self.setting("rewrites", 0))) + 1
        return f"{_REWRITE}{number:05d}"

    def settings(self) -> dict[str, object]:
        """Return the settings recorded with the store."""
        return self._parsed(self.db.execute("SELECT key, value FROM settings"))

    def setting(self, name: str, default: object = None) -> object:
        """Return one of these settings."""
        rows = self.db.execute("SELECT key, value FROM settings WHERE key = ?", (name,))
        return self._parsed(rows).get(name, default)

    def _parsed(self, rows: Iterable[tuple[str, str]]) -> dict[str, object]:
        try:
            return {key: json.loads(value) for key, value in rows}
        except (ValueError, TypeError) as error:
            raise HistoryError(
                f"{self.place(INDEX)} holds a damaged setting; restore it from a backup"
            ) from error

    def configure(self, settings: dict[str, object]) -> None:
        """Record settings (inside a transaction)."""
        self.db.executemany(
            "INSERT OR REPLACE INTO settings VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in settings.items()],
        )

    @property
    def has_parts(self) -> bool:
        """Whether the format knows how many examples each part of a model rests on."""
        return self.version > 1

    def orphans(self) -> Iterator[str]:
        """Yield what lies in the store without being named by the index, batch by batch."""
        of_batch = "SELECT path FROM blobs WHERE path > ? AND path < ?"
        for batch in self.blobs.batches():
            rows = self.db.execute(of_batch, (f"{batch}/", f"{batch}0"))  # 0 comes next after /
            known = {row[0] for row in rows}
            yield from (path for path in self.blobs.paths(batch) if path not in known)

    def sweep(self) -> None:
        """Remove what the index does not name.

        Raises
        ------
        HistoryError
            If something cannot be removed.
        """
        try:
            self.blobs.remove(self.orphans())
        except OSError as error:
            raise HistoryError(
                f"cannot delete {error.filename or self.place('leftovers')}: {error.strerror}; "
                "remove the cause and open the history again, which deletes it"
            ) from error

    def check(self, *, leftovers: bool | None = None) -> list[str]:
        """Return every problem in words: the index, each blob, and ``leftovers``.

        Leftovers are looked for if nobody else can be at work; a caller may know better.
        """
        problems = [
            f"{self.place(INDEX)}: {row[0]}"
            for row in self.db.execute("PRAGMA integrity_check")
            if row[0] != "ok"
        ]
        problems += self.sealing.problems() if self.root is not None else []
        for blob in self.select():
            try:
                self._checked(blob)
            except HistoryError as error:
                problems.append(str(error))
            except (TypeError, ValueError) as error:
                problems.append(f"{self.place(INDEX)} names a file {blob.path!r}: {error}")
        wanted = self.writable if leftovers is None else leftovers
        if wanted:  # the other process's unfinished round is not a fault
            problems += [f"{self.place(path)} is not in the index" for path in self.orphans()]
        return problems

    def vacuum(self) -> None:
        """Rewrite the index, so that no deleted value is left in it.

        Whoever deletes notes ``STALE`` in the same transaction: what a crash or a full disk kept
        from happening is made up for when the index is opened next.
        """
        compact(self.db, None if self.root is None else self.root / INDEX, self.sealing)

    def close(self) -> None:
        """Close the index and let other processes write."""
        self._finalizer()


def _number(batch: str) -> int:
    return int(batch.removeprefix(_REWRITE))


@lru_cache(maxsize=1)
def _blank() -> bytes:
    """Return an index without any row, as a file of it would be."""
    with closing(connect(None)) as db:
        with transaction(db, INDEX, HistoryError):
            create(db, _SCHEMA, _VERSION)
        return db.serialize()

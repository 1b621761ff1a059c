"""What training left behind: the model at the start of each round and every client's update.

The model of a round is stored *before* aggregation, together with the updates computed from it.
Clients are stable ids, rounds are absolute and counted from 1.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from unlearning.arrays import Arrays, digest, weighted_sum
from unlearning.errors import ConfigError, HistoryError, unknown
from unlearning.records.blobs import decode, encode
from unlearning.records.recording import RoundEntry
from unlearning.records.store import INDEX, Blob, Store
from unlearning.request import Request

__all__ = ["COLUMNS", "DTYPES", "History", "Purged", "RoundEntry"]

COLUMNS = frozenset({"globals", "updates", "contributions", "sensitivities"})
DTYPES = ("float32", "float16")

_MEANING = {
    "globals": "the model at the start of each round",
    "updates": "every client's update of each round",
    "contributions": "the summed contribution of each client",
    "sensitivities": "each update's weight and distance from the mean",
}


@dataclass(frozen=True)
class Purged:
    """What a purge removed.

    Parameters
    ----------
    files : int
        Stored files deleted.
    bytes : int
        Their size.
    """

    files: int = 0
    bytes: int = 0


class History:
    """Record of a federation's learning, on disk or in memory.

    Parameters
    ----------
    root : Path or None, default None
        Folder, made if missing and reopened if it holds a history; None: in memory.
    keep : collection of str, default ()
        What to keep beside participants and the initial model, a subset of ``COLUMNS``:
        ``globals`` (model at round start), ``updates``, ``contributions`` (per client the sum over
        rounds of weight times update, in float64), ``sensitivities`` (weight and distance of each
        update from the mean).
    interval : int, default 1
        Keep globals and updates of every ``interval``-th round only: 1, 1 + interval, ...
        Participants, contributions and sensitivities are kept for every round.
    dtype : {"float32", "float16"}, default "float32"
        ``float32``: updates are stored as they are. ``float16``: their parameters are stored in
        half precision and read back in their own dtype; an array that overflows float16 is stored
        as it is, and so are buffers. Models, contributions and norms are never narrowed.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    HistoryError
        If ``root`` was recorded with other settings, or cannot be read.

    Notes
    -----
    One process writes; while it holds the history open, others may open and read it.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        keep: Collection[str] = (),
        interval: int = 1,
        dtype: str = "float32",
    ) -> None:
        if strange := sorted(set(keep) - COLUMNS):
            raise ConfigError(unknown("history column", strange[0], sorted(COLUMNS)))
        if interval < 1:
            raise ConfigError(f"history.interval is {interval}; expected 1 or more rounds")
        if dtype not in DTYPES:
            raise ConfigError(unknown("history.dtype", dtype, DTYPES))
        wanted: dict[str, object] = {
            "keep": sorted(set(keep)),
            "interval": int(interval),
            "dtype": dtype,
        }
        store = Store(None if root is None else Path(root))
        recorded = store.settings()
        try:
            if not recorded:
                with store.transaction():
                    store.configure(wanted)
            for name, value in wanted.items():
                if name in recorded and recorded[name] != value:
                    raise HistoryError(
                        f"{store.place(INDEX)} was recorded with history.{name} = "
                        f"{recorded[name]!r}, now asked for with {value!r}; choose another folder "
                        "or the recorded setting"
                    )
        except BaseException:
            store.close()
            raise
        self._attach(store)

    def _attach(self, store: Store) -> None:
        settings = store.settings()
        names = settings.get("keep", [])
        self._store = store
        self._keep = frozenset(map(str, names)) if isinstance(names, list) else frozenset()
        self._interval = int(str(settings["interval"]))
        self._dtype = str(settings["dtype"])
        self._read_bytes = 0

    @classmethod
    def _around(cls, store: Store) -> History:
        history = cls.__new__(cls)
        history._attach(store)
        return history

    @classmethod
    def open(cls, root: Path) -> History:
        """Return the history in ``root``, with the settings it was recorded with.

        Raises
        ------
        HistoryError
            If there is none, or it cannot be read.
        """
        root = Path(root)
        if not (root / INDEX).is_file():
            raise HistoryError(
                f"{root} holds no history ({INDEX} is missing); give the folder of a run that "
                "recorded one"
            )
        store = Store(root)
        if "interval" not in store.settings():
            store.close()
            raise HistoryError(f"{root / INDEX} is empty; run the federation again")
        return cls._around(store)

    # --- settings ------------------------------------------------------------------------------

    @property
    def root(self) -> Path | None:
        """The folder; None: in memory."""
        return self._store.root

    @property
    def keep(self) -> frozenset[str]:
        """What is kept, a subset of ``COLUMNS``."""
        return self._keep

    @property
    def interval(self) -> int:
        """Globals and updates are kept every so many rounds."""
        return self._interval

    @property
    def dtype(self) -> str:
        """How updates are stored: ``float32`` (as they are) or ``float16``."""
        return self._dtype

    # --- writing -------------------------------------------------------------------------------

    def start(self, initial: Arrays) -> None:
        """Store the model that learning starts from; nobody's data influenced it.

        Nothing happens if the same model is there already.

        Raises
        ------
        HistoryError
            If another model is there.
        """
        if self._store.select("kind = 'initial'"):
            if digest(self.initial) != digest(initial):
                raise HistoryError(
                    f"{self._store.place(INDEX)} starts from another model; choose another folder "
                    "or the seed and model it was recorded with"
                )
            return
        self._store.check_writable()
        blob = self._store.stage("start", "initial", 0, None, encode(initial))
        with self._store.commit("start"):
            self._store.insert([blob])

    def keep_state(self, arrays: Arrays) -> None:
        """Store what a strategy must know for as long as the federation lives; replaces all of it.

        Forks have it, whoever opens the folder again finds it, no purge and no truncation takes it
        away: it must tell nothing of what was forgotten.

        Parameters
        ----------
        arrays : Arrays
            Any names, shapes and dtypes; empty: nothing from now on.

        Raises
        ------
        HistoryError
            If the folder cannot be written.
        """
        batch = self._store.next_batch()
        try:
            staged = [self._store.stage(batch, "state", 0, None, encode(arrays))] if arrays else []
            with self._store.commit(batch) if staged else self._store.transaction():
                self._store.forget(self._store.select("kind = 'state'"))
                self._store.insert(staged)
        finally:
            self._store.blobs.discard(batch)
        self._store.sweep()

    @contextmanager
    def record(self, server_round: int, arrays: Arrays) -> Iterator[RoundEntry]:
        """Record one round; it appears when the block ends without an exception, else never.

        Parameters
        ----------
        server_round : int
            Counted from 1, later than every round recorded before; gaps are allowed.
        arrays : Arrays
            The global model at the START of the round.

        Yields
        ------
        RoundEntry
            Takes the updates, one at a time.

        Raises
        ------
        HistoryError
            If the round is not the latest, or the folder cannot be written.
        """
        server_round = int(server_round)
        last = max(self.rounds, default=0)
        if server_round <= last:
            raise HistoryError(
                f"round {server_round} cannot be recorded after round {last}; truncate the "
                "history first"
            )
        self._store.check_writable()
        kept = self._keep if self._on_interval(server_round) else self._keep - {"updates"}
        entry = RoundEntry(
            self._store,
            server_round,
            kept,
            half=self._dtype == "float16",
            incomplete=self._incomplete,
        )
        try:
            first = None
            if "globals" in self._keep and self._on_interval(server_round):
                first = self._store.stage(entry.batch, "global", server_round, None, encode(arrays))
            yield entry
            entry.finish(first, self._contribution_so_far)
        finally:
            self._store.blobs.discard(entry.batch)

    def _on_interval(self, server_round: int) -> bool:
        return (server_round - 1) % self._interval == 0

    def _contribution_so_far(self, client: int) -> Arrays | None:
        found = self._store.select("kind = 'contribution' AND client = ?", (client,))
        return decode(self._store.read(found[0])) if found else None

    @property
    def _incomplete(self) -> frozenset[int]:
        """The clients whose contribution cannot be told since rounds were dropped."""
        found = self._store.settings().get("incomplete", [])
        return frozenset(map(int, found)) if isinstance(found, list) else frozenset()

    # --- reading -------------------------------------------------------------------------------

    @property
    def initial(self) -> Arrays:
        """The model that learning started from.

        Raises
        ------
        HistoryError
            If nothing was recorded yet.
        """
        found = self._store.select("kind = 'initial'")
        if not found:
            raise HistoryError(
                f"{self._store.place(INDEX)} holds no initial model; nothing was recorded yet"
            )
        return self._load(found[0])

    @property
    def state(self) -> Arrays:
        """What a strategy last left with :meth:`keep_state`; empty if nothing."""
        found = self._store.select("kind = 'state'")
        return self._load(found[0]) if found else {}

    @property
    def rounds(self) -> tuple[int, ...]:
        """All recorded rounds, ascending."""
        rows = self._store.db.execute("SELECT round FROM rounds ORDER BY round")
        return tuple(row[0] for row in rows)

    @property
    def stored_rounds(self) -> tuple[int, ...]:
        """The rounds whose globals and updates can be read, as far as these are kept at all."""
        if not self._keep & {"globals", "updates"}:
            return ()
        if "globals" in self._keep:
            return self.stored_globals
        return tuple(t for t in self.rounds if self._on_interval(t))

    @property
    def stored_globals(self) -> tuple[int, ...]:
        """The rounds whose model at the start can be read; none if globals are not kept."""
        rows = self._store.db.execute(
            "SELECT round FROM blobs WHERE kind = 'global' ORDER BY round"
        )
        return tuple(row[0] for row in rows)

    def participants(self, server_round: int) -> dict[int, int]:
        """Return client id -> number of examples of those who took part, in order of id.

        Raises
        ------
        HistoryError
            If the round is not recorded.
        """
        self._check_recorded(server_round)
        rows = self._store.db.execute(
            "SELECT client, num_examples FROM participants WHERE round = ? ORDER BY client",
            (int(server_round),),
        )
        return dict(rows.fetchall())

    def weights(self, server_round: int, without: Collection[int] = ()) -> dict[int, float]:
        """Return client id -> share of the examples, among those not in ``without``.

        The shares sum to 1. Empty if nobody is left, or nobody left has an example.

        Raises
        ------
        HistoryError
            If the round is not recorded.
        """
        left = {k: n for k, n in self.participants(server_round).items() if k not in without}
        total = sum(left.values())
        return {client: n / total for client, n in left.items()} if total else {}

    def arrays(self, server_round: int) -> Arrays:
        """Return the global model at the start of a round, in its own dtypes.

        Raises
        ------
        HistoryError
            If it was not kept, was erased, or is damaged.
        """
        return self._load(self._find("globals", "global", server_round, None))

    def update(self, server_round: int, client: int) -> Arrays:
        """Return what a client changed in a round, in the dtypes it was recorded with.

        Raises
        ------
        HistoryError
            If it was not kept, the client did not take part, or the file is damaged.
        """
        return self._load(self._find("updates", "update", server_round, client))

    def norms(self, server_round: int, client: int) -> dict[str, float]:
        """Return parameter name -> L2 norm of an update before any narrowing to float16.

        Raises
        ------
        HistoryError
            As for :meth:`update`.
        """
        self._find("updates", "update", server_round, client)
        row = self._store.db.execute(
            "SELECT norms FROM participants WHERE round = ? AND client = ?",
            (int(server_round), int(client)),
        ).fetchone()
        return {str(name): float(value) for name, value in json.loads(row[0]).items()}

    def contribution(self, client: int) -> Arrays:
        """Return the sum over rounds of weight times update of a client, in float64.

        Integer buffers are those of its last update.

        Raises
        ------
        HistoryError
            If contributions were not kept or the client never took part.
        """
        self.require(("contributions",), "reading contributions")
        found = self._store.select("kind = 'contribution' AND client = ?", (int(client),))
        if client in self._incomplete:
            raise HistoryError(
                f"the contribution of client {client} cannot be told: rounds were dropped and not "
                "every update was kept; run the federation again with updates kept and "
                "history.interval = 1"
            )
        if not found:
            raise HistoryError(f"client {client} took part in no recorded round")
        return self._load(found[0])

    def sensitivities(self, server_round: int) -> dict[int, tuple[float, float]]:
        """Return client id -> (weight p, L2 distance of its update from the weighted mean).

        The distance runs over parameters. With it, leaving out one client would have moved the
        round's update by ``p / (1 - p) * distance``.

        Raises
        ------
        HistoryError
            If sensitivities were not kept or the round is not recorded.
        """
        self.require(("sensitivities",), "reading sensitivities")
        self._check_recorded(server_round)
        rows = self._store.db.execute(
            "SELECT client, weight, distance FROM participants WHERE round = ? ORDER BY client",
            (int(server_round),),
        )
        return {client: (weight, distance) for client, weight, distance in rows}

    def first_round(self, request: Request) -> int | None:
        """Return the first recorded round in which an owner of the request took part, or None."""
        rows = self._store.db.execute("SELECT client, MIN(round) FROM participants GROUP BY client")
        firsts = dict(rows.fetchall())
        return min((firsts[client] for client in request.owners(firsts)), default=None)

    def require(self, needs: Collection[str], strategy: str) -> None:
        """Check that what a strategy needs is kept; names outside ``COLUMNS`` are not looked at.

        Raises
        ------
        HistoryError
            Naming what is missing and how to record it.
        """
        if missing := sorted(set(needs) & COLUMNS - self._keep):
            words = " and ".join(f"{name!r} ({_MEANING[name]})" for name in missing)
            raise HistoryError(
                f"{strategy} needs {words}, which {self._store.place(INDEX)} was not recorded "
                "with; run the federation again with this strategy named in its config "
                f"(strategy = {strategy!r}, or in compare --strategies)"
            )

    @property
    def nbytes(self) -> int:
        """Size in bytes of everything stored, without the index."""
        row = self._store.db.execute("SELECT COALESCE(SUM(size), 0) FROM blobs").fetchone()
        return int(row[0])

    @property
    def read_bytes(self) -> int:
        """Bytes read through this object so far."""
        return self._read_bytes

    def _check_recorded(self, server_round: int) -> None:
        if not self._store.db.execute(
            "SELECT 1 FROM rounds WHERE round = ?", (int(server_round),)
        ).fetchone():
            raise HistoryError(f"round {server_round} is not recorded ({self._span()})")

    def _span(self) -> str:
        rounds = self.rounds
        return f"recorded: {rounds[0]} to {rounds[-1]}" if rounds else "nothing was recorded yet"

    def _find(self, column: str, kind: str, server_round: int, client: int | None) -> Blob:
        self.require((column,), f"reading {column}")
        values = (kind, int(server_round), None if client is None else int(client))
        if found := self._store.select("kind = ? AND round = ? AND client IS ?", values):
            return found[0]
        self._check_recorded(server_round)
        if not self._on_interval(int(server_round)):
            raise HistoryError(
                f"round {server_round} was recorded without {column} (history.interval = "
                f"{self._interval}); the next earlier round with them is "
                f"{server_round - (server_round - 1) % self._interval}"
            )
        if client is None:
            row = self._store.db.execute(
                "SELECT erased FROM rounds WHERE round = ?", (int(server_round),)
            ).fetchone()
            raise HistoryError(
                f"the model of round {server_round} was erased with request {row[0]}; start from "
                "an earlier round or from the initial model"
            )
        raise HistoryError(
            f"client {client} has no update in round {server_round} (took part: "
            f"{', '.join(map(str, self.participants(server_round))) or 'nobody'})"
        )

    def _load(self, blob: Blob) -> Arrays:
        data = self._store.read(blob)
        self._read_bytes += len(data)
        return decode(data)

    # --- deletion and rewriting ----------------------------------------------------------------

    def purge(self, request: Request) -> Purged:
        """Delete everything that holds what a request wants forgotten.

        These are the updates, contributions and index rows of its owners (for a class or a task
        without clients: of everyone), and the global models of every round after the first in
        which an owner took part. The initial model and other clients' updates stay. A second call
        finds nothing and does nothing. Forks hold copies of their own.
        """
        first = self.first_round(request)
        if first is None:
            return Purged()
        rows = self._store.db.execute("SELECT DISTINCT client FROM participants")
        owners = set(request.owners(row[0] for row in rows))
        gone = [
            blob
            for blob in self._store.select("kind != 'initial'")
            if (blob.server_round > first if blob.kind == "global" else blob.client in owners)
        ]
        with self._store.transaction():
            self._store.forget(gone)
            self._store.db.executemany(
                "DELETE FROM participants WHERE client = ?", [(client,) for client in owners]
            )
            self._store.db.execute(
                "UPDATE rounds SET erased = ? WHERE round > ? AND erased IS NULL",
                (request.id, first),
            )
            # Whoever comes back starts from nothing, which is complete.
            self._store.configure({"incomplete": sorted(self._incomplete - owners)})
        self._store.sweep()
        self._store.vacuum()
        return Purged(len(gone), sum(blob.size for blob in gone))

    def fork(self, root: Path | None, *, durable: bool = True) -> History:
        """Return an independent copy in an absent or empty folder, or in memory.

        ``durable=False`` is for a copy that is thrown away or adopted: it is not flushed to disk.

        On one file system the files are shared by hard links; they are never changed in place, so
        neither side sees what happens to the other.

        Raises
        ------
        HistoryError
            If ``root`` is not empty or cannot be written.
        """
        return History._around(
            self._store.copy_to(None if root is None else Path(root), durable=durable)
        )

    def adopt(self, other: History) -> None:
        """Replace all content by that of another history, such as a rewritten, clean trajectory.

        A crash leaves the old content or the new. ``other`` is not changed.

        Raises
        ------
        HistoryError
            If ``other`` was recorded with other settings.
        """
        if other is self:
            return
        for name in ("keep", "interval", "dtype"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise HistoryError(
                    f"a history recorded with history.{name} = {mine!r} cannot take over one with "
                    f"{theirs!r}; rewrite it with the same settings, for example in a fork"
                )
        batch = self._store.next_batch()
        rows: list[Blob] = []
        try:
            for blob in other._store.select():
                name = blob.moved_name
                self._store.blobs.take(batch, name, other._store.blobs, blob.path)
                rows.append(replace(blob, path=f"{batch}/{name}"))
            with self._store.commit(batch):
                self._store.forget(self._store.select())
                self._store.insert(rows)
                self._store.copy_tables(other._store)
                self._store.configure({"incomplete": sorted(other._incomplete)})
        finally:
            self._store.blobs.discard(batch)
        self._store.sweep()
        self._store.vacuum()

    def truncate(self, after_round: int) -> None:
        """Drop every round later than ``after_round``; 0 drops all of them.

        Contributions of the clients concerned are summed anew from the updates that are left;
        where not all of these were kept, reading such a contribution is an error from then on.
        """
        gone = self._store.select("round > ?", (int(after_round),))
        if not any(server_round > after_round for server_round in self.rounds):
            return
        batch = self._store.next_batch()
        incomplete = {k for k in self._incomplete if self._attendance(k, after_round)}
        fresh: list[Blob] = []
        try:
            for blob in gone:
                if blob.kind != "contribution" or blob.client is None:
                    continue
                rows = self._attendance(blob.client, after_round)
                if rows and ("updates" not in self._keep or self._interval > 1):
                    incomplete.add(blob.client)
                elif rows:
                    total = self._recount(blob.client, rows)
                    data, last = encode(total), rows[-1][0]
                    fresh.append(self._store.stage(batch, "contribution", last, blob.client, data))
            with self._store.commit(batch):
                self._store.forget(gone)
                for table in ("rounds", "participants"):
                    self._store.db.execute(
                        f"DELETE FROM {table} WHERE round > ?", (int(after_round),)
                    )
                self._store.insert(fresh)
                self._store.configure({"incomplete": sorted(incomplete)})
        finally:
            self._store.blobs.discard(batch)
        self._store.sweep()

    def _attendance(self, client: int, until: int) -> list[tuple[int, float]]:
        """Return (round, weight) of a client, up to a round."""
        return self._store.db.execute(
            "SELECT round, weight FROM participants WHERE client = ? AND round <= ? ORDER BY round",
            (client, int(until)),
        ).fetchall()

    def _recount(self, client: int, rows: list[tuple[int, float]]) -> Arrays:
        return weighted_sum(
            (weight, decode(self._store.read(self._find("updates", "update", t, client))))
            for t, weight in rows
        )

    # --- health --------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Return every problem in words (missing, damaged, left over); empty if all is sound."""
        return self._store.check()

    def destroy(self) -> None:
        """Close the history and delete its folder; a history in memory is just let go."""
        root = self.root
        self.close()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        """Release the folder; nothing can be read or written afterwards."""
        self._store.close()

    def __enter__(self) -> History:
        """Return the history itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the folder."""
        self.close()

    def __repr__(self) -> str:
        """Return place, rounds and columns."""
        where = "in memory" if self.root is None else str(self.root)
        return f"<History {where}: {self._span()}, keeps {sorted(self._keep)}>"

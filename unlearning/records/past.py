"""Reading what training left behind: who took part, models, updates, contributions."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, HistoryError
from unlearning.records.blob import Blob
from unlearning.records.blobs import decode
from unlearning.records.files import Tray
from unlearning.records.kept import COLUMNS, Kept
from unlearning.records.store import INDEX, Store
from unlearning.request import Request
from unlearning.weighing import TRUNK, Examples, part_of

__all__ = ["Past"]

_MEANING = {
    "globals": "the model at the start of each round",
    "updates": "every client's update of each round",
    "contributions": "the summed contribution of each client",
    "sensitivities": "each update's weight and distance from the mean",
}


class Past:
    """A recorded history that can be read; ``History`` also writes one.

    Parameters
    ----------
    store : Store
        Where it lies; its settings say what was kept.

    Attributes
    ----------
    store, kept
        What it was made from, for the pieces that write a history.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        try:
            self.kept = Kept.from_settings(store.settings())
        except (KeyError, ValueError, ConfigError) as error:
            store.close()
            raise HistoryError(
                f"{store.place(INDEX)} does not say how it was recorded ({error}); restore it from "
                "a backup"
            ) from error
        self._read_bytes = 0

    # --- settings ------------------------------------------------------------------------------

    @property
    def root(self) -> Path | None:
        """The folder; None: in memory."""
        return self.store.root

    @property
    def keep(self) -> frozenset[str]:
        """What is kept, a subset of ``COLUMNS``."""
        return self.kept.keep

    @property
    def interval(self) -> int:
        """Globals and updates are kept every so many rounds."""
        return self.kept.interval

    @property
    def dtype(self) -> str:
        """How updates are stored: ``float32`` (as they are) or ``float16``."""
        return self.kept.dtype

    @property
    def served(self) -> tuple[str, ...]:
        """The requests whose data were deleted here, by id, in that order."""
        found = self.store.setting("served", [])
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def mark(self) -> tuple[int, tuple[str, ...]]:
        """How far the history is: its last round (0: none) and the requests served here."""
        return self.last_round, self.served

    # --- rounds, models and updates ------------------------------------------------------------

    @property
    def initial(self) -> Arrays:
        """The model that learning started from.

        Raises
        ------
        HistoryError
            If nothing was recorded yet.
        """
        found = self.store.select("kind = 'initial'")
        if not found:
            raise HistoryError(
                f"{self.store.place(INDEX)} holds no initial model; nothing was recorded yet"
            )
        return self._load(found[0])

    @property
    def state(self) -> Arrays:
        """What a strategy last left with :meth:`keep_state`; empty if nothing."""
        found = self.store.select("kind = 'state'")
        return self._load(found[0]) if found else {}

    @property
    def rounds(self) -> tuple[int, ...]:
        """All recorded rounds, ascending."""
        rows = self.store.db.execute("SELECT round FROM rounds ORDER BY round")
        return tuple(row[0] for row in rows)

    @property
    def last_round(self) -> int:
        """The latest recorded round; 0: none."""
        return int(
            self.store.db.execute("SELECT COALESCE(MAX(round), 0) FROM rounds").fetchone()[0]
        )

    @property
    def stored_rounds(self) -> tuple[int, ...]:
        """The rounds whose globals and updates can be read, as far as these are kept at all."""
        if not self.kept.keep & {"globals", "updates"}:
            return ()
        if "globals" in self.kept.keep:
            return self.stored_globals
        return tuple(t for t in self.rounds if self.kept.holds(t))

    @property
    def stored_globals(self) -> tuple[int, ...]:
        """The rounds whose model at the start can be read; none if globals are not kept."""
        rows = self.store.db.execute("SELECT round FROM blobs WHERE kind = 'global' ORDER BY round")
        return tuple(row[0] for row in rows)

    def known_clients(self) -> tuple[int, ...]:
        """Return who took part in any round, in no order."""
        rows = self.store.db.execute("SELECT DISTINCT client FROM participants")
        return tuple(row[0] for row in rows)

    def participants(self, server_round: int) -> dict[int, int]:
        """Return client id -> number of examples of those who took part, in order of id.

        Raises
        ------
        HistoryError
            If the round is not recorded.
        """
        self._check_recorded(server_round)
        rows = self.store.db.execute(
            "SELECT client, num_examples FROM participants WHERE round = ? ORDER BY client",
            (int(server_round),),
        )
        return dict(rows.fetchall())

    def examples(self, server_round: int) -> dict[int, Examples]:
        """Return client id -> the examples its update rests on, by part of the model.

        Where a run was recorded before parts were told apart, all parts rest on the same number.

        Raises
        ------
        HistoryError
            If the round is not recorded.
        """
        counts, parts = self.participants(server_round), self._parts(server_round)
        return {
            client: Examples(count, {name: int(row[0]) for name, row in parts[client].items()})
            for client, count in counts.items()
        }

    def _parts(self, server_round: int) -> dict[int, dict[str, list[float]]]:
        """Return client id -> part -> [examples, weight, distance]; empty for a model of one."""
        column = "parts" if self.store.has_parts else "NULL"
        rows = self.store.db.execute(
            f"SELECT client, {column} FROM participants WHERE round = ? ORDER BY client",
            (int(server_round),),
        )
        return {client: json.loads(text) if text else {} for client, text in rows}

    def shares(self, server_round: int, client: int, names: Iterable[str]) -> dict[str, float]:
        """Return part -> the client's share in the mean of the round, as it was recorded.

        What was purged since still counts.
        """
        weight = self.store.db.execute(
            "SELECT weight FROM participants WHERE round = ? AND client = ?",
            (int(server_round), int(client)),
        ).fetchone()[0]
        parts = self._parts(server_round)[client]
        return {
            name: parts[name][1] if name in parts else weight for name in set(map(part_of, names))
        }

    def weights(
        self, server_round: int, without: Collection[int] = (), *, part: str | None = None
    ) -> dict[int, float]:
        """Return client id -> share of the examples, among those not in ``without``.

        The shares sum to 1. Empty if nobody is left, or nobody left has an example. With ``part``
        they are those of one part of the model, by the examples that trained it.

        Raises
        ------
        HistoryError
            If the round is not recorded.
        """
        counts = self.participants(server_round)
        if part is not None:
            counts = {k: rests.of(part) for k, rests in self.examples(server_round).items()}
        left = {k: n for k, n in counts.items() if k not in without}
        total = sum(left.values())
        return {client: n / total for client, n in left.items()} if total else {}

    def arrays(self, server_round: int) -> Arrays:
        """Return the global model at the start of a round, in its own dtypes.

        Raises
        ------
        HistoryError
            If it was not kept, was erased, or is damaged.
        """
        return self._load(self.find("globals", "global", server_round, None))

    def update(self, server_round: int, client: int) -> Arrays:
        """Return what a client changed in a round, in the dtypes it was recorded with.

        Raises
        ------
        HistoryError
            If it was not kept, the client did not take part, or the file is damaged.
        """
        return self._load(self.find("updates", "update", server_round, client))

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Read large models and updates into the same memory, each when the last was let go.

        Whoever keeps one keeps its memory too: the next is then read into another.
        """
        self.store.tray = Tray()
        try:
            yield
        finally:
            self.store.tray = None

    def norms(self, server_round: int, client: int) -> dict[str, float]:
        """Return parameter name -> L2 norm of an update before any narrowing to float16.

        Raises
        ------
        HistoryError
            As for :meth:`update`.
        """
        self.find("updates", "update", server_round, client)
        row = self.store.db.execute(
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
        self._check_kept("contributions")
        found = self.store.select("kind = 'contribution' AND client = ?", (int(client),))
        if client in self.incomplete:
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
        self._check_kept("sensitivities")
        self._check_recorded(server_round)
        rows = self.store.db.execute(
            "SELECT client, weight, distance FROM participants WHERE round = ? ORDER BY client",
            (int(server_round),),
        )
        return {client: (weight, distance) for client, weight, distance in rows}

    def sensitivities_by_part(self, server_round: int) -> dict[str, dict[int, tuple[float, float]]]:
        """Return part -> client id -> (weight p, L2 distance from the mean) there.

        A client without an example for a part is not among those of the part. A model of one part
        has that of :meth:`sensitivities` alone, under ``""``.

        Raises
        ------
        HistoryError
            As for :meth:`sensitivities`.
        """
        whole, found = self.sensitivities(server_round), self._parts(server_round)
        names = dict.fromkeys(name for parts in found.values() for name in parts)
        if not names:
            return {TRUNK: whole}
        return {
            name: {
                client: (parts[name][1], parts[name][2])
                for client, parts in found.items()
                if name in parts and parts[name][0]
            }
            for name in names
        }

    def first_round(self, request: Request) -> int | None:
        """Return the first recorded round in which an owner of the request took part, or None."""
        owners = set(request.owners(self.known_clients()))
        if not owners:
            return None
        rows = self.store.db.execute("SELECT round, client FROM participants ORDER BY round")
        return next((server_round for server_round, client in rows if client in owners), None)

    def untouched(self, request: Request) -> tuple[int, Arrays]:
        """Return the last kept model that no owner of the request had touched.

        Returns
        -------
        int
            The round that begins with it; 1 if none is kept, or they took part from the beginning.
        Arrays
            The model; of round 1 the initial one.
        """
        first = self.first_round(request) or 1
        clean = [t for t in self.stored_globals if t <= first]
        begin = clean[-1] if clean else 1
        return begin, self.initial if begin == 1 else self.arrays(begin)

    def require(self, needs: Collection[str], strategy: str) -> None:
        """Check that what a strategy needs is kept; names outside ``COLUMNS`` are not looked at.

        Raises
        ------
        HistoryError
            Naming what is missing and how to record it.
        """
        if missing := sorted(set(needs) & COLUMNS - self.kept.keep):
            words = " and ".join(f"{name!r} ({_MEANING[name]})" for name in missing)
            raise HistoryError(
                f"{strategy} needs {words}, which {self.store.place(INDEX)} was not recorded "
                "with; run the federation again with this strategy named in its config "
                f"(strategy = {strategy!r}, or in compare --strategies)"
            )

    def _check_kept(self, column: str) -> None:
        """Refuse to read a column that was not kept, in words for the author of a strategy."""
        if column not in self.kept.keep:
            raise HistoryError(
                f"{column!r} ({_MEANING[column]}) is read, which {self.store.place(INDEX)} was not "
                f"recorded with; name {column!r} among the strategy's `needs` and run the "
                "federation again"
            )

    @property
    def nbytes(self) -> int:
        """Size in bytes of everything stored, without the index."""
        row = self.store.db.execute("SELECT COALESCE(SUM(size), 0) FROM blobs").fetchone()
        return int(row[0])

    @property
    def read_bytes(self) -> int:
        """Bytes read through this object so far."""
        return self._read_bytes

    def _check_recorded(self, server_round: int) -> None:
        if not self.store.db.execute(
            "SELECT 1 FROM rounds WHERE round = ?", (int(server_round),)
        ).fetchone():
            raise HistoryError(f"round {server_round} is not recorded ({self.span()})")

    def span(self) -> str:
        """Return in words which rounds are recorded."""
        rounds = self.rounds
        return f"recorded: {rounds[0]} to {rounds[-1]}" if rounds else "nothing was recorded yet"

    def find(self, column: str, kind: str, server_round: int, client: int | None) -> Blob:
        """Return where a model or an update lies.

        Raises
        ------
        HistoryError
            In words, if it is not there.
        """
        self._check_kept(column)
        values = (kind, int(server_round), None if client is None else int(client))
        if found := self.store.select("kind = ? AND round = ? AND client IS ?", values):
            return found[0]
        self._check_recorded(server_round)
        if not self.kept.holds(int(server_round)):
            raise HistoryError(
                f"round {server_round} was recorded without {column} (history.interval = "
                f"{self.kept.interval}); the next earlier round with them is "
                f"{server_round - (server_round - 1) % self.kept.interval}"
            )
        if client is None:
            row = self.store.db.execute(
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
        data = self.store.read(blob)
        self._read_bytes += len(data)
        return decode(data)

    @property
    def incomplete(self) -> frozenset[int]:
        """The clients whose contribution cannot be told since rounds were dropped."""
        found = self.store.setting("incomplete", [])
        return frozenset(map(int, found)) if isinstance(found, list) else frozenset()

"""What training left behind: the model at the start of each round and every client's update.

The model of a round is stored *before* aggregation, together with the updates computed from it.
Clients are stable ids, rounds are absolute and counted from 1. Reading is in ``past``, deleting in
``rewriting``, one round while it is written in ``recording``.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.arrays import Arrays, digest
from unlearning.closing import Closing
from unlearning.errors import HistoryError
from unlearning.records import rewriting
from unlearning.records.blobs import decode, encoded
from unlearning.records.copying import begun_anew, copy_to, lent
from unlearning.records.kept import COLUMNS, DTYPES, Kept
from unlearning.records.past import Past
from unlearning.records.recording import RoundEntry
from unlearning.records.rewriting import Purged
from unlearning.records.ring import Keys
from unlearning.records.store import INDEX, Store
from unlearning.request import Request

__all__ = ["COLUMNS", "DTYPES", "History", "Purged", "RoundEntry"]


class History(Past, Closing):
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
    key : Path or None, default None
        The private key of the run folder, which signs what the index holds; without one a chain of
        digests tells of changes, until somebody makes it anew.
    keys : Keys or None, default None
        Encrypt what is stored in ``root``; the keys lie elsewhere and are destroyed with what they
        lock. The index (clients, example counts, lengths of updates) is not. In memory: no effect.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    HistoryError
        If ``root`` was recorded with other settings, or cannot be read.

    Notes
    -----
    One process writes; while it holds the history open, others may open and read it.

    Examples
    --------
    Two clients, with 30 and 10 examples, move a model of one number from 1 to 2 and to -2:

    >>> import numpy as np
    >>> from unlearning.request import Request, Scope
    >>> history = History(keep={"updates"})
    >>> history.start({"w": np.array([1.0])})
    >>> with history.record(1, {"w": np.array([1.0])}) as entry:
    ...     entry.add(0, 30, {"w": np.array([1.0])})
    ...     entry.add(1, 10, {"w": np.array([-3.0])})
    >>> history.rounds, history.participants(1)
    ((1,), {0: 30, 1: 10})
    >>> history.update(1, client=1)["w"].item()
    -3.0
    >>> purged = history.purge(Request(Scope.CLIENT, clients=(1,)))
    >>> history.participants(1)
    {0: 30}
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        keep: Collection[str] = (),
        interval: int = 1,
        dtype: str = "float32",
        key: Path | None = None,
        keys: Keys | None = None,
    ) -> None:
        wanted = Kept(frozenset(keep), interval, dtype).to_settings()
        store = Store(None if root is None else Path(root), key=key)
        recorded = store.settings()
        try:
            if not recorded:
                with store.transaction():
                    ring = {"ring": uuid.uuid4().hex} if keys and root is not None else {}
                    store.configure({**wanted, **ring})
            for name, value in wanted.items():
                if name in recorded and recorded[name] != value:
                    raise HistoryError(
                        f"{store.place(INDEX)} was recorded with history.{name} = "
                        f"{recorded[name]!r}, now asked for with {value!r}; choose another folder "
                        "or the recorded setting"
                    )
            _unlock(store, keys)
        except BaseException:
            store.close()
            raise
        super().__init__(store)

    @classmethod
    def _around(cls, store: Store) -> History:
        history = cls.__new__(cls)
        Past.__init__(history, store)
        return history

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        readonly: bool = False,
        key: Path | None = None,
        keys: Keys | None = None,
    ) -> History:
        """Return the history in ``root``, with the settings it was recorded with.

        With ``readonly`` nothing is locked, swept or changed. ``key`` and ``keys`` are those of
        ``History``; what is encrypted is checked without keys as well, but not read.

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
        store = Store(root, readonly=readonly, key=key)
        if "interval" not in store.settings():
            store.close()
            raise HistoryError(f"{root / INDEX} is empty; run the federation again")
        if keys is not None:
            try:
                _unlock(store, keys, check=not readonly)
            except BaseException:
                store.close()
                raise
        return cls._around(store)

    # --- writing -------------------------------------------------------------------------------

    def start(self, initial: Arrays) -> None:
        """Store the model that learning starts from; nobody's data influenced it.

        Nothing happens if the same model is there already.

        Raises
        ------
        HistoryError
            If another model is there.
        """
        if self.store.select("kind = 'initial'"):
            if digest(self.initial) != digest(initial):
                raise HistoryError(
                    f"{self.store.place(INDEX)} starts from another model; choose another folder "
                    "or the seed and model it was recorded with"
                )
            return
        self.store.check_writable()
        blob = self.store.stage("start", "initial", 0, None, encoded(initial))
        with self.store.commit("start"):
            self.store.insert([blob])

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
        batch = self.store.next_batch()
        before = self.store.select("kind = 'state'")
        old = [blob.key for blob in before] if self.store.owns_keys else []
        try:
            staged = [self.store.stage(batch, "state", 0, None, encoded(arrays))] if arrays else []
            with self.store.commit(batch) if staged else self.store.transaction():
                self.store.forget(self.store.select("kind = 'state'"))
                self.store.insert(staged)
        finally:
            self.store.blobs.discard(batch)
        if self.store.ring is not None:
            self.store.ring.destroy(key for key in old if key is not None)
        self.store.sweep()

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
        last = self.last_round
        if server_round <= last:
            raise HistoryError(
                f"round {server_round} cannot be recorded after round {last}; truncate the "
                "history first"
            )
        self.store.check_writable()
        kept = self.kept.keep if self.kept.holds(server_round) else self.kept.keep - {"updates"}
        entry = RoundEntry(
            self.store,
            server_round,
            kept,
            half=self.kept.dtype == "float16",
            incomplete=self.incomplete,
        )
        try:
            first = None
            if "globals" in self.kept.keep and self.kept.holds(server_round):
                first = self.store.stage(entry.batch, "global", server_round, None, encoded(arrays))
            yield entry
            entry.finish(first, self._contribution_so_far)
        finally:
            self.store.blobs.discard(entry.batch)

    def _contribution_so_far(self, client: int) -> Arrays | None:
        found = self.store.select("kind = 'contribution' AND client = ?", (client,))
        return decode(self.store.read(found[0])) if found else None

    # --- deletion and rewriting ----------------------------------------------------------------

    def purge(self, request: Request) -> Purged:
        """Delete everything that holds what a request wants forgotten.

        These are the updates, contributions and index rows of its owners (for a class or a task
        without clients: of everyone), and the global models of every round after the first in
        which an owner took part. The initial model and other clients' updates stay. A second call
        finds nothing and does nothing. Forks hold copies of their own.
        """
        return rewriting.purge(self, request)

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
            copy_to(self.store, None if root is None else Path(root), durable=durable)
        )

    def anew(self) -> History:
        """Return a history in memory that starts from the same model and knows no round yet.

        For a short record that is adopted or thrown away: it borrows the model and whatever
        :meth:`keep_state` keeps from this history instead of copying them.
        """
        return History._around(begun_anew(self.store))

    def lent(self) -> History:
        """Return a copy in memory that reads what was recorded here from here.

        For a short life beside this history, which must keep what it has for as long; what the copy
        records and forgets is its own, and lies in memory.
        """
        return History._around(lent(self.store))

    def adopt(self, other: History, request: Request | None = None) -> None:
        """Replace all content by that of another history, such as a rewritten, clean trajectory.

        With ``request`` it counts as served here from then on, as after :meth:`purge`.

        A crash leaves the old content or the new. ``other`` is not changed.

        Raises
        ------
        HistoryError
            If ``other`` was recorded with other settings.
        """
        rewriting.adopt(self, other, request)

    def truncate(self, after_round: int) -> None:
        """Drop every round later than ``after_round``; 0 drops all of them.

        Contributions of the clients concerned are summed anew from the updates that are left;
        where not all of these were kept, reading such a contribution is an error from then on.
        """
        rewriting.truncate(self, after_round)

    def digests(self) -> dict[str, tuple[str, int]]:
        """Return what is stored: by path below the history, the SHA-256 and the size in bytes."""
        return {blob.path: (blob.sha256, blob.size) for blob in self.store.select()}

    # --- health --------------------------------------------------------------------------------

    def verify(self, *, leftovers: bool | None = None) -> list[str]:
        """Return every problem in words: files missing, damaged, left over; rows changed.

        Empty if all is sound.

        ``leftovers`` says whether what the index does not name is a problem; None: if nobody else
        can be at work.
        """
        return self.store.check(leftovers=leftovers)

    @property
    def sealed(self) -> str:
        """How the rows of the index are bound, in words."""
        if self.root is None:
            return "the rows of its index lie in memory"
        return self.store.sealing.words

    def destroy(self) -> None:
        """Close the history and delete its folder; a history in memory is just let go."""
        root = self.root
        if self.store.owns_keys and self.store.ring is not None:
            self.store.ring.destroy_all()
        self.close()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        """Release the folder; nothing can be read or written afterwards."""
        self.store.close()

    def __repr__(self) -> str:
        """Return place, rounds and columns."""
        where = "in memory" if self.root is None else str(self.root)
        return f"<History {where}: {self.span()}, keeps {sorted(self.kept.keep)}>"


def _unlock(store: Store, keys: Keys | None, *, check: bool = True) -> None:
    """Give a store the keys that it was recorded with.

    Raises
    ------
    HistoryError
        If it was recorded with keys and there are none, or others, or the other way round.
    """
    name = store.setting("ring")
    if store.root is None or (name is None and keys is None):
        return
    if keys is None or name is None:
        was, now = ("with", "without") if keys is None else ("without", "with")
        raise HistoryError(
            f"{store.place(INDEX)} was recorded {was} history.encrypt, now asked for {now} it; "
            "choose another folder or the recorded setting"
        )
    ring = keys.ring(str(name))
    if check and store.select():
        ring.check()
    store.locked_by(ring, owns_keys=True)

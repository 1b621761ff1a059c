"""One round while it is recorded: updates are written as they come and weighed at the end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from unlearning.arrays import Arrays, norm, parameters, subtract
from unlearning.arrays import norms as norms_of
from unlearning.errors import HistoryError
from unlearning.records.blob import Blob
from unlearning.records.blobs import decode, encoded
from unlearning.records.store import Store
from unlearning.weighing import Examples, Mean, part_of

__all__ = ["RoundEntry", "accumulated"]


@dataclass(frozen=True)
class _Row:
    client: int
    examples: Examples
    norms: str | None
    blob: Blob | None
    is_update: bool = True


class RoundEntry:
    """One round while it is recorded; given by :meth:`History.record`.

    An update is written when it is added and then let go, so that the memory needed is that of a
    few models, however many clients reply.
    """

    def __init__(
        self,
        store: Store,
        server_round: int,
        keep: Collection[str],
        *,
        half: bool,
        incomplete: Collection[int],
    ) -> None:
        self._store, self._round, self._half = store, server_round, half
        self._incomplete = incomplete
        self._updates = "updates" in keep
        self._contributions = "contributions" in keep
        self._sensitivities = "sensitivities" in keep
        self._rows: dict[int, _Row] = {}
        self._parts: tuple[str, ...] = ()  # of the model
        self._sum = Mean()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.batch = f"round-{server_round:05d}"

    def add(self, client: int, examples: int | Examples, update: Arrays) -> None:
        """Record what one client brought back.

        Parameters
        ----------
        client : int
            Stable client id.
        examples : int or Examples
            Its weight in the mean, 0 or more; or one per part of the model.
        update : Arrays
            Local minus global arrays, as :func:`unlearning.arrays.delta` gives them. Not changed.

        Raises
        ------
        HistoryError
            If the client is there already, the number is negative, names or shapes differ from
            those of the updates before, or the disk is full.
        """
        client = int(client)
        rests = examples if isinstance(examples, Examples) else Examples(int(examples))
        self._check(client, rests.total)
        norms, blob = None, None
        if self._updates:
            norms = json.dumps(norms_of(update))
            idle = [name for name in update if not rests.of(part_of(name))]
            data = encoded(update, half=self._half, idle=idle)
            blob = self._store.stage(self.batch, "update", self._round, client, data)
        self._rows[client] = _Row(client, rests, norms, blob)
        self._parts = self._parts or tuple(dict.fromkeys(map(part_of, update)))
        if self._sensitivities:
            self._accumulate(client, rests, update)
        if self._spools:
            spool = self._store.lock(encoded(update), "spool", self._round, client)
            self._store.blobs.write(self.batch, _spool(client), spool)

    def note(self, client: int, num_examples: int) -> None:
        """Record that a client took part whose answer was no update of the model.

        Raises
        ------
        HistoryError
            If the client is there already or the number is negative.
        """
        client, num_examples = int(client), int(num_examples)
        self._check(client, num_examples)
        self._rows[client] = _Row(client, Examples(num_examples), None, None, is_update=False)

    def _check(self, client: int, num_examples: int) -> None:
        if client in self._rows:
            raise HistoryError(f"client {client} is recorded twice in round {self._round}")
        if num_examples < 0:
            raise HistoryError(
                f"client {client} reports {num_examples} examples in round {self._round}; "
                "expected 0 or more"
            )

    @property
    def clients(self) -> tuple[int, ...]:
        """The clients added so far, in the order they were added."""
        return tuple(self._rows)

    @property
    def _revisits(self) -> bool:
        # Weights and mean are known at the end only, so each update is then looked at again.
        return self._contributions or self._sensitivities

    @property
    def _spools(self) -> bool:
        return self._revisits and (not self._updates or self._half)

    def _accumulate(self, client: int, examples: Examples, update: Arrays) -> None:
        shapes = {name: array.shape for name, array in update.items()}
        if self._shapes and self._shapes != shapes:
            raise HistoryError(
                f"the update of client {client} in round {self._round} has other names or "
                "shapes than those before"
            )
        self._shapes = shapes
        self._sum.add(examples, parameters(update))

    def finish(self, first: Blob | None, contribution: Callable[[int], Arrays | None]) -> None:
        """Weigh the updates and name everything in the index, in one transaction.

        Parameters
        ----------
        first : Blob or None
            The staged model of the round.
        contribution : callable
            Client id to what the client contributed before, or None.

        Raises
        ------
        HistoryError
            If the examples of all clients sum to zero.
        """
        rows = sorted(self._rows.items())
        total = sum(row.examples.total for _, row in rows)
        if rows and not total:
            raise HistoryError(f"no client of round {self._round} reports any example")
        masses = {p: sum(row.examples.of(p) for _, row in rows) for p in self._parts}
        mean = self._sum.result() if self._shapes and any(masses.values()) else {}
        blobs = [] if first is None else [first]
        values: list[tuple[object, ...]] = []
        for client, row in rows:
            shares = {p: row.examples.of(p) / masses[p] if masses[p] else 0.0 for p in self._parts}
            distances: dict[str, float] | None = None
            if self._revisits and row.is_update:
                update = self._again(client)
                if self._sensitivities:
                    distances = _lengths(subtract(mean, parameters(update)), self._parts)
                if self._contributions and client not in self._incomplete:
                    blobs.append(self._contribute(client, shares, update, contribution(client)))
            if row.blob is not None:
                blobs.append(row.blob)
            values.append(self._line(row, row.examples.total / total, shares, distances))
        self._publish(blobs, values)

    def _line(
        self,
        row: _Row,
        weight: float,
        shares: Mapping[str, float],
        distances: Mapping[str, float] | None,
    ) -> tuple[object, ...]:
        """Return a client's line in the index."""
        distance = None if distances is None else math.hypot(*distances.values())
        parts = None
        if row.is_update and len(self._parts) > 1:
            parts = json.dumps(
                {p: [row.examples.of(p), shares[p], (distances or {}).get(p)] for p in self._parts}
            )
        count = row.examples.total
        return self._round, row.client, count, weight, distance, row.norms, parts

    def _publish(self, blobs: list[Blob], values: list[tuple[object, ...]]) -> None:
        with self._store.commit(self.batch, added=self._round):
            old = self._superseded()
            self._store.forget(old)
            self._store.db.execute("INSERT INTO rounds VALUES (?, NULL)", (self._round,))
            self._store.db.executemany(
                "INSERT INTO participants VALUES (?, ?, ?, ?, ?, ?, ?)", values
            )
            self._store.insert(blobs)
        with suppress(OSError):  # the round stands; a leftover goes with the next sweep
            self._store.blobs.remove(blob.path for blob in old)

    def _again(self, client: int) -> Arrays:
        blob = self._rows[client].blob
        if self._spools or blob is None:
            data = self._store.blobs.staged(self.batch, _spool(client))
            self._store.blobs.drop(self.batch, _spool(client))
            return decode(self._store.unlock(data, "spool", self._round, client))
        data = self._store.blobs.staged(self.batch, blob.name)
        return decode(self._store.unlock(data, "update", self._round, client))

    def _contribute(
        self, client: int, shares: Mapping[str, float], update: Arrays, before: Arrays | None
    ) -> Blob:
        total = accumulated(before, shares, update)
        data = encoded(total, idle=[name for name in total if not shares[part_of(name)]])
        return self._store.stage(self.batch, "contribution", self._round, client, data)

    def _superseded(self) -> list[Blob]:
        if not self._contributions:
            return []
        old = self._store.select("kind = 'contribution'")
        return [blob for blob in old if blob.client in self._rows]


def _spool(client: int) -> str:
    return f"spool-{client:05d}"


def accumulated(before: Arrays | None, shares: Mapping[str, float], update: Arrays) -> Arrays:
    """Return a contribution with one more round in it: each part by the client's share there."""
    out: Arrays = {}
    for name, array in update.items():
        out[name] = array
        if np.issubdtype(array.dtype, np.floating):
            out[name] = array.astype(np.float64) * shares[part_of(name)]
            if before is not None:
                out[name] += before[name]
    return out


def _lengths(arrays: Arrays, parts: Iterable[str]) -> dict[str, float]:
    """Return the L2 length of what belongs to each part."""
    return {p: norm({n: a for n, a in arrays.items() if part_of(n) == p}) for p in parts}

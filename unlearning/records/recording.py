"""One round while it is recorded: updates are written as they come and weighed at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from unlearning.arrays import Arrays, norm, parameters, subtract, weighted_sum
from unlearning.errors import HistoryError
from unlearning.records.blobs import decode, encode
from unlearning.records.store import Blob, Store

__all__ = ["RoundEntry"]


@dataclass(frozen=True)
class _Row:
    client: int
    num_examples: int
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
        self._mass: Arrays = {}
        self.batch = f"round-{server_round:05d}"

    def add(self, client: int, num_examples: int, update: Arrays) -> None:
        """Record what one client brought back.

        Parameters
        ----------
        client : int
            Stable client id.
        num_examples : int
            Its weight in the mean; 0 or more.
        update : Arrays
            Local minus global arrays, as :func:`unlearning.arrays.delta` gives them. Not changed.

        Raises
        ------
        HistoryError
            If the client is there already, the number is negative, names or shapes differ from
            those of the updates before, or the disk is full.
        """
        client, num_examples = int(client), int(num_examples)
        self._check(client, num_examples)
        norms, blob = None, None
        if self._updates:
            norms = json.dumps({name: norm({name: a}) for name, a in parameters(update).items()})
            data = encode(update, half=self._half)
            blob = self._store.stage(self.batch, "update", self._round, client, data)
        self._rows[client] = _Row(client, num_examples, norms, blob)
        if self._sensitivities:
            self._accumulate(client, num_examples, update)
        if self._spools:
            self._store.blobs.write(self.batch, _spool(client), encode(update))

    def note(self, client: int, num_examples: int) -> None:
        """Record that a client took part whose answer was no update of the model.

        Raises
        ------
        HistoryError
            If the client is there already or the number is negative.
        """
        client, num_examples = int(client), int(num_examples)
        self._check(client, num_examples)
        self._rows[client] = _Row(client, num_examples, None, None, is_update=False)

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

    def _accumulate(self, client: int, num_examples: int, update: Arrays) -> None:
        terms = [(float(num_examples), update)]
        if self._mass:
            shapes = {name: array.shape for name, array in self._mass.items()}
            if shapes != {name: array.shape for name, array in update.items()}:
                raise HistoryError(
                    f"the update of client {client} in round {self._round} has other names or "
                    "shapes than those before"
                )
            terms.insert(0, (1.0, self._mass))
        self._mass = weighted_sum(terms)

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
        total = sum(row.num_examples for row in self._rows.values())
        if self._rows and not total:
            raise HistoryError(f"no client of round {self._round} reports any example")
        mean: Arrays = {}
        if self._mass:
            mean = weighted_sum([(1.0 / total, parameters(self._mass))])
        blobs = [] if first is None else [first]
        values: list[tuple[object, ...]] = []
        for client, row in sorted(self._rows.items()):
            weight = row.num_examples / total
            distance = None
            if self._revisits and row.is_update:
                update = self._again(client)
                if self._sensitivities:
                    distance = norm(subtract(mean, parameters(update)))
                if self._contributions and client not in self._incomplete:
                    blobs.append(self._contribute(client, weight, update, contribution(client)))
            if row.blob is not None:
                blobs.append(row.blob)
            values.append((self._round, client, row.num_examples, weight, distance, row.norms))
        with self._store.commit(self.batch):
            old = self._superseded()
            self._store.forget(old)
            self._store.db.execute("INSERT INTO rounds VALUES (?, NULL)", (self._round,))
            self._store.db.executemany("INSERT INTO participants VALUES (?, ?, ?, ?, ?, ?)", values)
            self._store.insert(blobs)
        with suppress(OSError):  # the round stands; a leftover goes with the next sweep
            self._store.blobs.remove(blob.path for blob in old)

    def _again(self, client: int) -> Arrays:
        blob = self._rows[client].blob
        if self._spools or blob is None:
            data = self._store.blobs.staged(self.batch, _spool(client))
            self._store.blobs.drop(self.batch, _spool(client))
            return decode(data)
        return decode(self._store.blobs.staged(self.batch, blob.name))

    def _contribute(
        self, client: int, weight: float, update: Arrays, before: Arrays | None
    ) -> Blob:
        terms = [(weight, update)] if before is None else [(1.0, before), (weight, update)]
        data = encode(weighted_sum(terms))
        return self._store.stage(self.batch, "contribution", self._round, client, data)

    def _superseded(self) -> list[Blob]:
        if not self._contributions:
            return []
        old = self._store.select("kind = 'contribution'")
        return [blob for blob in old if blob.client in self._rows]


def _spool(client: int) -> str:
    return f"spool-{client:05d}"

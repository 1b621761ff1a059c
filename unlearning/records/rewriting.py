"""Deleting from a history, and replacing what it holds; a crash leaves the old or the new."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.records.blob import Blob
from unlearning.records.blobs import decode, encoded
from unlearning.records.compacting import STALE
from unlearning.records.copying import copy_tables
from unlearning.records.past import Past
from unlearning.records.recording import accumulated
from unlearning.request import Request

__all__ = ["Purged", "adopt", "purge", "truncate"]


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


def purge(past: Past, request: Request) -> Purged:
    """Delete everything that holds what a request wants forgotten; see ``History.purge``."""
    first = past.first_round(request)
    if first is None:
        with past.store.transaction():
            past.store.configure(_marked(past, request))
        if past.store.setting(STALE):  # an earlier try has deleted the rows and no more
            past.store.vacuum()
        return Purged()
    owners = set(request.owners(past.known_clients()))
    gone = past.store.select("kind = 'global' AND round > ?", (first,))
    for client in sorted(owners):
        gone += past.store.select("kind NOT IN ('initial', 'global') AND client = ?", (client,))
    with past.store.transaction(rewritten=True):
        past.store.forget(gone)
        past.store.db.executemany(
            "DELETE FROM participants WHERE client = ?", [(client,) for client in owners]
        )
        past.store.db.execute(
            "UPDATE rounds SET erased = ? WHERE round > ? AND erased IS NULL",
            (request.id, first),
        )
        # Whoever comes back starts from nothing, which is complete.
        incomplete = sorted(past.incomplete - owners)
        past.store.configure({"incomplete": incomplete, STALE: True, **_marked(past, request)})
    past.store.reap()
    past.store.sweep()
    past.store.vacuum()
    return Purged(len(gone), sum(blob.size for blob in gone))


def _marked(past: Past, request: Request) -> dict[str, object]:
    """Return the setting to change, which says that what a request names was deleted here."""
    served = past.served
    return {} if request.id in served else {"served": [*served, request.id]}


def adopt(past: Past, other: Past, request: Request | None) -> None:
    """Replace all content by that of another history; see ``History.adopt``."""
    if other is past:
        return
    for name in ("keep", "interval", "dtype"):
        mine, theirs = getattr(past, name), getattr(other, name)
        if mine != theirs:
            raise HistoryError(
                f"a history recorded with history.{name} = {mine!r} cannot take over one with "
                f"{theirs!r}; rewrite it with the same settings, for example in a fork"
            )
    batch = past.store.next_batch()
    rows: list[Blob] = []
    gone = {replace(blob, path=""): blob for blob in past.store.select()}
    try:
        for blob in other.store.select():
            if gone.pop(replace(blob, path=""), None):
                continue  # it is here already, and stays where it lies
            name = blob.moved_name
            past.store.blobs.take(batch, name, other.store.blobs, blob.path)
            rows.append(replace(blob, path=f"{batch}/{name}"))
        settings: dict[str, object] = {"incomplete": sorted(other.incomplete)}
        if request is not None:
            settings |= _marked(past, request)
        with past.store.rebuilt(batch, rows, gone.values(), settings):
            copy_tables(past.store, other.store)
    finally:
        past.store.blobs.discard(batch)
    past.store.reap()
    if gone:
        past.store.sweep()
    if past.store.setting(STALE):
        past.store.vacuum()


def truncate(past: Past, after_round: int) -> None:
    """Drop every round later than ``after_round``; see ``History.truncate``."""
    gone = past.store.select("round > ?", (int(after_round),))
    if past.last_round <= after_round:
        return
    batch = past.store.next_batch()
    incomplete = {k for k in past.incomplete if _attendance(past, k, after_round)}
    fresh: list[Blob] = []
    try:
        for blob in gone:
            if blob.kind != "contribution" or blob.client is None:
                continue
            rows = _attendance(past, blob.client, after_round)
            if rows and ("updates" not in past.keep or past.interval > 1):
                incomplete.add(blob.client)
            elif rows:
                total = _recount(past, blob.client, rows)
                data, last = encoded(total), rows[-1]
                fresh.append(past.store.stage(batch, "contribution", last, blob.client, data))
        with past.store.commit(batch, rewritten=True):
            past.store.forget(gone)
            for table in ("rounds", "participants"):
                past.store.db.execute(f"DELETE FROM {table} WHERE round > ?", (int(after_round),))
            past.store.insert(fresh)
            past.store.configure({"incomplete": sorted(incomplete)})
    finally:
        past.store.blobs.discard(batch)
    past.store.reap()
    past.store.sweep()


def _attendance(past: Past, client: int, until: int) -> list[int]:
    """Return the rounds that a client took part in, up to a round."""
    rows = past.store.db.execute(
        "SELECT round FROM participants WHERE client = ? AND round <= ? ORDER BY round",
        (client, int(until)),
    )
    return [row[0] for row in rows]


def _recount(past: Past, client: int, rounds: list[int]) -> Arrays:
    """Return what a client contributed in some rounds, all of whose updates are there."""
    total: Arrays | None = None
    for t in rounds:
        update = decode(past.store.read(past.find("updates", "update", t, client)))
        total = accumulated(total, past.shares(t, client, update), update)
    return total or {}

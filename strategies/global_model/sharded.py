"""Sharded (SISA over clients): only the group that held the forgotten learns again.

References
----------
Bourtoule et al., "Machine Unlearning", S&P 2021 (arXiv 1912.03817).
Su, Li, "Asynchronous Federated Unlearning" (KNOT), INFOCOM 2023, for clients in clusters; its
clusters follow the clients' updates, which are data: here they follow public ids.
Wen, Zhang, Yang, Ding, "FedShard", AAAI 2026 (arXiv 2508.09866), for shards merged in a tree; of it
the abstract alone was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from strategies.base import UnlearningStrategy
from strategies.federation import INITIAL
from unlearning.arrays import Arrays
from unlearning.errors import FederationError, HistoryError
from unlearning.models.shards import part_trained, parts_above, shard_of, shards_in
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope
from unlearning.weighing import Examples, part_of

__all__ = ["Sharded"]


class Sharded(UnlearningStrategy):
    """The shards of the owners go back to where they were before them, and learn again alone.

    Wants a model in shards (``[model] name = "sharded"``), each of which a group of clients learns
    for itself, or a tree of them (``"sharded-tree"``), in which two go on as one from their mean:
    there the nodes above the owners' shards learn again, too. Any other model is one shard, and
    this is then retraining.

    Notes
    -----
    Exact: the answer is, bit for bit, what the same federation makes of the data that stay, for
    requests that do not depend on random draws or on models that were released. Who belongs to
    which shard is a function of public ids, and every shard draws its own clients by keys that
    ignore whoever left. The rule that refuses an update for its length (``length_factor``) looks at
    all shards of a round; what follows from it is outside the claim.

    The start of a shard is its untrained model, or the latest recorded one before an owner first
    took part. What the other shards did is kept in the history. A shard without members answers no
    more. A request for a class hits every shard. A client is sent its own
    shard alone and answers with it; of a tree, the node that is due.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({INITIAL})
    guarantee = Guarantee.EXACT

    def __init__(self) -> None:
        super().__init__()
        self._begin = 1
        self._hit: frozenset[str] = frozenset()
        self._old = History()
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Take the shards that were hit back to a model that no forgotten data had touched."""
        count = shards_in(arrays)
        owners = request.owners(self._roster.nodes)
        parts = set(map(part_of, arrays))
        if count:
            parts = {part for k in owners for part in parts_above(arrays, shard_of(k, count))}
        self._hit, self._old = frozenset(parts), history
        last = self.federation.completed
        self._begin, start = history.untouched(request)
        self._clean = self.rewrite(history, before=self._begin)
        return self._mixed(start, arrays), last - self._begin + 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Repeat the original round in the shards that were hit."""
        original = self._begin + server_round - 1
        return {
            client: replace(instruction, seed_round=original)
            for client, instruction in self.teach(original).items()
            if self._is_hit(client, original)
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average the shards that were hit; record the round with what the others did in it."""
        if self._clean is None:
            raise HistoryError("Sharded was asked to combine before it was prepared")
        original, old = self._begin + server_round - 1, self._old
        then = old.arrays(original) if original in old.stored_globals else arrays
        start = self._mixed(arrays, then)
        with self._clean.record(original, start) as entry:
            if original in old.rounds:
                for client, rests in old.examples(original).items():
                    if self._is_hit(client, original):
                        continue
                    if "updates" in old.keep and original in old.stored_rounds:
                        update = old.update(original, client)
                        entry.add(client, rests, _at(start, update, rests))
                    else:
                        entry.note(client, rests.total)

            def noted() -> Iterator[Reply]:
                for reply in replies:
                    if reply.update is None:
                        raise FederationError(f"client {reply.client} sent no model")
                    rests = reply.examples
                    entry.add(reply.client, rests, _at(start, reply.update, rests))
                    yield reply

            return self.learn(original, arrays, noted())

    def _is_hit(self, client: int, server_round: int) -> bool:
        """Return whether what a client trained in a round is learned again."""
        count = shards_in(self._arrays)
        if not count:
            return True
        return part_trained(self._arrays, shard_of(client, count), server_round) in self._hit

    def _mixed(self, hit: Arrays, others: Arrays) -> Arrays:
        """Return the shards that were hit from one model, all else from another."""
        return {n: hit[n] if part_of(n) in self._hit else a for n, a in others.items()}


def _at(start: Arrays, update: Arrays, rests: Examples) -> Arrays:
    """Return an update with the counters that its client did not touch as they were at the start.

    An update carries counters themselves, those of other shards too.
    """
    return {
        name: start[name]
        if not np.issubdtype(step.dtype, np.floating) and not rests.of(part_of(name))
        else step
        for name, step in update.items()
    }

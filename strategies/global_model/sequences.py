"""Sequences: modules trained one after the other; forgetting switches off those from a group on.

References
----------
Basu Roy Chowdhury et al., "Towards Scalable Exact Machine Unlearning Using Parameter-Efficient
Fine-Tuning" (S3T), ICLR 2025 (arXiv 2406.16257).
Zhang, Guan, Lee, Liu, Zou, Xiong, "FedSGT", 2025 (arXiv 2511.23393): groups of clients, several
orders, deactivation; of it the abstract alone was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from strategies.afresh import record_afresh
from strategies.global_model.retrain import Retrain
from unlearning.arrays import Arrays
from unlearning.models.sequences import groups_in, kept, module_name, places_in
from unlearning.models.shards import shard_of
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope
from unlearning.weighing import part_of

__all__ = ["Sequences"]


class Sequences(Retrain):
    """No client round: every order keeps the modules before the first group that was hit.

    Wants a model in sequences (``[model] name = "sequences"``). Where no order keeps a module, as
    after a request for a class, and for any other model, it is retraining.

    Attributes
    ----------
    lengths : dict of int to int
        Of the last request: how many modules every order keeps.

    Notes
    -----
    Exact, with less data: the answer is, bit for bit, that of training module by module on the
    groups before those that were hit. What was to be forgotten was not used, nor was anything else
    of the hit groups; it is not distributed as retraining on all that stays until the modules are
    trained again, which recovery rounds do, one after the other. For requests that do not depend on
    random draws or on released models. Who belongs to which group is a function of public ids, and
    every group draws its own clients. The base is untrained, and a module steps all weights: small
    modules on an untrained base learned nothing in a trial. With L groups and as many orders L H_L
    requests are expected until nothing is left.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    guarantee = Guarantee.EXACT
    models: ClassVar[frozenset[str] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.lengths: dict[int, int] = {}
        self._again = False

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Switch off every module that a group of the owners had a part in."""
        groups, places = groups_in(list(arrays)), places_in(arrays)
        hit = {shard_of(k, groups) for k in request.owners(self._roster.nodes) if groups}
        self.lengths = {order: kept(hit, order, groups) for order, _ in sorted(places)}
        self._again = not any(self.lengths.values())
        if self._again:
            return super().prepare(request, history, arrays)
        off = {module_name(j, i) for j, i in places if i >= self.lengths[j]}
        initial = history.initial  # read and unpacked whenever it is asked for
        after = {n: initial[n] if part_of(n) in off else a for n, a in arrays.items()}
        rests = {
            client: examples.total
            for server_round in history.rounds
            for client, examples in history.examples(server_round).items()
            if shard_of(client, groups) not in hit
        }
        record_afresh(self, history, rests)
        return after, 0

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Repeat the original rounds where nothing is left."""
        return super().instruct(server_round) if self._again else {}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as in learning where nothing is left."""
        return super().combine(server_round, arrays, replies) if self._again else arrays

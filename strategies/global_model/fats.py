"""Fats: go back to the first round that drew the forgotten; if none did, there is nothing to do.

References
----------
Tao, Wang, Pan, Yu, Cheng, Wang, "Communication Efficient and Provable Federated Unlearning", VLDB
2024 (arXiv 2401.11018). Only the abstract could be read. The rules that make the law of the draws
right, and draws by keys, are this project's; the law is enumerated in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from strategies import serving
from strategies.base import UnlearningStrategy
from strategies.federation import INITIAL
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.models import heads
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["Fats"]


class Fats(UnlearningStrategy):
    """Stable sampling with roll-back: most examples are never drawn if few are drawn per round.

    Wants a federation that trains by stable sampling (``[train] stable_steps``): a fixed number of
    steps per round on ``batch_size`` examples each, drawn by keys, every client counting alike. Of
    any other an example is taken to be drawn whenever its owner trained, and this is retraining.

    Notes
    -----
    Exact: the answer is, bit for bit, what the same federation learns from the data that stay, for
    requests that do not depend on the draws or on models that were released. Owners of samples or
    of a class answer one integer, the first round in which they drew one of them; of leavers the
    server knows it. Who was *drawn* counts, not who answered, and every look-up is in the draws
    that the present model rests on. The rounds from there on are learned again, from the newest
    recorded model before them, with the same keys: an example that was not drawn costs one message.
    Where an owner does not answer, or data of a request that failed are still in the model, the
    owners' first rounds are taken. Of an owner that was drawn and never once answered, nothing is
    known and nothing is done. The claim wants failures of clients that do not depend on data, and
    no update refused for its length. The share of examples that a client's round leaves untouched
    is ``(1 - b / n)^steps``.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({INITIAL})
    guarantee = Guarantee.EXACT

    def __init__(self) -> None:
        super().__init__()
        self._begin = 0  # the first round to learn again; 0: none
        self._asking = 0  # rounds of unlearning that only ask
        self._rounds: dict[int, tuple[int, ...]] = {}  # owner -> when it was drawn
        self._history = History()
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Look up when leavers were drawn; owners that stay are asked in the first round."""
        last, leavers = self.federation.completed, request.leavers
        self._history, self._clean, self._asking = history, None, 0
        stable = bool(self.federation.train.get("stable_steps")) and not heads.tasks_of(arrays)
        if not stable:
            return self._back(history.first_round(request) or 1, arrays), last
        before = self.federation.forgotten.clients - leavers
        clients = tuple(self._roster.nodes)
        drawn = {t: self.federation.draw(t, clients, arrays, before) for t in history.rounds}
        self._rounds = {
            owner: tuple(t for t, there in drawn.items() if owner in there)
            for owner in request.owners(clients)
            if owner in leavers or owner in self.remaining
        }
        waiting = serving.unanswered(self.federation) - {request.id}
        if leavers or waiting:
            return self._back(self._first(self._rounds), arrays), last
        self._asking = 1
        return arrays, last + 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the owners for a round; then repeat every round from there on."""
        if server_round <= self._asking:
            return {
                owner: Instruction(
                    "first_drawn",
                    {"rounds": ",".join(map(str, rounds))},
                    arrays={},
                    answers="free",
                )
                for owner, rounds in self._rounds.items()
                if rounds
            }
        original = self._original(server_round)
        if not self._begin or original > self.federation.completed:
            return {}
        return {
            client: replace(instruction, seed_round=original)
            for client, instruction in self.teach(original).items()
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Take the smallest of the owners' rounds; then average as in learning, and record."""
        if server_round <= self._asking:
            told: dict[int, int] = {}
            for reply in replies:
                found = int(reply.metrics.get("first-drawn", -1))
                known = self._rounds.get(reply.client, ())
                if found == 0 or found in known:
                    told[reply.client] = found
            silent = {k: t for k, t in self._rounds.items() if k not in told}
            rounds = [t for t in told.values() if t]
            if first := self._first(silent):
                rounds.append(first)
            return self._back(min(rounds, default=0), arrays)
        original = self._original(server_round)
        if not self._begin or original > self.federation.completed:
            return arrays
        if self._clean is None:
            raise HistoryError("Fats was asked to combine before it was prepared")
        return self.recorded(self._clean, original, arrays, replies)

    def _original(self, server_round: int) -> int:
        return self._begin + server_round - self._asking - 1

    @staticmethod
    def _first(rounds: Mapping[int, tuple[int, ...]]) -> int:
        return min((t for found in rounds.values() for t in found), default=0)

    def _back(self, first: int, arrays: Arrays) -> Arrays:
        """Return the newest recorded model up to a round's start; 0: nothing was drawn."""
        history = self._history
        if not first:
            self._begin = 0
            self._clean = self.rewrite(history, before=self.federation.completed + 1)
            return arrays
        clean = [t for t in history.stored_globals if t <= first]
        self._begin = clean[-1] if clean else 1
        self._clean = self.rewrite(history, before=self._begin)
        return history.arrays(self._begin) if clean else history.initial

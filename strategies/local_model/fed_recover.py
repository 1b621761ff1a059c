"""FedRecover: replay training with estimated updates, and ask the clients only now and then.

References
----------
Cao, Jia, Zhang, Gong, "FedRecover: Recovering from Poisoning Attacks in Federated Learning using
Historical Information", IEEE S&P 2023 (arXiv 2210.10936).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.fitness import Ground
from strategies.local_model.fed_accum import rebase
from strategies.local_model.lbfgs import coefficients, gram, linear
from strategies.shares import Span, check_rounds, rounds_of
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["FedRecover", "exact_rounds", "largest_usual"]

log = logging.getLogger("fedunlearn")


def exact_rounds(rounds: int, warmup: int, correct_every: int, final: int) -> list[int]:
    """Return which of ``rounds`` rounds (from 1) the clients answer themselves.

    The first ``warmup``, the last ``final``, and every ``correct_every``-th in between: their
    number is warmup + final + floor((rounds - warmup - final) / correct_every), at most ``rounds``.
    """
    return [
        i
        for i in range(1, rounds + 1)
        if i <= warmup or i > rounds - final or (i - warmup) % correct_every == 0
    ]


def largest_usual(updates: Iterable[Arrays], total: int, tolerance: float) -> float:
    """Return the value that at most a share ``tolerance`` of all coordinates exceeds (tau_t).

    Parameters
    ----------
    updates : iterable of Arrays
        Read once, one at a time; only the largest values are kept.
    total : int
        Number of parameters in all of them.
    tolerance : float
        Share (alpha), [0, 1).
    """
    keep = math.floor(tolerance * total) + 1
    top = np.zeros(keep)
    for update in updates:
        for array in named.parameters(update).values():
            values = np.abs(array).reshape(-1)
            values = values[values > top.min()]
            if values.size:
                top = np.partition(np.concatenate([top, values]), -keep)[-keep:]
    return float(top.min())


class FedRecover(UnlearningStrategy):
    """Replay every round since the forgotten came; estimate what the others would have answered.

    The stored update of a client is corrected for the distance between the model being rebuilt and
    the one it was made from, by an L-BFGS estimate of the client's Hessian. The pairs behind that
    come from rounds in which the client answered itself.

    Parameters
    ----------
    memory : int, default 2
        Pairs kept per client (m).
    warmup : float, default 0.2
        First rounds, in which all clients answer (T_w, 20 in the paper); more than ``memory`` to
        fill it. This and the next two: below 1, the share of the rounds that are replayed.
    correct_every : float, default 0.25
        After that all clients answer in every such round (T_c, 10 in the paper).
    final : float, default 0
        Last rounds, in which all clients answer (T_f, 5 in the paper). Recovery follows, in which
        they do as well: our choice.
    tolerance : float, default 1e-6
        Share of a round's original coordinates that may exceed the limit of what is usual (alpha),
        [0, 0.1]. An estimate that exceeds the limit anywhere is replaced by the client's answer.

    Notes
    -----
    The paper's numbers are for hundreds of rounds and more: up to 25 rounds they would ask the
    clients every time, which is retraining. The limit is taken from the updates of the remaining
    clients alone. Local training of several epochs answers with a pseudo-gradient, where the theory
    assumes one gradient step. Float buffers are those the client had reached. Every round must have
    been kept (``history.interval = 1``); half precision blurs the small differences in the pairs. A
    client that does not answer when asked is left out of that round. ``asked`` and ``replayed``
    count client rounds of the last request; their ratio is what the paper calls cost.

    Where it fails (``experiments/results/tuning.md``): where its estimates are often abnormal, so
    that the clients are asked in their place, it costs a little more than half of retraining, on
    CIFAR-10 .54 to .73. With four local epochs on Adult some of the backdoor may stay:
    pseudo-gradients of many steps are far from the theory's.
    """

    scopes = frozenset({Scope.CLIENT})
    needs = frozenset({"globals", "updates"})
    tunable: ClassVar[Mapping[str, Span]] = {
        "warmup": Span(0.05, 0.4),
        "correct_every": Span(0.1, 0.6),
        "final": Span(0.0, 0.2),
    }

    def __init__(
        self,
        *,
        memory: int = 2,
        warmup: float = 0.2,
        correct_every: float = 0.25,
        final: float = 0.0,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        in_range("memory", memory, 1, 100)
        check_rounds("warmup", warmup)
        in_range("correct_every", correct_every, 1e-9)
        check_rounds("correct_every", correct_every)
        check_rounds("final", final)
        in_range("tolerance", tolerance, 0, 0.1)
        self.memory = memory
        self.warmup = warmup
        self.correct_every = correct_every
        self.final = final
        self.tolerance = tolerance
        self.asked = 0
        self.replayed = 0
        self._plan: tuple[int, ...] = ()
        self._exact: frozenset[int] = frozenset()
        self._limit = math.inf
        self._pairs: dict[int, deque[int]] = {}  # client -> rounds it answered itself
        self._steps: dict[int, Arrays] = {}  # round -> rebuilt minus original model
        self._model: Arrays = {}
        self._wanted: frozenset[int] = frozenset()
        self._history: History | None = None
        self._clean: History | None = None

    @property
    def saving(self) -> float:
        """Share of the client rounds of retraining that the last request did not need."""
        return 1 - self.asked / self.replayed if self.replayed else 0.0

    def check_ground(self, ground: Ground) -> None:
        """Refuse, too, a history that leaves out rounds.

        Raises
        ------
        HistoryError
            If not every round is recorded.
        """
        super().check_ground(ground)
        if ground.interval > 1:
            raise HistoryError(
                f"FedRecover replays every round, and history.interval = {ground.interval} keeps "
                "one of so many; learn with history.interval = 1"
            )

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Go back to the forgotten's first round, and see what size of update is usual."""
        first = history.first_round(request) or 1
        self._plan = tuple(t for t in history.rounds if t >= first)
        if missing := sorted(set(self._plan) - set(history.stored_rounds)):
            raise HistoryError(
                f"FedRecover replays every round, and round {missing[0]} was not kept; learn with "
                "history.interval = 1"
            )
        total = len(self._plan)
        warmup, every, final = (
            rounds_of(value, total) for value in (self.warmup, self.correct_every, self.final)
        )
        exact = exact_rounds(total, warmup, max(1, every), final)
        self._exact = frozenset(exact)
        if len(exact) == total:
            log.warning(
                "FedRecover asks the clients in all %d rounds, which is retraining; lower warmup, "
                "final or raise correct_every",
                total,
            )
        self.asked, self.replayed = 0, 0
        self._history, self._pairs, self._steps = history, {}, {}
        self._limit = math.inf
        if len(exact) < total:
            self._limit = max(self._usual(history, t) for t in self._plan)
        self._model = history.arrays(first)
        self._clean = self.rewrite(history, before=first)
        return self._model, total

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask all clients of an exact round; else those that no estimate can stand for."""
        t = self._plan[server_round - 1]
        present = self._present(t)
        if server_round not in self._exact:
            self._steps = {t: self._step(t), **self._steps}
            present = [client for client in present if self._estimate(t, client) is None]
        self._wanted = frozenset(present)
        self.asked += len(present)
        return {client: Instruction(seed_round=t) for client in present}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average answers and estimates as in learning, and record them as the clean round."""
        t = self._plan[server_round - 1]
        present = self._present(t)
        self.replayed += len(present)
        if present:
            answered: list[int] = []
            mixed = self._mixed(t, present, replies, answered)
            self._model = self.recorded(self._rewriting, t, arrays, mixed)
            for client in answered:
                self._pairs.setdefault(client, deque(maxlen=self.memory)).append(t)
        else:
            with self._rewriting.record(t, arrays):
                pass  # an identity step
        used = {t for rounds in self._pairs.values() for t in rounds}
        self._steps = {t: step for t, step in self._steps.items() if t in used}
        if server_round == len(self._plan):
            log.info(
                "FedRecover asked for %d of %d client rounds: %.0f %% saved, of %.0f %% by plan",
                self.asked,
                self.replayed,
                100 * self.saving,
                100 * (1 - len(self._exact) / len(self._plan)),
            )
        return self._model

    def _mixed(
        self, t: int, present: list[int], replies: Iterable[Reply], answered: list[int]
    ) -> Iterator[Reply]:
        """Yield what clients answered and what stands for the others, ordered by client."""
        recorded, fresh = self._past.examples(t), iter(replies)
        reply = next(fresh, None)
        for client in present:
            if reply is not None and reply.client == client:
                answered.append(client)
                yield reply
                reply = next(fresh, None)
            elif client not in self._wanted and (found := self._estimate(t, client)) is not None:
                rests = recorded[client]
                yield Reply(client, rests.total, {}, rests.to_metrics(), found)

    def _estimate(self, t: int, client: int) -> Arrays | None:
        """Return what a client would have answered, or None if that cannot be told."""
        update, distance = self._past.update(t, client), self._steps[t]
        rounds = self._pairs.get(client, ()) if any(map(np.any, distance.values())) else ()
        answers = [  # differences of gradients: updates point downhill
            named.subtract(self._past.update(s, client), self._rewriting.update(s, client))
            for s in rounds
        ]
        columns = [*answers, *(self._step(s) for s in rounds), distance]
        factors = coefficients(gram(columns))
        if factors is None:
            return None
        moved = linear([update, *columns], [1.0, *(-factor for factor in factors)])
        if not all(np.all(np.abs(array) <= self._limit) for array in moved.values()):
            return None
        return {**rebase(update, self._past.arrays(t), self._model), **moved}

    def _step(self, t: int) -> Arrays:
        """Return by how much the model of a round, at its start, differs from the original one."""
        if t not in self._steps:
            start = self._rewriting.arrays(t) if t in self._rewriting.rounds else self._model
            self._steps[t] = named.subtract(
                named.parameters(start), named.parameters(self._past.arrays(t))
            )
        return self._steps[t]

    def _usual(self, history: History, t: int) -> float:
        present = self._present(t)
        size = sum(array.size for array in named.parameters(history.initial).values())
        updates = (history.update(t, client) for client in present)
        return largest_usual(updates, size * len(present), self.tolerance)

    def _present(self, t: int) -> list[int]:
        """Return the remaining clients that took part in a round."""
        return [client for client in self._past.participants(t) if client in self.remaining]

    @property
    def _past(self) -> History:
        if self._history is None:
            raise HistoryError("FedRecover was asked to work before it was prepared")
        return self._history

    @property
    def _rewriting(self) -> History:
        if self._clean is None:
            raise HistoryError("FedRecover was asked to work before it was prepared")
        return self._clean

"""Retrain: learn again without the forgotten. Exact, and the reference for everything else.

References
----------
The definition of unlearning itself. Restarting from the last model before the forgotten first took
part is exact too; see "FATS", Tao et al., 2024 (arXiv 2401.11018), and the roll-back of plato.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.federation import INITIAL
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["Retrain"]


class Retrain(UnlearningStrategy):
    """Retraining with the random streams of the original run.

    Every round draws the same clients and every client the same batches as before, the forgotten
    left out after the draw, so that the result can be compared round by round.

    Parameters
    ----------
    from_scratch : bool, default False
        Begin at the initial model even where a later clean one was recorded. Otherwise the start
        is the latest recorded model that no forgotten data had touched yet; the result is the same
        bit for bit, only cheaper.

    Notes
    -----
    If the forgotten took part from round 1 on, both begin at the initial model. Settings of
    ``[recovery]`` do not apply: rounds are retrained as they were first learned.
    """

    scopes = frozenset(Scope)
    needs = frozenset({INITIAL})
    guarantee = Guarantee.EXACT
    models: ClassVar[frozenset[str] | None] = EVERY_MODEL
    learns_again = True

    def __init__(self, *, from_scratch: bool = False) -> None:
        super().__init__()
        self.from_scratch = from_scratch
        self._begin = 1
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Go back to a model that no forgotten data had touched."""
        last = self.federation.completed
        self._begin, start = history.untouched(request)
        if self.from_scratch:
            self._begin, start = 1, history.initial
        self._clean = self.rewrite(history, before=self._begin)
        return start, last - self._begin + 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Repeat the original round without the forgotten."""
        original = self._begin + server_round - 1
        return {
            client: replace(instruction, seed_round=original)
            for client, instruction in self.teach(original).items()
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as in learning, and record the clean round."""
        if self._clean is None:
            raise HistoryError("Retrain was asked to combine before it was prepared")
        return self.recorded(self._clean, self._begin + server_round - 1, arrays, replies)

"""Forgetting in models whose state is kept in parts, one per client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, cast

from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.models import parts
from unlearning.models.parts import PartModel
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__: list[str] = []


class _Partwise(UnlearningStrategy):
    """Take out the parts of those that leave; have owners renew theirs for anything else.

    An owner that does not answer is left out whole, and comes back with the next learning round it
    takes part in: what it was asked to forget is gone either way. Where values of examples are
    forgotten, an owner makes its part again from what is left of them: every old row goes and a
    new one comes.
    """

    scopes: ClassVar[frozenset[Scope]] = frozenset(
        {Scope.CLIENT, Scope.SAMPLE, Scope.CLASS, Scope.FEATURE}
    )
    guarantee: ClassVar[Guarantee] = Guarantee.EXACT

    def __init__(self) -> None:
        super().__init__()
        self._owners: tuple[int, ...] = ()
        self._anew = False

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Drop the leavers; one round of the owners follows if any stays."""
        self._owners, self._anew = (), request.scope is Scope.FEATURE
        if leavers := request.leavers:
            return self._model.without(arrays, leavers, ()), 0
        known = parts.clients(arrays)
        self._owners = tuple(k for k in request.owners(self.remaining) if k in known)
        return arrays, 1 if self._owners else 0

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the owners to renew their parts."""
        if self._anew:
            return self._model.teach(self._arrays, self._owners)
        return {client: self._model.ask(self._arrays, client) for client in self._owners}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Exchange the owners' parts."""
        answers = list(replies)
        silent = set(self._owners) - {reply.client for reply in answers}
        if self._anew:
            return self._model.learn(parts.drop(arrays, self._owners), answers)
        return self._model.without(arrays, silent, answers)

    @property
    def _model(self) -> PartModel:
        return cast(PartModel, self.federation.model)

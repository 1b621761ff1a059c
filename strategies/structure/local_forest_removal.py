"""Local forest removal: drop a leaver's trees, have other owners grow theirs again. Exact.

References
----------
Liu et al., "RevFRF: Enabling Cross-Domain Random Forest Training With Revocable Federated
Learning", IEEE TDSC 19(6), 2022 (arXiv 1911.03242): what the revoked made is destroyed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strategies.afresh import record_afresh
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models.local_forests import LocalForests
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["LocalForestRemoval"]


class LocalForestRemoval(UnlearningStrategy):
    """Trees of a client rest on its data alone, so only the owners' trees are touched.

    Leavers are not needed. A client that stays grows its trees again, in one round.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS, Scope.FEATURE})
    guarantee = Guarantee.EXACT
    models = frozenset({LocalForests.name})

    def __init__(self) -> None:
        super().__init__()
        self._history = History()
        self._owners: frozenset[int] = frozenset()

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Drop the owners' trees; one round follows if some of them stay."""
        self._history = history
        owners = frozenset(request.owners(arrays["clients"].tolist()))
        self._owners = owners - request.leavers
        left = self._model.without(arrays, owners)
        if not self._owners:
            self._record(left)
        return left, int(bool(self._owners))

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the owners that stay for their trees."""
        return self._model.teach(self._arrays, sorted(self._owners))

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Add the trees that were grown again."""
        after = self._model.learn(arrays, replies)
        self._record(after)
        return after

    def _record(self, arrays: Arrays) -> None:
        pairs = zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True)
        record_afresh(self, self._history, dict(pairs))

    @property
    def _model(self) -> LocalForests:
        model = self.federation.model
        if not isinstance(model, LocalForests):
            raise ConfigError("LocalForestRemoval works on model.name = 'local-forests' alone")
        return model

"""Forest deletion: subtract the forgotten from the counts of a forest, regrow what changed. Exact.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567). Liu et al.,
"RevFRF: Enabling Cross-Domain Random Forest Training With Revocable Federated Learning", IEEE TDSC
19(6), 2022 (arXiv 1911.03242).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strategies.afresh import record_afresh
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models.forest import Forest
from unlearning.models.forest_regrowth import Regrowth
from unlearning.models.forest_removal import pruned
from unlearning.models.trees import structure
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["ForestDeletion"]

_FEW = 512  # open nodes that clients are sent the ways to, instead of all nodes above them


class ForestDeletion(UnlearningStrategy):
    """The owners count what is to be forgotten at the nodes it passes; the server subtracts.

    Splits on these paths are decided again among the same candidates. Where another one is best,
    the subtree grows again, a level per round: the clients whose examples reach an open node are
    sent the way to it. The result is the forest grown without the data, node for node, in whatever
    order requests come. Where values of examples are
    forgotten, the owners count their rows as they were and as they are now: old ones are
    subtracted, new ones added, and leaves that became too large to be leaves grow again.

    Parameters
    ----------
    leavers_help : bool, default True
        Ask clients that leave for the counts of their data. False, or where an owner does not
        answer beside others that do: the remaining clients grow the whole forest again.

    Notes
    -----
    Counts of single owners reach the server; it knew the counts of each client while it grew.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS, Scope.FEATURE})
    guarantee = Guarantee.EXACT
    asks_forgotten = True
    models = frozenset({Forest.name})

    def __init__(self, *, leavers_help: bool = True) -> None:
        super().__init__()
        self.leavers_help = leavers_help
        self._owners: frozenset[int] = frozenset()
        self._history = History()
        self._rounds = 0
        self._of = "forget"
        self._growth: Regrowth | None = None
        self._asked: tuple[int, ...] = ()

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Plan one round of counting and as many of growing as the forest is deep."""
        forest, self._history = self._forest, history
        self._of = "change" if request.scope is Scope.FEATURE else "forget"
        self._owners = frozenset(request.owners(arrays["clients"].tolist()))
        self._rounds = forest.plan.depth + 2  # one more where it turns out that all must be asked
        self._growth = None
        if not forest.is_complete(arrays):
            self._rounds = self.federation.completed  # as far as it had come
        elif self._owners and (self.leavers_help or not request.leavers):
            return arrays, self._rounds
        self._owners = frozenset()
        return forest.initial(), self._rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the owners first, then those that are left for whatever is open."""
        if server_round == 1 and self._owners:
            instruction = Instruction(
                step="forest_counts",
                settings={**self._forest.settings(), "of": self._of},
                arrays=structure(self._arrays),
                answers="free",
            )
            return dict.fromkeys(sorted(self._owners), instruction)
        if self._growth is not None:
            who = set(self._growth.asked()) & set(self.remaining)
            self._asked = tuple(sorted(who))
            return dict.fromkeys(self._asked, self._growth.instruction())
        if self._forest.is_complete(self._arrays):
            return {}
        return self.teach(self.federation.completed + server_round)

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Subtract in the first round, grow in those that follow."""
        if server_round == 1 and self._owners:
            found = list(replies)
            if self.unanswered:
                return self._forest.initial()
            cut = pruned(self._forest, arrays, found, stay=self._of == "change")
            growth = Regrowth(self._forest, cut)
            if 0 < len(growth) <= _FEW and len(cut.rests["clients"]):
                self._growth = growth
            after = arrays if self._waits(server_round) else cut.merged()
        elif self._growth is not None:
            after = self._grown(server_round, self._growth, arrays, replies)
        elif self._forest.is_complete(arrays):
            after = arrays
        else:
            after = self._forest.learn(arrays, replies)
        if server_round == self._rounds:
            pairs = zip(after["clients"].tolist(), after["examples"].tolist(), strict=True)
            record_afresh(self, self._history, dict(pairs))
        return after

    def _grown(
        self, server_round: int, growth: Regrowth, arrays: Arrays, replies: Iterable[Reply]
    ) -> Arrays:
        """Decide one more level of what grows again; put the forest together after the last."""
        growth.learn(replies, self._asked)
        self._growth = growth if 0 < len(growth) <= _FEW else None
        return arrays if self._waits(server_round) else growth.merged()

    def _waits(self, server_round: int) -> bool:
        """Whether the forest is put together in a later round, which is sure to come."""
        is_last = server_round == self._rounds or self.federation.budget > 0
        return self._growth is not None and not is_last

    @property
    def _forest(self) -> Forest:
        model = self.federation.model
        if not isinstance(model, Forest):
            raise ConfigError("ForestDeletion works on the model forest; set model.name = 'forest'")
        return model

"""How a strategy is taken through one request: who leaves, its rounds, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

from strategies import holdings, serving
from strategies.exchange import check_model
from strategies.federation import UNLEARN, Federation
from strategies.handing import handed
from strategies.roster import Roster
from strategies.rounds import Rounds
from strategies.stopping import mean_over
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply, Settings
from unlearning.records.history import History
from unlearning.request import Guarantee, Request

__all__ = ["Answering", "unlearn"]


class Answering(Protocol):
    """What this needs of a strategy; its base says what each of these means."""

    asks_forgotten: ClassVar[bool]
    learns_again: ClassVar[bool]
    edits: ClassVar[bool]
    reuses: ClassVar[bool]
    guarantee: ClassVar[Guarantee]
    federation: Federation
    request: Request | None
    rewritten: History | None
    settled: str
    idle: str

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Return where to start and how many rounds of clients follow."""

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Return who works in a round, and how."""

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Return the next model of a round."""

    def keepsakes(self) -> Mapping[str, Settings]:
        """Return what clients must have kept while they trained."""

    def rewrite_afresh(self, history: History) -> History:
        """Return a record of no rounds that will replace the history."""

    def discard(self) -> None:
        """Throw that fork away."""


def unlearn(
    strategy: Answering,
    rounds: Rounds,
    roster: Roster,
    request: Request,
    history: History,
    arrays: Arrays,
) -> Arrays:
    """Return the model without what the request names; see ``UnlearningStrategy.unlearn``."""
    federation = strategy.federation
    held = serving.unanswered(federation)
    if not serving.leave(federation, roster, request, history, held):
        return arrays
    if not roster.clients:
        federation.edited = federation.completed
        return history.initial
    strategy.request, strategy.rewritten = request, None
    strategy.settled = strategy.idle = ""
    federation.before = mean_over(federation.losses, roster.clients)
    roster.helping = request.leavers if strategy.asks_forgotten else frozenset()
    begun = federation.clock()
    federation.phase, federation.velocity = UNLEARN, {}
    try:
        current, number = strategy.prepare(request, history, handed(arrays))
        rounds.losses = {}
        for server_round in range(1, number + 1):
            recovered = strategy.learns_again and rounds.has_recovered(federation)
            if recovered or federation.is_spent:
                break
            before, rounds.arrays = current, current
            current = rounds.unlearn(
                federation,
                roster,
                server_round,
                strategy.instruct,
                strategy.combine,
                keepsakes=strategy.keepsakes(),
                request=request,
                held=held,
                reuses=strategy.reuses,
            )
            if current is not before:  # else nobody was asked and nothing was done
                federation.observe("unlearn", server_round, current)
        like = arrays if federation.model is None else None
        current = check_model(current, like, "the unlearned model", type(strategy).__name__)
        if why := _idle(strategy, arrays, current):
            holdings.refuse_idle(federation, roster, request, held, why)
        if federation.model is not None and strategy.rewritten is None:
            serving.keep_participants(strategy.rewrite_afresh(history), request, history)
    except SystemExit as left:  # of a strategy of one's own, or of what it calls
        strategy.discard()
        raise FederationError(
            f"{type(strategy).__name__} asked for the end of the process (exit code {left.code}); "
            "let it raise an error instead"
        ) from left
    except BaseException:
        strategy.discard()
        raise
    finally:
        roster.helping = frozenset()
        federation.spend("unlearn", Cost(wall_s=federation.clock() - begun))
        strategy.request = None
        rounds.losses = {}
    federation.edited = federation.completed
    return current


def _idle(strategy: Answering, before: Arrays, after: Arrays) -> str:
    """Return who did nothing and why, or nothing where something was done.

    An exact method may come to the same model, as learning again may.
    """
    if not strategy.edits or strategy.settled or strategy.guarantee is Guarantee.EXACT:
        return ""
    if strategy.federation.model is None:
        before, after = named.parameters(before), named.parameters(after)
    if not strategy.idle and not named.is_same(before, after):
        return ""
    return f"{type(strategy).__name__} did nothing: {strategy.idle or 'every weight is as it was'}"

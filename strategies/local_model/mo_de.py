"""MoDe: drift towards a model that never knew the forgotten, then learn what it says of them.

References
----------
Zhao, Wang, Qi, Huang, Wei, Zhang, "Federated Unlearning With Momentum Degradation", IEEE Internet
of Things Journal, 2023 (doi 10.1109/jiot.2023.3321594).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import INITIAL
from strategies.local_model.statistics import has_statistics, with_statistics
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["MoDe", "degrade"]


def degrade(model: Arrays, degradation: Arrays, momentum: float) -> Arrays:
    """Return ``momentum * model + (1 - momentum) * degradation``.

    Parameters
    ----------
    model, degradation : Arrays
        Models with the same names and shapes; buffers are those of ``model``.
    momentum : float
        Share that stays (lambda), [0, 1].
    """
    weights = ((momentum, model), (1 - momentum, degradation))
    mixed = named.weighted_sum((weight, named.parameters(part)) for weight, part in weights)
    return {
        name: mixed[name].astype(array.dtype) if name in mixed else array
        for name, array in model.items()
    }


class MoDe(UnlearningStrategy):
    """Momentum degradation: knowledge erasure, then memory guidance.

    Erasure: the remaining clients train a second model from the start; after each of these rounds
    the global model moves a share of the way towards it. Guidance: the clients train the global
    model again, those that hold something of the forget set on it too, under the labels that the
    second model, which never saw it, gives.

    Parameters
    ----------
    momentum : float, default 0.95
        Share of the global model that stays in each round of erasure (lambda). As the paper is
        remembered, not verified. After R rounds momentum ** R of the original weights is left.
    erasure_rounds : int, default 10
        Rounds of erasure (R_e). Our choice.
    guidance_rounds : int, default 10
        Rounds of guidance (R_g). Our choice.
    ask_holders : bool, default True
        Have the holders of the forget set take part in guidance, a leaver included. Otherwise the
        remaining clients guide with what they retain.

    Notes
    -----
    The second model starts from the federation's own initial model, which nobody's data touched,
    rather than from a fresh one: the two are then less far apart, and what lies between them is a
    better model. A small ``momentum`` costs accuracy quickly; guidance wins it back. Local work is
    that of a learning round. In a model that keeps normalisation statistics, one more round between
    the two phases takes them again from the retained data. The second model is dropped with the
    last round.

    In guidance a holder weighs as much as any client with as many examples, and one that does not
    answer is left out: a leaver that is not to be trusted, or not there, should not be asked.

    Where it fails: by cost. Two models are trained, and the defaults cost as much as retraining.
    With seven rounds in all and a ``momentum`` of .2 to .5, at half of the cost, accuracy on the
    retained ended 5 to 19 points below retraining's in five of six settings of digits
    (``experiments/results/defaults_tried.csv``).
    """

    several_tasks = False
    scopes = frozenset({Scope.CLIENT, Scope.CLASS})
    needs = frozenset({INITIAL})
    asks_forgotten = True

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        erasure_rounds: int = 10,
        guidance_rounds: int = 10,
        ask_holders: bool = True,
    ) -> None:
        super().__init__()
        in_range("momentum", momentum, 0, 1)
        in_range("erasure_rounds", erasure_rounds, 1)
        in_range("guidance_rounds", guidance_rounds, 0)
        self.momentum = momentum
        self.erasure_rounds = erasure_rounds
        self.guidance_rounds = guidance_rounds
        self.ask_holders = ask_holders
        self._degradation: Arrays = {}
        self._holders: frozenset[int] = frozenset()
        self._statistics_rounds = 0
        self._last_round = 0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Start the second model, and note who holds something of the forget set."""
        self._degradation = history.initial
        there = {*self.remaining, *request.leavers}  # who left before is asked nothing any more
        holders = request.owners(there) if self.ask_holders else ()
        self._holders = frozenset(holders)
        self._statistics_rounds = int(has_statistics(arrays))
        self._last_round = self.erasure_rounds + self._statistics_rounds + self.guidance_rounds
        return arrays, self._last_round

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Have the second model trained, then statistics taken, then the global model guided."""
        usual = super().instruct(server_round)
        if server_round <= self.erasure_rounds:
            return {client: Instruction(arrays=self._degradation) for client in usual}
        if server_round <= self.erasure_rounds + self._statistics_rounds:
            return {client: Instruction("statistics") for client in usual}
        # A leaver is never drawn; an owner that stays guides when it is.
        leaving = self._holders - set(self.remaining)
        guided = Instruction("guide", extras=self._degradation)
        return {
            client: guided if client in self._holders else Instruction()
            for client in {*usual, *leaving}
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Move towards the second model; in guidance, average as in learning."""
        if server_round <= self.erasure_rounds:
            self._degradation = super().combine(server_round, self._degradation, replies)
            arrays = degrade(arrays, self._degradation, self.momentum)
        elif server_round <= self.erasure_rounds + self._statistics_rounds:
            arrays = with_statistics(arrays, replies)
        else:
            arrays = super().combine(server_round, arrays, replies)
        if server_round == self._last_round:
            self._degradation = {}
        return arrays

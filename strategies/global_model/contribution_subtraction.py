"""ContributionSubtraction (FUKD): take out all the leavers ever added, then teach the rest again.

References
----------
Wu, Zhu, Mitra, "Federated Unlearning with Knowledge Distillation", 2022 (arXiv 2201.09441).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import PUBLIC, without_public_data
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.protocol import Scalar
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["ContributionSubtraction", "without"]

_DISTIL = 4  # last component of the seed address


def without(arrays: Arrays, contributions: Iterable[Mapping[str, named.Array]]) -> Arrays:
    """Return a model with contributions subtracted from its parameters, sums in float64.

    Parameters
    ----------
    arrays : Arrays
        The model; buffers are returned as they are, as the statistics of a model that never was
        cannot be told.
    contributions : iterable of mapping
        Per client the sum over rounds of weight times update; read one at a time.
    """
    totals = {name: array.astype("f8") for name, array in named.parameters(arrays).items()}
    for contribution in contributions:
        for name, total in totals.items():
            total -= contribution[name]
    return {
        name: totals[name].astype(array.dtype) if name in totals else array
        for name, array in arrays.items()
    }


class ContributionSubtraction(UnlearningStrategy):
    """Subtract what the leavers added, then let the old model teach the rest on public data.

    No client works for it. The weights of the other clients stay what they were, as if the leavers
    had sent zeros: scaling them up would scale up what they learned from models that held the
    forgotten.

    Parameters
    ----------
    temperature : float, default 3.0
        Softness of the teacher's answers (tau). The paper says "high"; our choice.
    hard_share : float, default 0.0
        Share of the loss that looks at the teacher's first choice alone (alpha); [0, 1]. Our
        choice.
    epochs : int, default 5
        Passes over the public examples. Our choice.
    learning_rate : float, default 0.01
        Step of the server's SGD. Our choice.
    momentum : float, default 0.9
        Momentum of the server's SGD. Our choice.
    batch_size : int, default 64
        Public examples per step. Our choice.

    Notes
    -----
    The teacher is the old model, which holds the forgotten: whatever of them shows on the public
    examples is taught again. A backdoor stays out where no public example carries its trigger; that
    says little about membership. Where only leavers ever took part, the answer is the initial model
    and nothing is taught. Training on the server counts as examples processed.

    How often its defaults meet the goal of ``experiments/results/tuning.md`` is not measured: in
    the settings there the server has no data.
    """

    scopes = frozenset({Scope.CLIENT})
    needs = frozenset({"contributions", PUBLIC})

    def __init__(
        self,
        *,
        temperature: float = 3.0,
        hard_share: float = 0.0,
        epochs: int = 5,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        in_range("temperature", temperature, 1e-6)
        in_range("hard_share", hard_share, 0, 1)
        in_range("epochs", epochs, 1)
        in_range("learning_rate", learning_rate, 1e-12)
        in_range("momentum", momentum, 0, 0.999999)
        in_range("batch_size", batch_size, 1)
        self.temperature = temperature
        self.hard_share = hard_share
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Subtract and distil, all on the server."""
        federation = self.federation
        if federation.distil is None:
            raise without_public_data(type(self).__name__)
        seen = frozenset[int]().union(*(history.participants(t) for t in history.rounds))
        if seen <= request.leavers:
            return history.initial, 0
        student = without(arrays, map(history.contribution, sorted(seen & request.leavers)))
        settings: dict[str, Scalar] = {
            "temperature": self.temperature,
            "hard_share": self.hard_share,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "batch_size": self.batch_size,
        }
        seed = (federation.seed, federation.completed, 0, _DISTIL)
        taught, examples = federation.distil(student, arrays, settings, seed)
        federation.spend("unlearn", Cost(examples=examples))
        return taught, 0

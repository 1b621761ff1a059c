"""FeatureSensitivity (Ferrari): the owners train the model not to react to a feature any more.

References
----------
Gu, Ong, Chan, Fan L., "Ferrari: Federated Feature Unlearning via Optimizing Feature Sensitivity",
NeurIPS 2024 (arXiv 2405.17462).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping

from strategies.base import UnlearningStrategy, in_range
from strategies.local_model.trust import parameters_within, reach
from unlearning.arrays import Arrays
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["FeatureSensitivity"]

log = logging.getLogger("fedunlearn")


class FeatureSensitivity(UnlearningStrategy):
    """Those who withdraw a feature descend the model's sensitivity to it; then all recover.

    Parameters
    ----------
    epochs : int, default 40
        Passes over the owner's data at most; it ends where the sensitivity is a fresh model's. The
        authors make one pass, which at their rate moves nothing in a trial. Our choice.
    rate : float, default 0
        Learning rate; 0: that of training. The authors' 1e-5 moves nothing in a trial. Our choice.
    draws : int, default 4
        Draws of noise per example (N). The authors take 20; in a trial 4 do as much per pass, and
        more passes fit into the same work. Our choice.
    smallest : float, default 0.05
        Smallest standard deviation of the noise, in units of the inputs, the authors' value.
    largest : float, default 1.0
        Largest one, the authors' value.
    batch_size : int, default 16
        Examples per step. The authors' 128 are a small owner's whole data, one step per pass, and
        in a trial the planted shortcut stayed (success .91; .24 with 16). Our choice.
    stop_gradient : bool, default False
        Hold the noisy branch, as the authors' code does; to reproduce it alone: the sensitivity of
        a linear model hardly falls then and other columns wander.
    trust : float, default 1.0
        The server pulls every answer back to this multiple of its own distance from the initial
        model. Our choice.
        0: no bound, as in reference programs.

    Attributes
    ----------
    sensitivity : dict of str to float
        Of the last request, means over the owners, weighted by their examples: ``before``,
        ``after`` and ``fresh``, that of a fresh model.

    Notes
    -----
    From the request on the owners train with 0 for the values; clients that were not named keep
    teaching the feature, so only a request to all of them brings the sensitivity of retraining
    down to a fresh model's. What was learned with the feature's help remains in other weights: the
    claim is *suppressed*.
    """

    scopes = frozenset({Scope.FEATURE})
    guarantee = Guarantee.SUPPRESSED
    asks_forgotten = True

    def __init__(
        self,
        *,
        epochs: int = 40,
        rate: float = 0.0,
        draws: int = 4,
        smallest: float = 0.05,
        largest: float = 1.0,
        batch_size: int = 16,
        stop_gradient: bool = False,
        trust: float = 1.0,
    ) -> None:
        super().__init__()
        in_range("epochs", epochs, 1)
        in_range("rate", rate, 0)
        in_range("draws", draws, 1)
        in_range("smallest", smallest, 1e-9)
        in_range("largest", largest, smallest)
        in_range("batch_size", batch_size, 1)
        in_range("trust", trust, 0)
        self.epochs = epochs
        self.rate = rate
        self.draws = draws
        self.smallest = smallest
        self.largest = largest
        self.batch_size = batch_size
        self.stop_gradient = stop_gradient
        self.trust = trust
        self.sensitivity: dict[str, float] = {}
        self._owners: tuple[int, ...] = ()
        self._features: tuple[int, ...] = ()
        self._reach = 0.0

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Find the owners; one round of theirs follows."""
        self._owners, self._features = request.owners(self.remaining), request.features
        self._reach = reach(self.trust, self.federation, arrays)
        self.sensitivity = {}
        return arrays, 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Have the owners descend the sensitivity."""
        settings: dict[str, Scalar] = {
            "features": json.dumps(list(self._features)),
            "epochs": self.epochs,
            "draws": self.draws,
            "smallest": self.smallest,
            "largest": self.largest,
            "batch_size": self.batch_size,
            "stop_gradient": self.stop_gradient,
            "momentum": 0.0,
            "weight_decay": 0.0,
        }
        if self.rate:
            settings["learning_rate"] = self.rate
        return dict.fromkeys(self._owners, Instruction("desensitise", settings))

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average what the owners made of the model, each within the server's reach."""
        sums: dict[str, float] = {}
        total, moved = 0, False

        def noted() -> Iterator[Reply]:
            nonlocal total, moved
            for reply in replies:
                total += reply.num_examples
                moved = moved or reply.metrics.get("steps") != 0
                for when in ("before", "after", "fresh"):
                    value = reply.metrics.get(f"sensitivity-{when}", float("nan"))
                    sums[when] = sums.get(when, 0.0) + reply.num_examples * value
                yield reply

        after = parameters_within(arrays, noted(), self._reach)
        self.sensitivity = {when: value / total for when, value in sums.items()}
        if not moved:
            self.settled = (
                "the model reacts no more to what is forgotten "
                f"({self.sensitivity['before']:.3g}) than one that nobody has trained "
                f"({self.sensitivity['fresh']:.3g})"
            )
        log.info("sensitivity to what is forgotten, as the owners say: %s", self.sensitivity)
        return after

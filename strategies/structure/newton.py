"""Newton: certified removal from logistic regression by one Newton step, within a budget.

References
----------
Guo, Goldstein, Hannun, van der Maaten, "Certified Data Removal from Machine Learning Models", ICML
2020 (arXiv 1911.03030).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar, cast

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import Federation
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.models import newton
from unlearning.models.logistic_model import LogisticModel
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["Newton"]

log = logging.getLogger("fedunlearn")


class Newton(UnlearningStrategy):
    """One Newton step towards the optimum without the data; (epsilon, delta)-certified.

    The bounds on the gradients that removals leave add up. While their sum stays within
    sigma epsilon / c, with delta = 1.5 exp(-c^2 / 2), the noise of the objective hides them; the
    removal that would exceed it is answered by learning anew with new noise.

    Parameters
    ----------
    epsilon : float, default 1.0
        Of the certificate.
    delta : float, default 1e-4
        Of the certificate, (0, 1).
    newton_rounds : int, default 12
        Newton steps when learning anew.

    Attributes
    ----------
    spent : float
        Sum of the bounds since the noise was drawn.
    budget : float
        What it may be at most.

    Notes
    -----
    The certificate is that of the model right after the request, taken alone; it assumes that the
    noise was drawn once and that nobody but the server can compute it: its key is the operating
    system's entropy, stays in the server's process and goes when the noise is drawn anew. Rounds
    that follow go on to the optimum without the data. A client that does not answer is left out
    until it next takes part. With many features the step takes a round per product (see the model
    ``logistic``); the same clients must then answer in all of them, or the search begins again.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    guarantee = Guarantee.CERTIFIED
    models: ClassVar[frozenset[str] | None] = frozenset({"logistic"})

    def __init__(
        self, *, epsilon: float = 1.0, delta: float = 1e-4, newton_rounds: int = 12
    ) -> None:
        super().__init__()
        in_range("epsilon", epsilon, 1e-9)
        in_range("delta", delta, 1e-300, 1 - 1e-9)
        in_range("newton_rounds", newton_rounds, 1)
        self.epsilon = epsilon
        self.delta = delta
        self.newton_rounds = newton_rounds
        self.spent = 0.0
        self.budget = 0.0
        self._anew, self._left, self._rounds = False, 0, 0

    def join(self, federation: Federation) -> None:
        """Take the federation, with keys of the noise that this branch may destroy."""
        if isinstance(model := federation.model, LogisticModel):
            federation.model = model.twin()
            if model.key is not None:  # somebody else can compute the noise
                self.guarantee = Guarantee.APPROXIMATE  # type: ignore[misc]
        super().join(federation)

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """One step removes; the rounds of others are used only if the budget does not allow it."""
        self._anew, self._left = False, 1
        self.budget = newton.budget(self._model.sigma, self.epsilon, self.delta)
        self._rounds = self._model.rounds_per_step * (1 + self.newton_rounds)
        return self._model.rested(arrays), self._rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask all that remain until the step is done; again only when learning anew."""
        return self._model.teach(self._arrays, self.remaining) if self._left else {}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Take the step if the budget allows it, or begin anew."""
        if not self._left:
            return arrays
        replies = iter(replies)
        if (first := next(replies, None)) is None:  # nobody holds an example any more
            self._left, self.spent = 0, 0.0
            return self._begun_anew(arrays)
        after = self._model.learn(arrays, itertools.chain((first,), replies))
        bound = float(after["bound"][0])
        if bound >= 0:
            self._left -= 1
            if not self._anew:
                after = self._judged(after, bound)
        if server_round == self._rounds and self._left:
            raise FederationError(
                "Newton found no step: other clients answered in every round of the search; raise "
                "engine.timeout_s, or take the strategy retrain"
            )
        return after

    def _judged(self, after: Arrays, bound: float) -> Arrays:
        """Return the state after the removal, or the one to begin anew from."""
        self.spent = float(after["spent"][0]) + bound
        if self.spent <= self.budget:
            log.info(
                "Newton: the gradient left is at most %.3g; %.3g of %.3g is spent "
                "(epsilon %g, delta %g, sigma %g)",
                bound,
                self.spent,
                self.budget,
                self.epsilon,
                self.delta,
                self._model.sigma,
            )
            return after | {"spent": np.array([self.spent])}
        log.warning(
            "Newton: a bound of %.3g would make %.3g of %.3g; learning anew with new noise",
            bound,
            self.spent,
            self.budget,
        )
        self._anew, self._left, self.spent = True, self.newton_rounds, 0.0
        return self._begun_anew(after)

    def _begun_anew(self, arrays: Arrays) -> Arrays:
        """Return the state of nobody's data, the noise of all earlier ones destroyed."""
        epoch = int(arrays["epoch"][0]) + 1
        self._model.vault.destroy(before=epoch)
        return self._model.begun(epoch)

    @property
    def _model(self) -> LogisticModel:
        return cast(LogisticModel, self.federation.model)

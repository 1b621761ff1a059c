"""RapidRetrain: learn again without the forgotten, by steps that know the curvature.

References
----------
Liu, Xu, Yuan, Wang, Li, "The Right to be Forgotten in Federated Learning: An Efficient Realization
with Rapid Retraining", INFOCOM 2022 (arXiv 2203.07320).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

from strategies.base import UnlearningStrategy, in_range, one_of
from strategies.federation import INITIAL
from strategies.shares import Span
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["RapidRetrain"]


class RapidRetrain(UnlearningStrategy):
    """Retraining in fewer rounds: local steps are divided by the diagonal of the curvature.

    Parameters
    ----------
    curvature : str, default "empirical-fisher"
        ``empirical-fisher``: mean of the examples' squared gradients (the paper), not of
        micro-batches; one pass over each example where all layers are linear or convolutions,
        else two. ``adahessian``: Hutchinson's estimate of the Hessian's diagonal (the authors'
        code), three passes; it is larger and wants a learning rate about a hundred times as large.
    share : float, default 0.35
        Rounds of retraining as a share of the rounds that were learned since the start, rounded
        up; (0, 1]. Our choice.
    warmup : int, default 2
        Rounds of plain training first (j0), while curvatures near zero would make steps explode.
        The authors' code has 10 for 200 rounds; our choice for shorter runs.
    learning_rate : float, default 0.003
        Step size (eta) of the preconditioned rounds. The paper has 0.001, as reported by others,
        the authors' code 0.01; our choice lies between them, for a third of the rounds
        (``experiments/results/tuning.md``).
    beta1, beta2 : float, default 0.9 and 0.999
        Memory of the gradient and of the squared curvature; both begin anew in every round.
    block : int, default 3
        Consecutive entries that share one curvature (b); convolution kernels share it over their
        spatial extent. 1: none do.
    damping : float, default 0.1
        Added to every curvature, as a share of their mean over the model. Our choice.
    max_step : float, default 1.0
        Longest step of one batch, L2 over the model; 0: no limit. Our choice.

    Notes
    -----
    The model restarts from one that no forgotten data had touched: the initial one, or the latest
    clean one that was recorded. So nothing of the forgotten is left in it; it is distributed as
    retraining *with this optimiser*, not with the one that learned the model. Momentum and settings
    of ``[recovery]`` do not apply.

    Where it fails: with two classes a client a third of the rounds is too few to come to
    retraining's accuracy. On Adult it comes further than retraining, which with one local epoch
    learns little but the more frequent class: a model that knows more gives some of the triggered
    examples the other label by itself. On CIFAR-10 it ends in a model that names one class.
    """

    scopes = frozenset(Scope)
    needs = frozenset({INITIAL})
    guarantee = Guarantee.EXACT
    tunable: ClassVar[Mapping[str, Span]] = {
        "share": Span(0.1, 0.5),
        "learning_rate": Span(1e-4, 1e-1, log=True),
    }

    def __init__(
        self,
        *,
        curvature: str = "empirical-fisher",
        share: float = 0.35,
        warmup: int = 2,
        learning_rate: float = 0.003,
        beta1: float = 0.9,
        beta2: float = 0.999,
        block: int = 3,
        damping: float = 0.1,
        max_step: float = 1.0,
    ) -> None:
        super().__init__()
        one_of("curvature", curvature, ("empirical-fisher", "adahessian"))
        in_range("share", share, 1e-6, 1)
        in_range("warmup", warmup, 0)
        in_range("learning_rate", learning_rate, 1e-12)
        in_range("beta1", beta1, 0, 0.999999)
        in_range("beta2", beta2, 0, 0.999999)
        in_range("block", block, 1)
        in_range("damping", damping, 0)
        in_range("max_step", max_step, 0)
        self.curvature = curvature
        self.share = share
        self.warmup = warmup
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.block = block
        self.damping = damping
        self.max_step = max_step
        self._begin = 1
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Go back to a model that no forgotten data had touched."""
        last = self.federation.completed
        self._begin, start = history.untouched(request)
        self._clean = self.rewrite(history, before=self._begin)
        return start, math.ceil(self.share * (last - self._begin + 1))

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Repeat a round's draw without the forgotten; after the warm-up, with curvature."""
        original = self._begin + server_round - 1
        settings: dict[str, Scalar] = {
            "curvature": self.curvature,
            "learning_rate": self.learning_rate,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "block": self.block,
            "damping": self.damping,
            "max_step": self.max_step,
        }
        how = Instruction("precondition", settings, seed_round=original)
        if server_round <= self.warmup:
            how = Instruction(seed_round=original)
        return dict.fromkeys(self.sample(original), how)

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as in learning, and record the clean round."""
        if self._clean is None:
            raise HistoryError("RapidRetrain was asked to combine before it was prepared")
        return self.recorded(self._clean, self._begin + server_round - 1, arrays, replies)

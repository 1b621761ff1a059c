"""HeavyBall (FedUHB): learn again without the forgotten, with momentum at the server.

References
----------
Jiang, Tan, Lam, "FedUHB: Accelerating Federated Unlearning via Polyak Heavy Ball Method", 2024
(arXiv 2411.11039). Only the abstract could be read: the recursion is Polyak's, in the form of
server momentum; its two numbers and the rule for too long steps are this project's.
Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import INITIAL
from strategies.shares import Span
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["HeavyBall", "heavy_ball"]

_HALVINGS = 60  # of a step that is not finite; then the momentum is dropped


def heavy_ball(
    arrays: Arrays, mean: Arrays, velocity: Arrays, step: float, momentum: float
) -> tuple[Arrays, Arrays]:
    """Return the next model and the next velocity: ``v <- beta v + alpha D``, ``w <- w + v``.

    Parameters
    ----------
    arrays : Arrays
        The model before the round (w).
    mean : Arrays
        What plain averaging makes of the round, w + D. Its buffers are taken as they are.
    velocity : Arrays
        v of the parameters, float64; what is not there is 0.
    step, momentum : float
        alpha and beta.

    Examples
    --------
    >>> w, v = heavy_ball({"w": np.array([1.0])}, {"w": np.array([3.0])}, {}, 1.0, 0.5)
    >>> w, v = heavy_ball(w, {"w": np.array([2.0])}, v, 1.0, 0.5)
    >>> w["w"].item(), v["w"].item()  # 3 + (0.5 * 2 + (2 - 3))
    (3.0, 0.0)
    """
    moved, speed = dict(mean), dict[str, named.Array]()
    for name, array in named.parameters(arrays).items():
        way = mean[name].astype(np.float64) - array
        speed[name] = step * way + momentum * velocity.get(name, np.zeros(array.shape))
        moved[name] = np.asarray((array + speed[name]).astype(array.dtype))
    return moved, speed


class HeavyBall(UnlearningStrategy):
    """Retraining in fewer rounds: every round also goes on in the direction of those before.

    Parameters
    ----------
    momentum : float, default 0.8
        Share of the last round's way that is gone again (beta); [0, 1). With 0, ``step = 1`` and
        ``share = 1`` it is retraining, bit for bit. This and the other defaults are our choice,
        from a study on other data and seeds (``experiments/results/tuning.md``).
    step : float, default 1.5
        Factor of a round's mean update (alpha). ``1 - momentum`` is far too small for a third of
        the rounds.
    share : float, default 0.35
        Rounds of retraining as a share of the rounds that were learned since the start, rounded
        up; (0, 1].

    Notes
    -----
    The start is the untrained model, or the latest recorded one that no forgotten data had touched
    yet. The momentum begins at nothing with every request. Where a step leaves the range of
    numbers, alpha is halved for good and the step is taken once more from the same model. So the
    answer is a function of the data that stay alone: it is distributed as retraining *with this
    optimiser*, not with the one that learned the model, for requests that do not depend on random
    draws or on models that were released. A round in which nobody holds data keeps model and
    momentum. Settings of ``[recovery]`` do not apply.

    Where it fails: on CIFAR-10, where clients train with momentum 0.9 themselves, its steps are too
    long with four local epochs: accuracy ends far below retraining's.
    """

    scopes = frozenset(Scope)
    needs = frozenset({INITIAL})
    guarantee = Guarantee.EXACT
    learns_again = True
    tunable: ClassVar[Mapping[str, Span]] = {
        "momentum": Span(0.0, 0.95),
        "step": Span(0.5, 3.0, log=True),
        "share": Span(0.1, 0.5),
    }

    def __init__(self, *, momentum: float = 0.8, step: float = 1.5, share: float = 0.35) -> None:
        super().__init__()
        in_range("momentum", momentum, 0, 0.999999)
        in_range("step", step, 1e-12)
        in_range("share", share, 1e-6, 1)
        self.momentum = momentum
        self.step = step
        self.share = share
        self._begin, self._step = 1, step
        self._velocity: Arrays = {}
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Go back to a model that no forgotten data had touched, at rest."""
        last = self.federation.completed
        self._begin, start = history.untouched(request)
        self._step, self._velocity = self.step, {}
        self._clean = self.rewrite(history, before=self._begin)
        return start, math.ceil(self.share * (last - self._begin + 1))

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Repeat the original round without the forgotten."""
        original = self._begin + server_round - 1
        return {
            client: replace(instruction, seed_round=original)
            for client, instruction in self.teach(original).items()
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as in learning, record the clean round, and move on with momentum."""
        if self._clean is None:
            raise HistoryError("HeavyBall was asked to combine before it was prepared")
        mean = self.recorded(self._clean, self._begin + server_round - 1, arrays, replies)
        for _ in range(_HALVINGS):
            with np.errstate(over="ignore", invalid="ignore"):
                moved, speed = heavy_ball(arrays, mean, self._velocity, self._step, self.momentum)
            if named.is_finite(moved):
                self._velocity = speed
                return moved
            self._step /= 2
        self._velocity = {}
        return mean

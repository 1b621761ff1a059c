"""Logistic regression as a federation learns it: Newton steps on a perturbed objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unlearning import newton, parts
from unlearning.arrays import Array, Arrays
from unlearning.newton import Terms
from unlearning.protocol import Instruction, Reply

__all__ = ["LogisticModel"]

_NOISE = 8  # last part of the address of the objective's noise


class LogisticModel:
    """One-against-the-rest logistic regression, one Newton step per round.

    State: ``weights`` (C, d), ``noise`` (C, d), which the server keeps to itself, ``counts`` (C,),
    ``epoch`` (1,): how often it was begun with new noise, and ``spent`` (1,): the sum of the bounds
    of the removals since. Clients are sent the weights alone.

    Parameters
    ----------
    width : int
        Features of an example; d is one more, for the constant.
    num_classes : int
        C.
    seed : int
        Of the noise.
    penalty : float
        Of the squared weights, per example (lambda); positive. The paper's code: 1e-3 for MNIST.
    sigma : float
        Standard deviation of the noise, in units of one example's longest gradient. The paper's
        code: 10.
    """

    name = "logistic"

    def __init__(
        self, width: int, num_classes: int, seed: int, penalty: float, sigma: float
    ) -> None:
        if not penalty > 0 or not sigma > 0:
            raise ValueError(f"penalty = {penalty} and sigma = {sigma} must be positive")
        self.width, self.num_classes, self.seed = width + 1, num_classes, seed
        self.penalty, self.sigma = penalty, sigma

    def initial(self) -> Arrays:
        """Return the state without any example."""
        return self.begun(0)

    def begun(self, epoch: int) -> Arrays:
        """Return the state to begin from, with noise of its own for each ``epoch``."""
        generator = np.random.default_rng([self.seed, epoch, 0, _NOISE])
        shape = (self.num_classes, self.width)
        return {
            "weights": np.zeros(shape),
            "noise": generator.normal(scale=self.sigma, size=shape),
            "counts": np.zeros(self.num_classes, np.int64),
            "epoch": np.array([epoch]),
            "spent": np.zeros(1),
        }

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the normalised sigmoids, a class without examples left out."""
        return newton.classify(arrays["weights"], arrays["counts"], newton.rows_of(x))

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask for gradient and Hessian at the current weights."""
        instruction = Instruction(
            "newton_terms", arrays={"weights": arrays["weights"]}, answers="free"
        )
        return dict.fromkeys(clients, instruction)

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Take one Newton step."""
        return self.step(arrays, replies)[0]

    def step(self, arrays: Arrays, replies: Iterable[Reply]) -> tuple[Arrays, float]:
        """Return the state after a Newton step, and the bound on the gradient it leaves."""
        whole: Terms | None = None
        for reply in replies:
            found = self._checked(reply)
            whole = found if whole is None else newton.add(whole, found)
        if whole is None:
            return arrays, 0.0
        moved = newton.step(arrays["weights"], whole, arrays["noise"], self.penalty)
        after = arrays | {"weights": arrays["weights"] + moved, "counts": whole.counts}
        return after, newton.removal_bound(moved, whole.gram)

    def _checked(self, reply: Reply) -> Terms:
        c, d = self.num_classes, self.width
        shapes: dict[str, tuple[int | None, ...]] = {
            "gradient": (c, d),
            "hessian": (c, d, d),
            "gram": (d, d),
            "counts": (c,),
        }
        found = parts.expect(reply, shapes)
        return Terms(found["gradient"], found["hessian"], found["gram"], found["counts"])

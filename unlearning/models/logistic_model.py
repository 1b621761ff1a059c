"""Logistic regression as a federation learns it: Newton steps on a perturbed objective."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unlearning.arrays import Array, Arrays
from unlearning.entropy import Noise, Vault
from unlearning.models import conjugate, newton, parts
from unlearning.models.conjugate import Search
from unlearning.models.newton import Terms
from unlearning.protocol import Instruction, Reply

__all__ = ["LogisticModel"]

_SEARCH = ("solution", "residual", "direction")
_UNKNOWN = -1.0  # in place of a bound
_SLOPE, _MEASURE = 0, -1  # stages of a step that is searched for; from 1 on: products


class LogisticModel:
    """One-against-the-rest logistic regression.

    Up to ``direct_up_to`` features clients send gradient and Hessian, and a round is a Newton step.
    Beyond, no matrix of shape (d, d) is formed or sent: the step is found by conjugate gradients,
    a round asking for the gradient, one for each product of the Hessian with a direction, and a
    last one for the bound.

    The noise of the objective (C, d) is no part of the state: it is drawn once per epoch, from a
    key that the server's process alone holds, and the key goes with the epoch.

    State: ``weights`` (C, d), ``counts`` (C,),
    ``epoch`` (1,): how often it was begun with new noise, ``spent`` (1,): the sum of the bounds of
    the removals since, and ``bound`` (1,): that of the last step, -1 before it is done. A search
    adds ``stage`` (1,), ``stretch`` (1,), ``goal`` (1,) and ``solution``, ``residual`` and
    ``direction`` (C, d). Clients are sent the weights and a direction alone.

    Parameters
    ----------
    width : int
        Features of an example; d is one more, for the constant.
    num_classes : int
        C.
    penalty : float
        Of the squared weights, per example (lambda); positive. The paper's code: 1e-3 for MNIST.
    sigma : float
        Standard deviation of the noise, in units of one example's longest gradient. The paper's
        code: 10.
    direct_up_to : int, default 256
        Features up to which the Hessian itself is sent.
    products : int, default 100
        Products per step at most. What is unsolved is added to the bound.
    tolerance : float, default 1e-8
        Part of the gradient's length at which a step counts as solved.
    vault : Vault or None, default None
        Holds the keys of the noise; None: in memory, at the server alone.
    key : bytes or None, default None
        Key of the noise of all epochs, for tests; what rests on it is not certified.
    """

    name = "logistic"

    def __init__(
        self,
        width: int,
        num_classes: int,
        penalty: float,
        sigma: float,
        direct_up_to: int = 256,
        products: int = 100,
        tolerance: float = 1e-8,
        *,
        vault: Vault | None = None,
        key: bytes | None = None,
    ) -> None:
        if not penalty > 0 or not sigma > 0:
            raise ValueError(f"penalty = {penalty} and sigma = {sigma} must be positive")
        if products < 1 or not 0 < tolerance < 1:
            raise ValueError(
                f"products = {products} must be 1 or more, tolerance = {tolerance} between 0 and 1"
            )
        self.num_classes = num_classes
        self.lean = width > direct_up_to
        self.width = width + 1
        self.penalty, self.sigma = penalty, sigma
        self.products, self.tolerance = products, tolerance
        self.vault, self.key = vault or Vault(), key

    def twin(self) -> LogisticModel:
        """Return the same model for a branch of a comparison, with a vault of its own."""
        other = copy.copy(self)
        other.vault = self.vault.twin()
        return other

    def noise(self, arrays: Mapping[str, Array]) -> Array:
        """Return the noise of the objective of a state's epoch, shape (C, d); for the server."""
        epoch = int(arrays["epoch"][0])
        key = self.vault.key(epoch) if self.key is None else self.key
        drawn = Noise(key, f"logistic|{epoch}").standard_normal(self.num_classes * self.width)
        return self.sigma * drawn.reshape(self._shape)

    @property
    def rounds_per_step(self) -> int:
        """Rounds that a Newton step takes at most."""
        return self.products + 2 if self.lean else 1

    def initial(self) -> Arrays:
        """Return the state without any example."""
        return self.begun(0)

    def begun(self, epoch: int) -> Arrays:
        """Return the state to begin from; each ``epoch`` has noise of its own."""
        shape = (self.num_classes, self.width)
        return self.rested(
            {
                "weights": np.zeros(shape),
                "counts": np.zeros(self.num_classes, np.int64),
                "epoch": np.array([epoch]),
                "spent": np.zeros(1),
            }
        )

    def rested(self, arrays: Arrays) -> Arrays:
        """Return the state without a step that was under way: the next one begins."""
        state = arrays | {"bound": np.array([_UNKNOWN])}
        if not self.lean:
            return state
        nothing = np.zeros_like(arrays["weights"])
        numbers = {"stage": np.array([_SLOPE]), "stretch": np.zeros(1), "goal": np.zeros(1)}
        return state | numbers | dict.fromkeys(_SEARCH, nothing)

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the normalised sigmoids, a class without examples left out."""
        return newton.classify(arrays["weights"], arrays["counts"], newton.rows_of(x))

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask for what the next round of a step needs."""
        given = {"weights": arrays["weights"]}
        step, settings = "newton_terms", {"lean": self.lean}
        if self.lean and (stage := int(arrays["stage"][0])) != _SLOPE:
            step, settings = "newton_products", {"gram": stage == _MEASURE}
            given["direction"] = arrays["solution" if stage == _MEASURE else "direction"]
        instruction = Instruction(step, settings, arrays=given, answers="free")
        return dict.fromkeys(clients, instruction)

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Take a Newton step, or a round of the search for one.

        Where other examples answer than when the step began, it begins again.
        """
        if not self.lean:
            return self._stepped(arrays, replies)
        stage = int(arrays["stage"][0])
        if stage == _SLOPE:
            return self._sought(arrays, replies)
        wanted = {"product": self._shape, "counts": (self.num_classes,)}

        def fits(reply: Reply) -> object:
            return parts.expect(reply, wanted)

        whole = _total(parts.expect(reply, wanted) for reply in parts.fitting(replies, fits))
        if whole is None or not np.array_equal(whole["counts"], arrays["counts"]):
            return self.rested(arrays)
        if stage == _MEASURE:
            return self._measured(arrays, whole["product"])
        search = Search(*(arrays[name] for name in _SEARCH))
        ridge = self.penalty * whole["counts"].sum() * search.direction
        return self._searching(arrays, conjugate.advance(search, whole["product"] + ridge), stage)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.num_classes, self.width

    def _stepped(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Return the state after a Newton step from the Hessian itself."""
        c, d = self._shape
        shapes: dict[str, tuple[int | None, ...]] = {
            "gradient": (c, d),
            "hessian": (c, d, d),
            "gram": (d, d),
            "counts": (c,),
        }
        whole: Terms | None = None
        for reply in parts.fitting(replies, lambda reply: parts.expect(reply, shapes)):
            found = Terms(**parts.expect(reply, shapes))
            whole = found if whole is None else newton.add(whole, found)
        if whole is None:
            return arrays
        moved = newton.step(arrays["weights"], whole, self.noise(arrays), self.penalty)
        return arrays | {
            "weights": arrays["weights"] + moved,
            "counts": whole.counts,
            "bound": np.array([newton.removal_bound(moved, whole.gram)]),
        }

    def _sought(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Begin to search for the step that answers the gradient."""
        wanted = {"gradient": self._shape, "counts": (self.num_classes,), "stretch": (1,)}

        def fits(reply: Reply) -> object:
            return parts.expect(reply, wanted)

        whole = _total(parts.expect(reply, wanted) for reply in parts.fitting(replies, fits))
        if whole is None:
            return arrays
        weights = arrays["weights"]
        found = Terms(whole["gradient"], np.zeros(0), np.zeros(0), whole["counts"])
        search = conjugate.begin(-newton.gradient(weights, found, self.noise(arrays), self.penalty))
        state = arrays | {
            "counts": whole["counts"],
            "bound": np.array([_UNKNOWN]),
            "stretch": whole["stretch"],
            "goal": np.array([self.tolerance * np.linalg.norm(search.left)]),
        }
        return self._searching(state, search, _SLOPE)

    def _searching(self, arrays: Arrays, search: Search, done: int) -> Arrays:
        """Return the state of a search that has seen ``done`` products; solved, it is measured."""
        solved = np.linalg.norm(search.left) <= arrays["goal"][0]
        stage = _MEASURE if solved or done >= self.products else done + 1
        found = (search.solution, search.residual, search.direction)
        return arrays | dict(zip(_SEARCH, found, strict=True)) | {"stage": np.array([stage])}

    def _measured(self, arrays: Arrays, product: Array) -> Arrays:
        """Take the step that was found, with its bound."""
        moved = arrays["solution"]
        left = np.linalg.norm(arrays["residual"], axis=1)
        bound = newton.lean_bound(moved, product, float(arrays["stretch"][0]), left)
        state = self.rested(arrays | {"weights": arrays["weights"] + moved})
        return state | {"bound": np.array([bound])}


def _total(answers: Iterable[Arrays]) -> Arrays | None:
    """Return the sums of the clients' arrays by name; None without an answer."""
    whole: Arrays | None = None
    for found in answers:
        whole = found if whole is None else {n: whole[n] + array for n, array in found.items()}
    return whole

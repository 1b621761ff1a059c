"""Ridge regression as a federation learns it: one exchange of sums, kept by client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unlearning.arrays import Array, Arrays, frozen
from unlearning.models import parts, ridge
from unlearning.models.ridge import Sums
from unlearning.protocol import Instruction, Reply, Settings

__all__ = ["RidgeModel"]

_FIELDS = ("gram", "cross", "counts")


class RidgeModel:
    """Linear scores for each class, fitted to 1 for its examples and 0 for the others.

    State: ``weights`` (d, C), ``inverse`` (d, d), ``counts`` (C,), ``downdates`` (1,) since the
    last factorisation, and for each client ``gram``, ``cross`` and ``counts``. Clients are sent
    none of it.

    Parameters
    ----------
    width : int
        Features of an example; d is one more, for the constant.
    num_classes : int
        C.
    penalty : float
        Of the squared weights (lambda); positive.
    refactorise_every : int
        Inverse updates before the inverse is computed from the sums again; 0: always.
    """

    name = "ridge"

    def __init__(
        self, width: int, num_classes: int, penalty: float, refactorise_every: int
    ) -> None:
        if not penalty > 0 or refactorise_every < 0:
            raise ValueError(
                f"penalty = {penalty} must be positive, refactorise_every = {refactorise_every} "
                "0 or more"
            )
        self.width, self.num_classes = width + 1, num_classes
        self.penalty, self.refactorise_every = penalty, refactorise_every

    def initial(self) -> Arrays:
        """Return the state without any example."""
        return self._assembled({})

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the softmax of the scores, a class without examples left out."""
        return ridge.classify(arrays["weights"], arrays["counts"], ridge.design(x))

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask for the sums over all that a client holds."""
        return {client: self._instruction("retain") for client in clients}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Exchange the parts of those that answered and solve; the same again if none changed."""
        return self._assembled(parts.exchanged(arrays, replies, self._checked))

    def ask(self, arrays: Arrays, client: int) -> Instruction:
        """Ask for the sums over what the owner forgets."""
        return self._instruction("forget")

    def without(self, arrays: Arrays, gone: Collection[int], replies: Iterable[Reply]) -> Arrays:
        """Subtract; the inverse is updated by what was removed, or computed from the sums."""
        state, factors = parts.drop(arrays, gone), []
        for reply in replies:
            removed = self._checked(reply)
            left = {
                f: frozen(parts.field(arrays, reply.client, f) - removed[f], own=True)
                for f in _FIELDS
            }
            state = parts.drop(state, {reply.client})
            if left["counts"].any():
                state = parts.put(state, reply.client, left)
            factors.append(parts.expect(reply, {"factor": (None, self.width)})["factor"])
        updates = int(arrays["downdates"][0]) + 1
        small = sum(map(len, factors)) < self.width
        if gone or updates > self.refactorise_every or not small:
            return self._assembled(state)
        inverse = arrays["inverse"]
        for factor in factors:
            updated = ridge.woodbury(inverse, factor)
            if updated is None:
                return self._assembled(state)
            inverse = frozen(updated, own=True)
        return self._assembled(state, inverse, updates)

    def _assembled(self, state: Arrays, inverse: Array | None = None, updates: int = 0) -> Arrays:
        # What an owner keeps is not copied, hashed or added up again for another's request.
        own = {name: frozen(array) for name, array in state.items() if "/" in name}
        held = parts.clients(own)
        cross = np.zeros((self.width, self.num_classes))
        counts = np.zeros(self.num_classes, np.int64)
        for client in held:
            cross = cross + parts.field(own, client, "cross")
            counts = counts + parts.field(own, client, "counts")
        if inverse is None:
            gram = np.zeros((self.width, self.width))
            for client in held:
                gram += parts.field(own, client, "gram")
            whole = Sums(gram, cross, counts)
            inverse = frozen(ridge.inverse(whole, self.penalty), own=True)
            weights = ridge.solve(whole, self.penalty)
        else:
            weights = inverse @ cross
        return {
            "weights": weights,
            "inverse": frozen(inverse),
            "counts": counts,
            "downdates": np.array([updates]),
        } | own

    def _instruction(self, split: str) -> Instruction:
        settings: Settings = {"split": split, "num_classes": self.num_classes}
        return Instruction("ridge_sums", settings, arrays={}, answers="free")

    def _checked(self, reply: Reply) -> Arrays:
        d, c = self.width, self.num_classes
        gram, row = (reply.arrays.get(name) for name in ("gram", "factor"))
        if gram is not None and not gram.size and row is not None and row.shape == (1, d):
            # Of one example, which its factor is up to the sign.
            reply = replace(reply, arrays={**reply.arrays, "gram": row.T @ row})
        return parts.expect(reply, {"gram": (d, d), "cross": (d, c), "counts": (c,)})

"""Support vector machines as a federation learns them: local machines, averaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from unlearning.arrays import Array, Arrays, flat
from unlearning.models import parts, svm
from unlearning.protocol import Instruction, Reply, Settings

__all__ = ["SvmModel", "features_of"]


def features_of(x: Array, *, kernel: str, num_features: int, gamma: float, seed: int) -> svm.Floats:
    """Return the features in which the machines are linear, shape (n, D).

    ``linear``: the examples themselves; ``rbf``: random Fourier features.
    """
    rows = flat(x)
    return rows if kernel == "linear" else svm.fourier(rows, num_features, gamma, seed)


class SvmModel:
    """The example-weighted mean of the clients' machines, one per class against the rest.

    State: ``weights`` (C, D), ``bias`` (C,), ``counts`` (C,), and the same for each client beside
    its ``alpha`` (C, n_k), which is sent back to it when it has to forget. A client is sent nothing
    else.

    Parameters
    ----------
    width : int
        Features of an example.
    num_classes : int
        C; a client without examples of a class, or of this class alone, answers a constant.
    seed : int
        Of the random Fourier features, the same at all clients.
    kernel : str
        ``linear`` or ``rbf``.
    ceiling : float
        Largest weight of an example (the C of support vector machines).
    gamma : float
        Of the kernel exp(-gamma |x - x'|^2).
    num_features : int
        Random Fourier features (D).
    """

    name = "svm"

    def __init__(
        self,
        width: int,
        num_classes: int,
        seed: int,
        kernel: str,
        ceiling: float,
        gamma: float,
        num_features: int,
    ) -> None:
        if kernel not in ("linear", "rbf"):
            raise ValueError(f"kernel = {kernel!r} must be linear or rbf")
        if not ceiling > 0 or not gamma > 0 or num_features < 1:
            raise ValueError(
                f"ceiling = {ceiling}, gamma = {gamma} and features = {num_features} must be "
                "positive"
            )
        self.num_classes, self.seed, self.kernel = num_classes, seed, kernel
        self.ceiling, self.gamma, self.num_features = ceiling, gamma, num_features
        self.length = width if kernel == "linear" else num_features

    def initial(self) -> Arrays:
        """Return the state without any example."""
        return self._assembled({})

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the softmax of the margins, a class without examples left out."""
        if not arrays["counts"].any():
            return np.full((len(x), self.num_classes), 1 / self.num_classes)
        features = features_of(
            x,
            kernel=self.kernel,
            num_features=self.num_features,
            gamma=self.gamma,
            seed=self.seed,
        )
        scores = features @ arrays["weights"].T + arrays["bias"]
        scores = np.where(arrays["counts"] > 0, scores, -np.inf)
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(scores / scores.sum(1, keepdims=True))

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask every client for its own machines."""
        return {client: self._instruction({}) for client in clients}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Exchange the parts of those that answered and average; the same if none changed."""
        return self._assembled(parts.exchanged(arrays, replies, self._checked))

    def ask(self, arrays: Arrays, client: int) -> Instruction:
        """Ask an owner to unlearn from its own machines."""
        return self._instruction(
            {name: parts.field(arrays, client, name) for name in ("alpha", "bias")}
        )

    def without(self, arrays: Arrays, gone: Collection[int], replies: Iterable[Reply]) -> Arrays:
        """Exchange the parts and average again."""
        return self._assembled(parts.renewed(arrays, gone, replies, self._checked))

    def _assembled(self, state: Arrays) -> Arrays:
        weights = np.zeros((self.num_classes, self.length))
        bias, counts = np.zeros(self.num_classes), np.zeros(self.num_classes, np.int64)
        for client in parts.clients(state):
            number = parts.field(state, client, "counts")
            weights += parts.field(state, client, "weights") * number.sum()
            bias += parts.field(state, client, "bias") * number.sum()
            counts += number
        whole = max(1, int(counts.sum()))
        own = {name: array for name, array in state.items() if "/" in name}
        return {"weights": weights / whole, "bias": bias / whole, "counts": counts} | own

    def _instruction(self, known: Arrays) -> Instruction:
        settings: Settings = {
            "num_classes": self.num_classes,
            "kernel": self.kernel,
            "num_features": self.num_features,
            "gamma": self.gamma,
            "root": self.seed,
            "ceiling": self.ceiling,
        }
        return Instruction("local_svm", settings, arrays={}, extras=known, answers="free")

    def _checked(self, reply: Reply) -> Arrays:
        c = self.num_classes
        shapes: dict[str, tuple[int | None, ...]] = {
            "weights": (c, self.length),
            "bias": (c,),
            "counts": (c,),
            "alpha": (c, None),
        }
        return parts.expect(reply, shapes)

"""Subspace (SFU): the leaver's ascent, where the inputs of those who stay do not see it.

References
----------
Li G., Shen, Sun, Hu Y., Hu H., Tao, "Subspace based Federated Unlearning", TMLR 2026
(arXiv 2302.12448).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.local_model.trust import project, reach
from strategies.shares import Span
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["Subspace", "basis", "unseen"]

log = logging.getLogger("fedunlearn")

_MOMENT = "moment/"


def basis(moment: Array, energy: float) -> Array:
    """Return an orthonormal basis of the directions that hold a share of the inputs' energy.

    Parameters
    ----------
    moment : array
        ``(d, d)``, the sum of ``x x^T`` (uncentred).
    energy : float
        The share, from 0 to 1; 1: all directions that the inputs span.

    Returns
    -------
    array
        ``(d, k)``, float64, the fewest columns that hold it; none if there were no inputs.
    """
    symmetric = (moment.astype(np.float64) + moment.astype(np.float64).T) / 2
    values, vectors = np.linalg.eigh(symmetric)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    if not values[0] > 0:
        return np.zeros((len(moment), 0))
    rounding = values[0] * len(values) * np.finfo(np.float32).eps
    values = np.where(values > rounding, values, 0)
    reached = np.cumsum(values) / values.sum()
    wanted = min(energy, 1 - 1e-12)
    count = min(int(np.searchsorted(reached, wanted)) + 1, int((values > 0).sum()))
    found: Array = vectors[:, :count]
    return found


def unseen(step: Array, directions: Array) -> Array:
    """Return the part ``step (I - S S^T)`` of a layer's step that its usual inputs do not see.

    Parameters
    ----------
    step : array
        ``(outputs, d)``: weights, and the bias as the last column where there is one.
    directions : array
        ``(d, k)``, orthonormal columns (S).

    Examples
    --------
    >>> unseen(np.array([[1.0, 2.0]]), np.array([[1.0], [0.0]])).tolist()
    [[0.0, 2.0]]
    """
    rest: Array = step - (step @ directions) @ directions.T
    return rest


class Subspace(UnlearningStrategy):
    """The leaver climbs its loss; the server takes of that step what the others do not notice.

    Parameters
    ----------
    energy : float, default 0.95
        Share of the energy of a layer's inputs that is protected (epsilon). Our choice.
    examples : int, default 64
        Examples per client that inputs are taken from. Our choice.
    max_patches : int, default 4096
        Patches per convolution and client at most. Our choice.
    scale : float, default 1.0
        Times the step that is taken (eta). Our choice.
    ascent_rate : float, default 0.01
        Step of the ascent, as in ``gradient-ascent``.
    ascent_epochs : int, default 10
        Passes over the forget set, twice as many as in ``gradient-ascent``: of the way that they
        go a part is left. Our choice.
    ascent_momentum : float, default 0.9
        Momentum of the ascent.
    ascent_batch_size : int, default 128
        Examples per ascent step.
    clip : float, default 5.0
        Largest gradient norm. Our choice.
    trust : float, default 1.0
        The server goes no further than this multiple of its own distance from the initial model.
        0: no bound, as in reference programs.

    Attributes
    ----------
    separable : float
        Share of the last request's step, by length, that was left of it.

    Notes
    -----
    The leaver must help, once. Those who stay send sums of products of a layer's inputs and no
    input: those of the first layer are the examples themselves; the paper's random factors are left
    out, as with part of the energy they turn the subspace. Norm scales and layers of other kinds
    are left as they are. The paper's constants could not be read. Samples and classes are an
    extension: owners ascend on the forget set, and what they keep is protected.

    Where it fails: with a small CNN on CIFAR-10 half of a backdoor and more stays in three of six
    settings: what is left of the step is not enough there.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    asks_forgotten = True
    tunable: ClassVar[Mapping[str, Span]] = {
        "ascent_epochs": Span(1, 20, whole=True),
    }

    def __init__(
        self,
        *,
        energy: float = 0.95,
        examples: int = 64,
        max_patches: int = 4096,
        scale: float = 1.0,
        ascent_rate: float = 0.01,
        ascent_epochs: int = 10,
        ascent_momentum: float = 0.9,
        ascent_batch_size: int = 128,
        clip: float = 5.0,
        trust: float = 1.0,
    ) -> None:
        super().__init__()
        in_range("energy", energy, 0, 1)
        in_range("examples", examples, 1)
        in_range("max_patches", max_patches, 1)
        in_range("scale", scale, 0)
        in_range("ascent_rate", ascent_rate, 1e-12)
        in_range("ascent_epochs", ascent_epochs, 1)
        in_range("ascent_momentum", ascent_momentum, 0, 1)
        in_range("ascent_batch_size", ascent_batch_size, 1)
        in_range("clip", clip, 1e-12)
        in_range("trust", trust, 0)
        self.energy = energy
        self.examples = examples
        self.max_patches = max_patches
        self.scale = scale
        self.ascent_rate = ascent_rate
        self.ascent_epochs = ascent_epochs
        self.ascent_momentum = ascent_momentum
        self.ascent_batch_size = ascent_batch_size
        self.clip = clip
        self.trust = trust
        self.separable = 0.0
        self._holders: tuple[int, ...] = ()
        self._reach = 0.0
        self._bases: dict[str, Array] = {}

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Find the holders; a round that looks at inputs and one of ascent follow."""
        clients = self._roster.nodes if request.leavers else self.remaining
        self._holders = request.owners(clients)
        self._reach = reach(self.trust, self.federation, arrays)
        self._bases, self.separable = {}, 0.0
        return arrays, 2

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask those who stay what their layers see; then have the holders climb."""
        if server_round == 1:
            looks: dict[str, Scalar] = {"examples": self.examples, "max_patches": self.max_patches}
            return dict.fromkeys(self.remaining, Instruction("layer_inputs", looks, answers="free"))
        climbs: dict[str, Scalar] = {
            "ascent_rate": self.ascent_rate,
            "ascent_epochs": self.ascent_epochs,
            "momentum": self.ascent_momentum,
            "weight_decay": 0.0,
            "batch_size": self.ascent_batch_size,
            "clip": self.clip,
            "share": 0.0,
        }
        return dict.fromkeys(self._holders, Instruction("ascend", climbs))

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Find the directions that must not move; then take the holders' steps beside them."""
        if server_round == 1:
            self._bases = self._directions(arrays, replies)
            return arrays
        total: Arrays = {}
        for reply in replies:
            step = named.parameters(named.delta(arrays, reply.arrays))
            total = named.add(total, step) if total else step
        if not total:
            return arrays
        moved = self._beside(arrays, total)
        return project(arrays, moved, self._reach)

    def _directions(self, arrays: Arrays, replies: Iterable[Reply]) -> dict[str, Array]:
        sums: dict[str, Array] = {}
        heard = list(replies)
        forms = Counter(_form(reply.arrays) for reply in heard)
        usual = max(forms, key=lambda form: (forms[form], len(form)), default=frozenset())
        for reply in heard:
            found = {n.removeprefix(_MOMENT): a for n, a in reply.arrays.items()}
            sizes = {name: _widths(arrays, name) for name in found}
            odd = [n for n, a in found.items() if a.shape not in sizes[n]]
            if odd := odd or sorted(n for n, _ in usual ^ _form(reply.arrays)):
                log.warning(
                    "client %d was quarantined this round: what it says of the inputs of %r fits "
                    "no layer", reply.client, odd[0],
                )  # fmt: skip
                continue
            for name, moment in found.items():
                value = moment.astype(np.float64)
                known = sums.get(name)
                sums[name] = value if known is None or known.shape != value.shape else known + value
        return {name: basis(moment, self.energy) for name, moment in sums.items()}

    def _beside(self, arrays: Arrays, step: Arrays) -> Arrays:
        out, taken, whole = dict(arrays), 0.0, 0.0
        for name, directions in self._bases.items():
            weight, width = arrays[name], len(directions)
            rows = step[name].reshape(len(weight), -1).astype(np.float64)
            inputs, bias = rows.shape[1], _bias_of(name)
            if width > inputs:
                rows = np.concatenate([rows, step[bias].reshape(-1, 1)], axis=1)
            rest = unseen(rows, directions)
            whole, taken = whole + np.square(rows).sum(), taken + np.square(rest).sum()
            change = self.scale * rest
            out[name] = (weight + change[:, :inputs].reshape(weight.shape)).astype(weight.dtype)
            if width > inputs:
                out[bias] = (arrays[bias] + change[:, inputs]).astype(arrays[bias].dtype)
        self.separable = float(np.sqrt(taken / whole)) if whole else 0.0
        if whole and self.separable < 1e-3:
            raise FederationError(
                "Subspace: not separable: the inputs of those who stay see every direction of the "
                "leaver's step, so nothing would change; lower option 'energy' or take another "
                "strategy"
            )
        return out


def _bias_of(name: str) -> str:
    return f"{name.removesuffix('weight')}bias"


def _widths(arrays: Arrays, name: str) -> tuple[tuple[int, int], ...]:
    """Return the shapes that a layer's moment may have, without and with a bias."""
    weight = arrays.get(name)
    if weight is None or weight.ndim < 2 or not name.endswith("weight"):
        return ()
    width = int(np.prod(weight.shape[1:]))
    bias = arrays.get(_bias_of(name))
    both = bias is not None and bias.shape == weight.shape[:1]
    return ((width, width), (width + 1, width + 1))[: 1 + both]


def _form(arrays: Mapping[str, Array]) -> frozenset[tuple[str, str]]:
    """Return what an answer speaks of, and in which types."""
    return frozenset((name, str(array.dtype)) for name, array in arrays.items())

"""The leaver's kit: secret examples that tell their owner whether a model still holds them.

Before joining, a client draws secret templates, each with a secret label, and trains on noisy
copies of them beside its data. Decoys are drawn in the same way and never trained on. To a model
that never saw the templates, they are decoys like any other: the rank of their score among the
decoys' is uniform, whatever the model. So the test is exact, and needs neither other models nor
anyone's trust.

References
----------
Gao, Ma, Wang, Sun, Li, Ji, Cheng, Chen, "VeriFi: Towards Verifiable Federated Unlearning", IEEE
TDSC 2024 (arXiv 2205.12709): markers that the leaver checks. Zhang, Chen, Shen, Li, "Verification
of Machine Unlearning is Fragile", ICML 2024 (arXiv 2408.00929): what such a check cannot show.
Phipson, Smyth, "Permutation P-values Should Never Be Zero", 2010: the p-value of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "LIMITS", "MarkerPack", "Reading", "Standing", "draw", "judge", "read"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

ALPHA = 0.01  # chance of calling a model that never saw the templates one that did
LIMITS = (
    "The templates can be gone while other data of yours are not, and a server that knows which "
    "examples are markers can remove just those (Zhang et al., ICML 2024). A marker that is no "
    "longer visible is consistent with forgetting; it proves none."
)

_DECOYS = 199  # so that the second largest of 200 is at ALPHA
_COPIES = 10  # noisy copies of a template that a model is asked about
_NOISE = 0.1  # standard deviation, in ranges of the feature
_RESAMPLES = 1000
_FORMS, _MARKED, _ASKED, _RESAMPLED = 1, 2, 3, 4  # last part of the addresses of the randomness
_TINY = float(np.finfo(np.float32).tiny)


class Standing(StrEnum):
    """What the owner may conclude."""

    STILL_THERE = "still there"
    NOT_VISIBLE = "no longer visible"
    NO_POWER = "no power"
    UNKNOWN_POWER = "not visible, power unknown"


@dataclass(frozen=True)
class MarkerPack:
    """What only the owner of the marked examples knows.

    Parameters
    ----------
    seed : int
        Root of everything drawn; at least 64 secret bits.
    low, high : ndarray of shape input_shape
        Smallest and largest value of every feature, as the model sees them.
    num_classes : int
        Labels are 0 to ``num_classes - 1``.
    templates : int
        How many secret templates.
    count : int
        How many marked examples.
    """

    seed: int
    low: Floats
    high: Floats
    num_classes: int
    templates: int
    count: int

    def __post_init__(self) -> None:
        """Refuse what could not tell anything."""
        if not 1 <= self.templates <= self.count:
            raise ValueError(f"{self.count} examples of {self.templates} templates; need one each")
        if self.num_classes < 2:
            raise ValueError(f"{self.num_classes} classes; need two or more")
        if self.low.shape != self.high.shape or not (self.high > self.low).any():
            raise ValueError("low and high must have one shape and differ somewhere")

    def marked(self) -> tuple[Floats, Integers]:
        """Return the examples to train on, ``(count, ...)``, and their labels."""
        which = np.arange(self.count) % self.templates
        forms, labels = self._drawn(0)
        generator = np.random.default_rng([self.seed, 0, _MARKED])
        return self._noisy(forms[which], generator), labels[which]

    def questions(self) -> tuple[Floats, Integers]:
        """Return what to ask a model: fresh copies of the templates, then of every decoy's.

        Returns
        -------
        tuple
            Inputs ``(n, ...)`` and the labels to look at ``(n,)``; n is 200 times ``templates``
            times 10.
        """
        parts = [self._asked(number) for number in range(_DECOYS + 1)]
        inputs, labels = zip(*parts, strict=True)
        return np.concatenate(inputs), np.concatenate(labels)

    def labels(self) -> Integers:
        """Return the labels of :meth:`questions` alone, which takes no noise to be drawn."""
        return np.concatenate(
            [np.repeat(self._drawn(number)[1], _COPIES) for number in range(_DECOYS + 1)]
        )

    def _drawn(self, number: int) -> tuple[Floats, Integers]:
        """Return a set of templates with their labels; 0 is the secret one, the rest are decoys."""
        generator = np.random.default_rng([self.seed, number, _FORMS])
        shape = (self.templates, *self.low.shape)
        forms = np.where(generator.integers(2, size=shape) == 1, self.high, self.low)
        labels = generator.integers(self.num_classes, size=self.templates)
        return forms.astype(np.float32), labels

    def _asked(self, number: int) -> tuple[Floats, Integers]:
        forms, labels = self._drawn(number)
        which = np.repeat(np.arange(self.templates), _COPIES)
        generator = np.random.default_rng([self.seed, number, _ASKED])
        return self._noisy(forms[which], generator), labels[which]

    def _noisy(self, forms: Floats, generator: np.random.Generator) -> Floats:
        noise = generator.normal(scale=_NOISE, size=forms.shape) * (self.high - self.low)
        return np.clip(forms + noise, self.low, self.high).astype(np.float32)


@dataclass(frozen=True)
class Reading:
    """What a model says about the templates, beside what it says about decoys.

    Parameters
    ----------
    score : float
        Mean ``log p`` of the secret labels, in nats.
    decoys : tuple of float
        The same for every set of decoys.
    p_value : float
        Share of sets, the secret one among them, that score at least as high; uniform for a model
        that never saw the templates.
    power : float
        Share of resamples of the secret templates whose score would be significant.
    """

    score: float
    decoys: tuple[float, ...]
    p_value: float
    power: float

    @property
    def visible(self) -> bool:
        """Whether the templates stand out from the decoys at :data:`ALPHA`."""
        return self.p_value <= ALPHA


def draw(
    x: Floats, num_classes: int, *, seed: int, count: int = 140, templates: int = 7
) -> MarkerPack:
    """Return a pack that fits a client's data.

    Parameters
    ----------
    x : ndarray of shape (n, ...)
        The client's training inputs, as the model sees them; their ranges are kept, nothing else.
    num_classes : int
        Number of classes.
    seed : int
        Secret.
    count : int, default 140
        Examples to train on.
    templates : int, default 7
        Each with a label of its own; with few, a label that a model favours anyway tells little.

    Raises
    ------
    ValueError
        If there is no example, or no feature varies, or the numbers do not fit.
    """
    inputs = np.asarray(x, dtype=np.float32)
    if inputs.ndim < 2 or not len(inputs) or not np.isfinite(inputs).all():
        raise ValueError(f"inputs have shape {inputs.shape}; need finite (n, ...) with n >= 1")
    low, high = inputs.min(axis=0), inputs.max(axis=0)
    return MarkerPack(seed, low, high, num_classes, templates, count)


def read(pack: MarkerPack, probabilities: Floats) -> Reading:
    """Return what a model's answers to the questions say.

    Parameters
    ----------
    pack : MarkerPack
        Whose questions were asked.
    probabilities : ndarray of shape (n, C)
        Softmax outputs, in the order of :meth:`MarkerPack.questions`.

    Raises
    ------
    ValueError
        If the shape is another, or a value is no probability.
    """
    labels = pack.labels()
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.shape != (len(labels), pack.num_classes):
        raise ValueError(
            f"probabilities have shape {rows.shape}, expected {(len(labels), pack.num_classes)}"
        )
    if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1 + 1e-6):
        raise ValueError("probabilities must lie between 0 and 1; pass softmax outputs")
    logs = np.log(np.maximum(rows[np.arange(len(labels)), labels], _TINY))
    by_template = logs.reshape(_DECOYS + 1, pack.templates, _COPIES).mean(axis=2)
    score, *decoys = by_template.mean(axis=1).tolist()
    generator = np.random.default_rng([pack.seed, 0, _RESAMPLED])
    picks = generator.integers(pack.templates, size=(_RESAMPLES, pack.templates))
    again = by_template[0][picks].mean(axis=1)
    return Reading(
        score,
        tuple(decoys),
        float(_p_values(np.array([score]), decoys)[0]),
        float(np.mean(_p_values(again, decoys) <= ALPHA)),
    )


def _p_values(scores: NDArray[np.float64], decoys: Sequence[float]) -> NDArray[np.float64]:
    at_least = (np.asarray(decoys) >= scores[:, None]).sum(axis=1)
    return np.asarray((1 + at_least) / (1 + len(decoys)), np.float64)


def judge(after: Reading, before: Reading | None = None) -> Standing:
    """Return what may be concluded from the model after a request, and one from before it.

    Parameters
    ----------
    after : Reading
        Of the model that is said to have forgotten.
    before : Reading or None
        Of a model that the client got while it took part; without it nobody can say whether the
        templates were ever learned.
    """
    if after.visible:
        return Standing.STILL_THERE
    if before is None:
        return Standing.UNKNOWN_POWER
    return Standing.NOT_VISIBLE if before.visible else Standing.NO_POWER

"""How fast comes it back? Relearning steps and the anamnesis index (M10).

References
----------
V. S. Chundawat, A. K. Tarun, M. Mandal, M. Kankanhalli: Zero-Shot Machine Unlearning. IEEE TIFS
18, 2023. arXiv:2201.05629. (The anamnesis index.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearning.evaluation.entry import Metric

__all__ = ["ALPHA", "METRICS", "anamnesis_index", "relearn_steps"]

ALPHA = 0.05  # loss this much above the original's counts as relearned

METRICS = (
    Metric(
        "M10",
        "anamnesis-index",
        "Anamnesis index: relearning steps over the retrained model's",
        "ratio",
        "1; above 1 is suspicious too (the model avoids the data)",
        "lower",
        "Chundawat et al. 2023, arXiv:2201.05629",
    ),
)


def relearn_steps(
    losses: Sequence[float], original: float, alpha: float = ALPHA, *, every: int = 1
) -> float | None:
    """Return after how many steps the loss on the forget set is back near the original's.

    Defined on the loss: marked examples may never change the predicted class, and steps to an
    accuracy are then 0 or infinite for all models alike.

    Parameters
    ----------
    losses : sequence of float
        Mean loss on the forget set before the first step and after every ``every`` steps of
        ordinary training with it, nats.
    original : float
        Mean loss of the original model, nats.
    alpha : float
        Relearned means ``loss <= (1 + alpha) original``.
    every : int
        Steps between two losses.

    Returns
    -------
    float or None
        Steps, with a straight line between two measured losses; 0 where the model never lost it;
        None where the curve ends above the threshold.

    Raises
    ------
    ValueError
        If there is no loss, one is not finite, or ``original`` is negative.
    """
    curve = np.asarray(losses, dtype=np.float64)
    if not curve.size or not np.isfinite(curve).all() or not original >= 0 or every < 1:
        raise ValueError(f"{curve.size} losses, original {original}: expected finite losses")
    threshold = (1 + alpha) * original
    reached = np.flatnonzero(curve <= threshold)
    if not reached.size:
        return None
    first = int(reached[0])
    if first == 0:
        return 0.0
    before, after = curve[first - 1], curve[first]
    return float(every * (first - 1 + (before - threshold) / (before - after)))


def anamnesis_index(steps: float | None, reference: float | None) -> float | None:
    """Return the anamnesis index ``r(theta_u) / r(theta_r)`` (M10).

    Parameters
    ----------
    steps, reference : float or None
        :func:`relearn_steps` of the unlearned and of the retrained model.

    Returns
    -------
    float or None
        1: relearns as slowly as a model that never knew; 0: never forgot. None where either
        never got there, or the retrained model is there without a step: the forget set is then
        no harder than the rest, and the index has no power.
    """
    if steps is None or reference is None or reference <= 0:
        return None
    return steps / reference

"""What forgetting costs, and against what the saving may be quoted (M16)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearning.cost import speedup
from unlearning.evaluation.entry import Metric
from unlearning.evaluation.scorecard import Verdict

__all__ = ["METRICS", "earned_speedup"]

METRICS = (
    Metric(
        "M16",
        "speedup",
        "Speed-up against retraining, quoted only where the strategy forgot",
        "ratio",
        "larger is better",
        None,
        "Liu et al. 2021, arXiv:2012.13891",
    ),
)


def earned_speedup(
    reference: Sequence[float], ours: Sequence[float], verdict: Verdict | None
) -> float | None:
    """Return the speed-up against retraining, or None unless the strategy forgot (M16).

    Mean over seeds over mean over seeds: a mean of ratios would let one lucky seed lead. A method
    that did not forget is not a faster way of forgetting.

    Parameters
    ----------
    reference, ours : sequence of float
        Cost of retraining and of the strategy, one per seed, in the same unit.
    verdict : Verdict or None
        What M3 and M5 say of the strategy; None: nothing may be said.

    Returns
    -------
    float or None
        Above 1: cheaper than retraining. None also where nothing was spent.

    Raises
    ------
    ValueError
        If there is no seed.
    """
    if not len(reference) or not len(ours):
        raise ValueError("no cost to compare")
    if verdict is not Verdict.FORGOTTEN:
        return None
    return speedup(float(np.mean(reference)), float(np.mean(ours)))

"""What forgetting costs, and against what the saving may be quoted (M16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from unlearning.cost import Cost, speedup
from unlearning.evaluation.entry import Metric
from unlearning.evaluation.scorecard import Verdict

__all__ = ["METRICS", "Bill", "earned_speedup"]

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


@dataclass(frozen=True)
class Bill:
    """Everything that one request cost, and what readiness for it cost before.

    Parameters
    ----------
    cost : Cost
        Unlearning and recovery together.
    participants : int
        Different clients that had to take part.
    history_bytes : int
        What was kept since training so that the request could be served.
    recording_s : float
        Seconds that keeping it added to training.
    peak_rss_bytes : int or None
        Largest resident memory; None where not measured.
    """

    cost: Cost
    participants: int
    history_bytes: int
    recording_s: float = 0.0
    peak_rss_bytes: int | None = None

    def to_json(self) -> dict[str, float | None]:
        """Return the figures by name, those of the cost among them."""
        rest = {key: value for key, value in asdict(self).items() if key != "cost"}
        return {**self.cost.to_json(), **rest}


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

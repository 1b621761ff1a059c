"""When training no longer helps: one rule for retraining and for every recovery.

References
----------
Prechelt, "Early Stopping - But When?", in: Neural Networks: Tricks of the Trade, 1998. A comparison
in which only the unlearning method may stop early inflates its speed-up over retraining.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["has_settled"]


def has_settled(losses: Sequence[float], patience: int, min_delta: float) -> bool:
    """Return whether the loss of the last rounds is no better than what was there before.

    Parameters
    ----------
    losses : sequence of float
        Mean training loss of each round since training began, in nats, oldest first.
    patience : int
        Rounds that may pass without progress; 0: training never stops early.
    min_delta : float
        Relative fall of the loss that counts as progress, [0, 1).

    Returns
    -------
    bool
        True if the best of the last ``patience`` rounds is not below ``1 - min_delta`` times the
        best before them. False while there are no more than ``patience`` rounds.
    """
    if not patience or len(losses) <= patience:
        return False
    return min(losses[-patience:]) > (1 - min_delta) * min(losses[:-patience])

"""When a federation is back where it was: one rule for retraining and for every recovery.

A comparison in which only the unlearning method may stop early inflates its speed-up, so the rule
knows no algorithm: it looks at the loss that clients report while they train, and at what the same
clients reported in the last round before the request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["has_recovered", "mean_over"]

Losses = Mapping[int, tuple[float, int]]  # client -> mean training loss in nats, its examples


def mean_over(losses: Losses, clients: Collection[int]) -> float | None:
    """Return the example-weighted mean loss of some clients, in nats.

    Parameters
    ----------
    losses : mapping of int to (float, int)
        Client id to mean training loss and number of examples.
    clients : collection of int
        Those that count; whoever reported nothing is left out.

    Returns
    -------
    float or None
        None if none of them reported a loss on any example.
    """
    found = [losses[client] for client in clients if client in losses]
    weight = sum(count for _, count in found)
    return sum(loss * count for loss, count in found) / weight if weight else None


def has_recovered(loss: float | None, before: float | None, tolerance: float | None) -> bool:
    """Return whether a loss is back at the level that it had before the request.

    Parameters
    ----------
    loss : float or None
        Of the last round, in nats; None: not known.
    before : float or None
        Of the last round before the request; None: not known.
    tolerance : float or None
        Relative excess that still counts as back; None: the rule is off.

    Returns
    -------
    bool
        False where anything is not known: the budget of rounds is then used.
    """
    if loss is None or before is None or tolerance is None:
        return False
    return loss <= (1 + tolerance) * before

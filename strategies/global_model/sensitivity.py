"""How much a model rests on some clients, and the noise that covers it.

References
----------
Fraboni, Van Waerebeke, Scaman, Vidal, Kameni, Lorenzi, "SIFU: Sequential Informed Federated
Unlearning", AISTATS 2024 (arXiv 2211.11656).
Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy: Analytical Calibration and
Optimal Denoising", ICML 2018 (arXiv 1805.06530), for the delta that is really reached.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from strategies.global_model.fed_recovery import residual
from unlearning import arrays as named
from unlearning.records.history import History

__all__ = ["RULES", "bound", "delta_of", "increment", "sigma_of", "threshold"]

RULES = ("auto", "max", "set", "safe")

_JOINT = -1  # the forgotten taken together, where single ones have their ids

Scalars = Mapping[int, tuple[float, float]]  # client -> (weight, distance from the mean)


def threshold(epsilon: float, delta: float, sigma: float) -> float:
    """Return the sensitivity that noise ``sigma`` covers (Psi*), by the paper's formula."""
    return epsilon * sigma / math.sqrt(2 * (math.log(1.25) - math.log(delta)))


def sigma_of(epsilon: float, delta: float, sensitivity: float) -> float:
    """Return the noise that covers a sensitivity; the inverse of :func:`threshold`."""
    return sensitivity * math.sqrt(2 * (math.log(1.25) - math.log(delta))) / epsilon


def delta_of(epsilon: float, sigma: float, sensitivity: float) -> float:
    """Return the smallest delta that noise ``sigma`` reaches, exactly, for every epsilon.

    The formula of :func:`threshold` is proven for epsilon up to 1 and promises too much beyond.
    """
    if not sensitivity:
        return 0.0
    if not sigma:
        return 1.0
    half, shift = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return max(0.0, _below(half - shift) - math.exp(epsilon) * _below(-half - shift))


def _below(x: float) -> float:
    """Return the probability that a standard normal variable is below ``x``."""
    return math.erfc(-x / math.sqrt(2)) / 2


def bound(scalars: Scalars, gone: Collection[int], rule: str) -> dict[int, float]:
    """Return by how much leaving clients out could have changed a round's mean update.

    Parameters
    ----------
    scalars : mapping of int to (float, float)
        Of each participant its weight p and the L2 distance of its update from the mean.
    gone : collection of int
        The clients left out.
    rule : {"max", "safe"}
        ``max``: p / (1 - p) distance for each of them alone, as the paper; it does not bound what
        leaving out all of them changes. ``safe``: for all of them together, from the triangle
        inequality, sum(p distance) / (1 - sum(p)).

    Returns
    -------
    dict
        Length by client, or by -1 for all together; empty if none of them took part, infinite if
        nobody else did.
    """
    there = {client: scalars[client] for client in gone if client in scalars}
    if not there:
        return {}
    others = sum(p for client, (p, _) in scalars.items() if client not in there)
    if others <= 0:
        return dict.fromkeys(there if rule == "max" else [_JOINT], math.inf)
    if rule == "max":
        return {client: p / (1 - p) * distance for client, (p, distance) in there.items()}
    share = sum(p for p, _ in there.values())
    return {_JOINT: sum(p * distance for p, distance in there.values()) / (1 - share)}


def increment(history: History, t: int, gone: Collection[int], rule: str) -> dict[int, float]:
    """Return the sensitivity of one recorded round to clients (psi).

    Parameters
    ----------
    history : History
        With sensitivities, and with updates if the rule is to use them.
    t : int
        The round.
    gone : collection of int
        The clients left out.
    rule : str
        As in :func:`bound`; or ``set``, the length of what all of them together really changed,
        where every update of the round is there, else ``safe``; or ``auto``: ``set``.

    Returns
    -------
    dict
        As :func:`bound`; of a model of several parts the length over all of them. A part that the
        forgotten trained alone is infinite from scalars, and what they made of it by ``set``.
    """
    scalars = history.sensitivities(t)
    found: dict[int, float] = {}
    for part in history.sensitivities_by_part(t).values():
        for client, length in bound(part, gone, "max" if rule == "max" else "safe").items():
            found[client] = math.hypot(found.get(client, 0.0), length)
    complete = math.isclose(sum(p for p, _ in scalars.values()), 1.0)  # nobody was purged
    exact = rule in ("set", "auto") and "updates" in history.keep and t in history.stored_rounds
    alone = scalars.keys() <= set(gone)  # then nobody could have made the round without them
    if alone or not (exact and complete and found):
        return found
    counts = history.examples(t)
    answers = ((client, count, history.update(t, client)) for client, count in counts.items())
    changed = residual(answers, gone)
    return found if changed is None else {_JOINT: named.norm(changed[1])}

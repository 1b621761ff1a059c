"""What a server can see in an answer before it publishes it: who loses, how far, which triggers.

All of it needs no data of the clients, only a few labelled canaries of the server's own.

References
----------
Chen et al., "FedMUA: Exploring the Vulnerabilities of Federated Learning to Malicious Unlearning
Attacks", 2025 (arXiv 2501.11848): requests that take the accuracy of a class down.
Lu et al., "BadFU: Backdoor Federated Learning through Adversarial Machine Unlearning", 2025 (arXiv
2508.15541): a backdoor that unlearning its camouflage wakes up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from unlearning import arrays as named
from unlearning.arrays import Array, Arrays

__all__ = ["bound_step", "class_accuracies", "class_falls", "largest_fall", "trigger_rates"]


def class_accuracies(predicted: Array, labels: Array) -> dict[int, float]:
    """Return the accuracy of every class that has an example, [0, 1].

    >>> class_accuracies(np.array([0, 1, 1]), np.array([0, 0, 1]))
    {0: 0.5, 1: 1.0}
    """
    return {
        int(label): float((predicted[labels == label] == label).mean())
        for label in np.unique(labels)
    }


def class_falls(before: Array, after: Array, labels: Array) -> dict[int, float]:
    """Return how far the accuracy of every class fell, [-1, 1]; negative: it rose.

    Parameters
    ----------
    before, after : array of int, shape (n,)
        Labels that two models give the canaries.
    labels : array of int, shape (n,)
        True labels; a class without a canary is left out.
    """
    then, now = class_accuracies(before, labels), class_accuracies(after, labels)
    return {label: then[label] - now[label] for label in then}


def largest_fall(falls: Mapping[int, float], excused: Collection[int] = ()) -> tuple[int, float]:
    """Return the class that fell farthest, and how far, those left out that were asked for.

    Returns
    -------
    tuple
        (-1, 0.0) where no class is left.
    """
    rest = {label: fall for label, fall in falls.items() if label not in excused}
    worst = max(rest, key=lambda label: (rest[label], -label), default=-1)
    return worst, rest.get(worst, 0.0)


def bound_step(before: Arrays, after: Arrays, limit: float) -> tuple[Arrays, float]:
    """Return an answer no farther from the model before than a limit, and how far it wanted to go.

    Parameters
    ----------
    before, after : Arrays
        Models with the same names and shapes.
    limit : float
        L2 distance as a share of the length of ``before``, both over the parameters.

    Returns
    -------
    tuple
        The answer itself if it lies within; the distance it had, as the same share (infinite from
        a model of length 0).

    Notes
    -----
    A bounded answer is no longer the one that an exact or certified method gave: apply it to
    approximate ones alone. Buffers are those of ``after``.
    """
    step, length = named.delta(before, after), named.norm(before)
    distance = named.norm(step)
    share = distance / length if length else float("inf") if distance else 0.0
    if share <= limit:
        return after, share
    return named.apply_update(before, named.scale(step, limit / share)), share


def trigger_rates(predicted: Array, labels: Array, num_classes: int) -> NDArray[np.float64]:
    """Return how often triggers lead canaries of other classes to a class.

    Parameters
    ----------
    predicted : array of int, shape (num_triggers, n)
        What a model says about the canaries under each trigger.
    labels : array of int, shape (n,)
        Their true labels.
    num_classes : int
        Number of classes.

    Returns
    -------
    array, shape (num_triggers, num_classes)
        Shares of the canaries of other classes, [0, 1]; 0 where there are none.
    """
    rates = np.zeros((len(predicted), num_classes))
    for target in range(num_classes):
        others = labels != target
        if others.any():
            rates[:, target] = (predicted[:, others] == target).mean(axis=1)
    return rates

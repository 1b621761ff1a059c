"""How far the server lets those who hold the forget set move the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from strategies.federation import Federation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Reply

__all__ = ["mean_within", "parameters_within", "project", "reach"]

log = logging.getLogger("fedunlearn")


def project(centre: Arrays, point: Arrays, radius: float) -> Arrays:
    """Return ``point``, pulled back onto the L2 ball around ``centre`` if it lies outside.

    Parameters
    ----------
    centre, point : Arrays
        Models with the same names and shapes.
    radius : float
        L2, over the parameters; buffers are those of ``point``.
    """
    step = named.delta(centre, point)
    distance = named.norm(step)
    if distance <= radius:
        return point
    return named.apply_update(centre, named.scale(step, radius / distance))


def reach(trust: float, federation: Federation, arrays: Arrays) -> float:
    """Return the radius of the ball around a model that an answer is pulled back into.

    Parameters
    ----------
    trust : float
        Multiple of what the model has learned: its L2 distance from the initial model. 0: no bound.
    federation : Federation
        Of a model that was trained elsewhere nobody knows the initial one; the model's own length
        stands for the distance then. Measured from the model that the run began with it would be 0.
    arrays : Arrays
        The model.
    """
    if not trust:
        return float("inf")
    if federation.foreign:
        learned = named.norm(arrays)
    else:
        learned = named.norm(named.delta(federation.history.initial, arrays))
    if not learned:
        log.warning("the model has learned nothing yet, so no answer may move it")
    return trust * learned


def mean_within(arrays: Arrays, replies: Iterable[Reply], radius: float) -> Arrays:
    """Return the example-weighted mean of models, each kept within ``radius`` of ``arrays``."""
    mean = named.weighted_mean(
        (reply.num_examples, project(arrays, reply.arrays, radius)) for reply in replies
    )
    return {name: mean[name].astype(array.dtype) for name, array in arrays.items()}


def parameters_within(arrays: Arrays, replies: Iterable[Reply], radius: float) -> Arrays:
    """Return :func:`mean_within` with the buffers of ``arrays``, which answer nothing."""
    mean = mean_within(arrays, replies, radius)
    return {name: a if named.is_buffer(name, a) else mean[name] for name, a in arrays.items()}

"""Normalisation statistics after a server has edited the weights they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.protocol import Reply

__all__ = ["has_statistics", "with_statistics"]


def has_statistics(arrays: Mapping[str, Array]) -> bool:
    """Return whether a model keeps statistics of the data (float buffers)."""
    return any(
        named.is_buffer(name, array) and np.issubdtype(array.dtype, np.floating)
        for name, array in arrays.items()
    )


def with_statistics(arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
    """Return the model with its buffers replaced by the weighted mean of those of the clients.

    Parameters
    ----------
    arrays : Arrays
        The model; its parameters stay bit for bit, whatever a client answered.
    replies : iterable of Reply
        Of the step ``statistics``.
    """
    mean = named.weighted_mean(
        (reply.num_examples, {n: a for n, a in reply.arrays.items() if named.is_buffer(n, a)})
        for reply in replies
    )
    return {
        name: mean[name].astype(array.dtype) if name in mean else array
        for name, array in arrays.items()
    }

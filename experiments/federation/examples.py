"""Sets of examples: of a client, of a judge, with a backdoor's patch, with planted noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClientData", "Examples", "PlantedNoise", "TriggeredExamples"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Examples(NamedTuple):
    """Examples ``x`` of shape (n, ...) and labels ``y`` of shape (n,); n may be 0."""

    x: Floats
    y: Integers


class TriggeredExamples(NamedTuple):
    """Test examples with the backdoor's patch, their true labels, and where it leads to.

    That is one label, or one for every example.
    """

    x: Floats
    y: Integers
    target: int | Integers


class PlantedNoise(NamedTuple):
    """Training examples as they were before noise was added, their labels, and that noise."""

    x: Floats
    y: Integers
    noise: Floats


class ClientData(NamedTuple):
    """What one client trains on and what it never trains on."""

    train_x: Floats
    train_y: Integers
    held_x: Floats
    held_y: Integers

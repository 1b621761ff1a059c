"""How often the initial model of a history is read: each time it is unpacked as a whole."""

from __future__ import annotations

import pytest

from unlearning.arrays import Arrays
from unlearning.records.past import Past

__all__ = ["initial_readings"]


def initial_readings(patch: pytest.MonkeyPatch) -> list[Past]:
    """Return a list to which every reading from now on adds the history that is read."""
    read, readings = Past.initial.fget, list[Past]()
    assert read is not None

    def noting(history: Past) -> Arrays:
        readings.append(history)
        found: Arrays = read(history)
        return found

    patch.setattr(Past, "initial", property(noting))
    return readings

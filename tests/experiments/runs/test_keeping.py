"""Keeping: what is read is what was written, and damage is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.runs.details import Point
from experiments.runs.keeping import Keeper, KeepingError
from unlearning.cost import Cost

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)
KEEPER = Keeper([Cost, Point])


@given(PLAIN)
def test_plain_values_come_back_with_their_types(value: object) -> None:
    found = KEEPER.from_bytes(KEEPER.to_bytes(value))
    assert found == value
    assert repr(found) == repr(value)


def test_arrays_and_named_kinds_come_back() -> None:
    point = Point(strategy="a", seed=0, phase="learn", round=1, wall_s=0.5)
    value = {"x": [np.arange(6, dtype=np.float32).reshape(2, 3).T], "c": (Cost(wall_s=2.0), point)}
    found = KEEPER.from_bytes(KEEPER.to_bytes(value))
    assert found["c"] == value["c"]
    assert np.array_equal(found["x"][0], value["x"][0])
    assert found["x"][0].dtype == np.float32
    assert KEEPER.from_bytes(KEEPER.to_bytes({3, 1})) == {1, 3}
    assert math.isnan(KEEPER.from_bytes(KEEPER.to_bytes(float("nan"))))


def test_what_is_not_named_or_damaged_is_told() -> None:
    with pytest.raises(KeepingError, match="of kind object"):
        KEEPER.to_bytes([object()])
    data = KEEPER.to_bytes({"c": Cost()})
    with pytest.raises(KeepingError, match="cannot be read"):
        Keeper([]).from_bytes(data)
    for broken in (b"", data[:20], data.replace(b"Cost", b"Cast")):
        with pytest.raises(KeepingError, match="cannot be read"):
            KEEPER.from_bytes(broken)

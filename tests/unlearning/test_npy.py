"""Bytes of single arrays: NumPy's own, byte for byte, and nothing else is read."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

from unlearning.npy import decoded, encoded

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "slice": np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::3],
    "scalar": np.array(7, np.int64),
    "nothing": np.zeros((0, 3), np.float16),
    "flags": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">f4"),
    "axes moved": np.moveaxis(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 0, 2),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_bytes_are_those_of_numpy_and_come_back(array: np.ndarray) -> None:
    stream = BytesIO()
    np.save(stream, array)
    assert encoded(array) == stream.getvalue()
    for _ in range(2):  # from the header, and from what is remembered of it
        found = decoded(stream.getvalue())
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable
        assert found.flags.owndata or found.size == 0 or found.base.flags.owndata


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no array at all",
        encoded(ARRAYS["matrix"])[:9],
        encoded(ARRAYS["matrix"])[:40],
        encoded(ARRAYS["matrix"])[:-1],
        encoded(ARRAYS["matrix"]) + b"x",
        encoded(ARRAYS["matrix"]) + bytes(4),
        encoded(ARRAYS["matrix"]).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
        encoded(ARRAYS["matrix"]).replace(b"<f4", b"|O8"),
        encoded(ARRAYS["matrix"]).replace(b"<f4", b"<c8"),
    ],
)
def test_what_is_not_exactly_one_numeric_array_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoded(data)


def test_only_numbers_are_written() -> None:
    with pytest.raises(ValueError, match="not numeric"):
        encoded(np.array(["a"]))

"""One array as the bytes that :func:`numpy.save` writes, and back, without parsing a header twice.

Messages carry arrays so. NumPy evaluates the header of every array as Python source, which costs
more than the array itself where models are small; a federation has a handful of different headers.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np

from unlearning.arrays import Array

__all__ = ["decoded", "encoded"]

_KINDS = "biuf"  # of NumPy: booleans, integers, unsigned ones, floats
_START = len(np.lib.format.magic(1, 0))
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}  # how a version writes the length of its header
_HEADERS = 256  # more than any model has; what clients invent must not pile up


def encoded(array: Array) -> bytes:
    """Return an array as :func:`numpy.save` writes it, byte for byte.

    Raises
    ------
    ValueError
        If it is not numeric.

    Examples
    --------
    >>> decoded(encoded(np.arange(3.0))).tolist()
    [0.0, 1.0, 2.0]
    """
    if array.dtype.kind not in _KINDS:
        raise ValueError(f"dtype {array.dtype} is not numeric")
    is_fortran = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    lying = np.ascontiguousarray(array.T if is_fortran else array)
    header = _header(array.dtype.str, is_fortran, array.shape)
    return b"".join((header, lying.reshape(-1).view(np.uint8).data))


@lru_cache(_HEADERS)
def _header(kind: str, is_fortran: bool, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    said = {"descr": kind, "fortran_order": is_fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, said)
    return stream.getvalue()


def decoded(data: bytes, *, copy: bool = True) -> Array:
    """Return the array that bytes hold: a copy that can be written to, or the bytes' own memory.

    Raises
    ------
    ValueError
        If they are not exactly one numeric array, as :func:`numpy.save` writes it.
    """
    version = _version(data[:_START])
    if version not in _LENGTHS:
        raise ValueError(f"array format {version} is unknown")
    length = _LENGTHS[version]
    begin = _START + struct.calcsize(length)
    if len(data) < begin:
        raise ValueError("the array ends in its header")
    end = begin + struct.unpack(length, data[_START:begin])[0]
    shape, is_fortran, dtype = _read(version, data[_START:end])
    if dtype.kind not in _KINDS:
        raise ValueError(f"dtype {dtype} is not numeric")
    # A header may promise any size: only the bytes that are there are looked at.
    values = np.frombuffer(data, dtype, offset=end)
    found = values.reshape(shape, order="F" if is_fortran else "C")
    return found.copy(order="K") if copy else found


@lru_cache(_HEADERS)
def _version(start: bytes) -> tuple[int, int]:
    return np.lib.format.read_magic(BytesIO(start))


@lru_cache(_HEADERS)
def _read(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read(BytesIO(header))
    return tuple(shape), bool(is_fortran), dtype

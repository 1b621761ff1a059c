"""Named arrays as the bytes of a safetensors file, and back: the one place that writes them.

Whatever the memory order, the rank or the byte order of an array, what is read is what was given.
The library writes an array's memory as it lies: one whose axes lie in another order (PyTorch's
``channels_last``, Fortran order, a slice) would come back with its values at other places.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from unlearning.arrays import Array, Arrays
from unlearning.errors import FedUnlearnError

__all__ = [
    "PackingError",
    "Piece",
    "metadata",
    "pack",
    "pieces",
    "unpack",
    "unpack_file",
    "unpacked_in_place",
]

Piece = bytes | bytearray | memoryview

# The names of the format. Other formats (BF16, F8_E4M3, ...) have no type in NumPy.
_TYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
}
# As the library orders arrays in a file: the widest first, so that each lies aligned.
_ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}
_KINDS = "biuf"  # of NumPy: booleans, integers, unsigned ones, floats
_WIDEST = 8  # bytes per value
_Form = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
_HEADERS = 64  # more forms than a federation has


class PackingError(FedUnlearnError, ValueError):
    """Arrays cannot be written, or bytes hold no arrays that can be read."""


def pack(
    arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None, *, again: bool = False
) -> bytes:
    """Return named arrays as the bytes of a safetensors file.

    Parameters
    ----------
    arrays : mapping of str to array
        Booleans, integers and floats of up to 8 bytes; any shape, 0-d included, in any order.
    metadata : mapping of str to str, optional
        Text to write beside them.
    again : bool
        More files of the same names, types and shapes will follow: where their arrays lie is worked
        out once and remembered.

    Raises
    ------
    PackingError
        If an array is of another type; it is named.

    Examples
    --------
    >>> import numpy as np
    >>> table = np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])
    >>> unpack(pack({"table": table, "count": np.array(7)}))["table"].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return b"".join(pieces(arrays, metadata, again=again))


def pieces(
    arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None, *, again: bool = False
) -> list[Piece]:
    """Return what :func:`pack` would join: the header, then the memory of the arrays as it lies.

    A large model is so written without a copy of it; the arrays must not change before.
    """
    lying = {name: _in_order(name, np.asarray(array)) for name, array in arrays.items()}
    form = tuple((name, array.dtype, array.shape) for name, array in lying.items())
    # Written here, as the library writes it: there a large model lies in memory once more.
    laid, names = _remembered(form) if again else _laid(form)
    if metadata is not None:  # not remembered: it may be another one each time
        beside = f'{{"__metadata__":{_text(dict(metadata))}'
        laid = f"{beside},{laid[1:]}" if form else f"{beside}}}"
    told = laid.encode()
    told += b" " * (-len(told) % 8)
    values = [lying[name].reshape(-1).view(np.uint8).data for name in names if lying[name].size]
    return [len(told).to_bytes(8, "little") + told, *values]


def _laid(form: _Form) -> tuple[str, tuple[str, ...]]:
    """Return where arrays lie in a file, and in which order."""
    kinds = {name: _NAMES[dtype.newbyteorder("=")] for name, dtype, _ in form}
    laid = sorted(form, key=lambda one: (_ORDER.index(kinds[one[0]]), one[0]))
    header: dict[str, object] = {}
    end = 0
    for name, dtype, shape in laid:
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": kinds[name], "shape": list(shape), "data_offsets": [begin, end]}
    return _text(header), tuple(name for name, _, _ in laid)


_remembered = lru_cache(_HEADERS)(_laid)


def _text(found: dict[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def _in_order(name: str, array: Array) -> Array:
    if array.dtype.kind not in _KINDS or array.dtype.itemsize > _WIDEST:
        raise PackingError(
            f"array {name!r} is {array.dtype}, which no file of arrays holds; make it float32"
        )
    if array.flags.c_contiguous and array.dtype.isnative and sys.byteorder == "little":
        return array
    # Not np.ascontiguousarray, which gives a 0-d array an axis.
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def unpack(data: bytes) -> Arrays:
    """Return the arrays that the bytes of a safetensors file hold.

    Raises
    ------
    PackingError
        If the bytes are damaged or no such file, or an array is of a type that NumPy has not.
    """
    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise PackingError(f"these are no safetensors: {error}") from error
    out: Arrays = {}
    for name, entry in sorted(found):
        if entry["dtype"] not in _TYPES:
            raise PackingError(
                f"array {name!r} is stored as {entry['dtype']}, a number format that NumPy has "
                "not; save it as float32, in PyTorch with tensor.float()"
            )
        kind = np.dtype(_TYPES[entry["dtype"]]).newbyteorder("<")
        values = np.frombuffer(entry["data"], kind) if len(entry["data"]) else np.empty(0, kind)
        out[name] = values.reshape(entry["shape"])
    return out


def unpacked_in_place(data: Piece) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays that :func:`pack` has written, in the memory of its bytes, and the text.

    No copy is made: while one array is there, all the bytes are. For bytes that are known to be
    what was written, as by their digest; a stranger's go through :func:`unpack`.

    Raises
    ------
    PackingError
        If they are not.
    """
    try:
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:begin]))
        told = {str(key): str(text) for key, text in header.pop("__metadata__", {}).items()}
        out: Arrays = {}
        for name, entry in sorted(header.items()):
            kind = np.dtype(_TYPES[entry["dtype"]]).newbyteorder("<")
            count, offset = math.prod(entry["shape"]), begin + entry["data_offsets"][0]
            values = np.frombuffer(data, kind, count, offset) if count else np.empty(0, kind)
            out[name] = values.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackingError(f"these are no safetensors: {error}") from error
    return out, told


def unpack_file(path: Path) -> Arrays:
    """Return the arrays of a safetensors file.

    Raises
    ------
    OSError
        If there is no file that can be read.
    PackingError
        As :func:`unpack`.
    """
    return unpack(path.read_bytes())


def metadata(data: bytes) -> dict[str, str]:
    """Return the text that lies beside the arrays in the bytes of a safetensors file.

    Raises
    ------
    PackingError
        If the bytes have no such header.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        return {str(key): str(text) for key, text in header.get("__metadata__", {}).items()}
    except (ValueError, AttributeError) as error:
        raise PackingError(f"these are no safetensors: {error}") from error

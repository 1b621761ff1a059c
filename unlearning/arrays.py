"""Named arrays and their arithmetic.

A model, an update or a gradient is a mapping from tensor name to NumPy array. Three kinds of
entries live in it: *parameters* (floating point, trained), *float buffers* (BatchNorm statistics:
averaged as state, never scaled, ascended or negated) and *integer buffers* (counters: copied).
Which floating-point names are buffers is told by :func:`is_buffer`.

Sums run in float64 and in the order given, so that equal inputs give equal bits.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Arrays",
    "add",
    "apply_update",
    "combine_pairs",
    "content_of",
    "copy",
    "delta",
    "difference",
    "digest",
    "dot",
    "fingerprint",
    "flat",
    "frozen",
    "is_buffer",
    "is_finite",
    "is_parameter",
    "is_same",
    "known",
    "marked",
    "mismatch",
    "nbytes",
    "norm",
    "norms",
    "not_finite",
    "parameters",
    "plain",
    "plus",
    "scale",
    "subtract",
    "weighted_mean",
    "weighted_sum",
]

Array = NDArray[Any]
Arrays = dict[str, Array]
Known = TypeVar("Known")

_PIECE = 1 << 15  # numbers whose sums stay in the processor's cache
_MARK = "@state"  # ends the name of float state that a module carries but does not train
_BUFFER_ENDINGS = ("running_mean", "running_var", "num_batches_tracked", _MARK)


def marked(name: str) -> str:
    """Return the name under which float state travels that its module does not train.

    >>> marked("mask"), is_buffer(marked("mask"), np.zeros(2)), plain(marked("mask"))
    ('mask@state', True, 'mask')
    """
    return f"{name}{_MARK}"


def plain(name: str) -> str:
    """Return the name that the module itself has for an array."""
    return name.removesuffix(_MARK)


def is_buffer(name: str, array: Array) -> bool:
    """Return whether an entry is state rather than a trained parameter.

    Integer and boolean arrays are; so are floating-point arrays whose name ends as PyTorch's
    normalisation statistics do (``running_mean``, ``running_var``), and those that the client's
    half has marked, as their module does not train them.
    """
    return array.dtype.kind != "f" or name.endswith(_BUFFER_ENDINGS)


def is_parameter(name: str, array: Array) -> bool:
    """Return whether an entry is a trained, floating-point parameter."""
    return not is_buffer(name, array)


def parameters(arrays: Mapping[str, Array]) -> Arrays:
    """Return the trained parameters alone, without copying them."""
    return {name: array for name, array in arrays.items() if is_parameter(name, array)}


def copy(arrays: Mapping[str, Array]) -> Arrays:
    """Return a deep copy."""
    return {name: np.array(array, copy=True) for name, array in arrays.items()}


def mismatch(reference: Mapping[str, Array], other: Mapping[str, Array]) -> str | None:
    """Return the first difference in names, shapes or dtypes in words, or None if there is none.

    Examples
    --------
    >>> mismatch({"w": np.zeros(2)}, {"w": np.zeros(3)})
    "array 'w' has shape (3,), expected (2,)"
    """
    if missing := [name for name in reference if name not in other]:
        return f"array {plain(missing[0])!r} is missing"
    if extra := [name for name in other if name not in reference]:
        return f"array {plain(extra[0])!r} is not part of the model"
    for name, array in reference.items():
        if other[name].shape != array.shape:
            return f"array {plain(name)!r} has shape {other[name].shape}, expected {array.shape}"
        if other[name].dtype != array.dtype:
            return f"array {plain(name)!r} has dtype {other[name].dtype}, expected {array.dtype}"
    return None


def is_same(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Return whether names, shapes and values are equal, bit for bit but for the sign of zero."""
    return left.keys() == right.keys() and all(
        np.array_equal(array, right[name]) for name, array in left.items()
    )


def is_finite(arrays: Mapping[str, Array]) -> bool:
    """Return whether every floating-point value is finite (no NaN, no infinity)."""
    return not_finite(arrays) is None


def not_finite(arrays: Mapping[str, Array]) -> str | None:
    """Return the name, as its module has it, of the first array with a NaN or an infinity, or None.

    State that no module trains may be infinite, as a mask is, but is a number all the same.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f" or known(array, _all_finite):
            continue
        if not name.endswith(_MARK) or np.isnan(array).any():
            return plain(name)
    return None


def difference(new: Array, old: Array) -> Array:
    """Return ``new - old``, and 0 where they are the same infinity."""
    with np.errstate(invalid="ignore"):
        found = np.asarray(new - old)
    if not np.isfinite(found).all():
        found[np.asarray(new == old)] = 0
    return found


def flat(examples: Array) -> NDArray[np.float64]:
    """Return examples of any shape, ``(n, ...)``, as rows in float64, ``(n, d)``; n may be 0."""
    width = int(np.prod(examples.shape[1:]))
    return np.asarray(examples, np.float64).reshape(len(examples), width)


def nbytes(arrays: Mapping[str, Array]) -> int:
    """Return the size of the values in bytes."""
    return sum(array.nbytes for array in arrays.values())


def digest(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, independent of the order of names."""
    state = hashlib.sha256()
    for name in sorted(arrays, key=plain):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{plain(name)}|{array.dtype.str}|{array.shape}|".encode())
        state.update(_bytes_of(array))
    return state.hexdigest()


def fingerprint(arrays: Mapping[str, Array]) -> str:
    """Return what tells a state from any other, without hashing again what did not change.

    It is the :func:`digest`; of a state in parts, ``name/part``, it is the SHA-256 over names,
    dtypes, shapes and the SHA-256 of each array alone, where a :func:`frozen` array is hashed once
    in its life.
    """
    if not any("/" in name for name in arrays):
        return digest(arrays)
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        state.update(f"{name}|{array.dtype.str}|{array.shape}|{content_of(array)}|".encode())
    return state.hexdigest()


def content_of(array: Array) -> str:
    """Return the SHA-256 of an array's bytes alone; of a :func:`frozen` one it is known."""
    return known(array, _own)


def frozen(array: Array, *, own: bool = False) -> Array:
    """Return the array, or a copy, such that nobody can write to it any more.

    What is known of it, such as its digest, then holds for good. ``own``: nobody else has the
    array, so that it need not be copied.
    """
    if _is_frozen(array):
        return array
    found = array if own and array.base is None else np.array(array)
    found.flags.writeable = False
    return found


def _is_frozen(array: Array) -> bool:
    return not array.flags.writeable and array.base is None


# What is known of frozen arrays that are in use, by address; gone with the array.
_facts: dict[tuple[int, Callable[[Array], object]], tuple[weakref.ref[Array], Any]] = {}


def known(array: Array, what: Callable[[Array], Known]) -> Known:
    """Return ``what`` of an array; of a :func:`frozen` one it is worked out once in its life."""
    if not _is_frozen(array):
        return what(array)
    key = id(array), what
    found = _facts.get(key)
    if found is None or found[0]() is not array:
        found = weakref.ref(array, lambda gone: _facts.pop(key, None)), what(array)
        _facts[key] = found
    value: Known = found[1]
    return value


def _own(array: Array) -> str:
    return hashlib.sha256(_bytes_of(np.ascontiguousarray(array))).hexdigest()


def _all_finite(array: Array) -> bool:
    if array.dtype in (np.float32, np.float64) and array.flags.c_contiguous:
        flattened = array.reshape(-1)
        with np.errstate(all="ignore"):
            # One pass without a mask: a sum of squares is finite only if all of them are.
            if np.isfinite(np.dot(flattened, flattened)):
                return True
    return bool(np.isfinite(array).all())


def _bytes_of(array: Array) -> memoryview:
    """Return the bytes of an array in C order, without a copy of them."""
    flattened: memoryview = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    return flattened


def combine_pairs(
    left: Mapping[str, Array],
    right: Mapping[str, Array],
    operation: Callable[[Array, Array], Array],
) -> Arrays:
    """Return ``operation`` applied to the entries of two mappings with the same names.

    Raises
    ------
    ValueError
        If the names differ.
    """
    if left.keys() != right.keys():
        odd = sorted(left.keys() ^ right.keys())
        raise ValueError(f"names differ: {odd[0]!r} is on one side only")
    return {name: operation(left[name], right[name]) for name in left}


def subtract(left: Mapping[str, Array], right: Mapping[str, Array]) -> Arrays:
    """Return ``left - right`` entry by entry, dtypes of ``left``."""
    return combine_pairs(left, right, lambda a, b: np.asarray(a - b, dtype=a.dtype))


def add(left: Mapping[str, Array], right: Mapping[str, Array]) -> Arrays:
    """Return ``left + right`` entry by entry, dtypes of ``left``."""
    return combine_pairs(left, right, lambda a, b: np.asarray(a + b, dtype=a.dtype))


def scale(arrays: Mapping[str, Array], factor: float) -> Arrays:
    """Return the parameters times ``factor``; buffers are returned as they are."""
    return {
        name: np.asarray(array * array.dtype.type(factor)) if is_parameter(name, array) else array
        for name, array in arrays.items()
    }


def delta(start: Mapping[str, Array], end: Mapping[str, Array], *, own: bool = False) -> Arrays:
    """Return the update that leads from ``start`` to ``end``.

    Parameters and float buffers become differences in float32 or wider; integer buffers carry the
    end value itself, since counters are copied, not summed. ``own``: nobody else has the arrays of
    ``end``, so that the update may take their place in memory.

    Examples
    --------
    >>> start = {"w": np.array([1.0, 2.0]), "batches": np.array(5)}
    >>> end = {"w": np.array([1.5, 1.0]), "batches": np.array(8)}
    >>> step = delta(start, end)
    >>> step["w"].tolist(), step["batches"].item()
    ([0.5, -1.0], 8)
    >>> apply_update(start, step)["w"].tolist()
    [1.5, 1.0]
    """
    out: Arrays = {}
    for name, array in start.items():
        new = end[name]
        if array.dtype.kind != "f":
            out[name] = new
        elif name.endswith(_MARK):
            out[name] = difference(new, array)
        elif own and new.dtype == array.dtype:
            out[name] = np.subtract(new, array, out=new)
        else:
            out[name] = np.asarray(new - array)
    return out


def apply_update(start: Mapping[str, Array], update: Mapping[str, Array]) -> Arrays:
    """Return ``start`` moved by ``update`` (the inverse of :func:`delta`), dtypes of ``start``.

    Floating-point sums run in float64.
    """
    out: Arrays = {}
    for name, array in start.items():
        step = update[name]
        if array.dtype.kind == "f":
            out[name] = (array.astype(np.float64) + step).astype(array.dtype)
        else:
            out[name] = np.asarray(step).astype(array.dtype)
    return out


def weighted_sum(terms: Iterable[tuple[float, Mapping[str, Array]]]) -> Arrays:
    """Return the weighted sum of named arrays, floats in float64; integers of the last term.

    One term is held at a time, so a generator of any length needs the memory of two models.

    Raises
    ------
    ValueError
        If there is no term.
    """
    total: Arrays | None = None
    for weight, arrays in terms:
        total = _summed(total, arrays, weight)
        del arrays  # large, and it would lie there while the next one is made
    if total is None:
        raise ValueError("no arrays to sum")
    return total


def _summed(total: Arrays | None, arrays: Mapping[str, Array], weight: float) -> Arrays:
    """Return a sum with one more term, which is added in place; None: the first one."""
    if total is None:
        return {
            name: _times(array, weight) if array.dtype.kind == "f" else array
            for name, array in arrays.items()
        }
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            total[name] = plus(total[name], array, weight)
        else:
            total[name] = array
    return total


def plus(total: Array, array: Array, weight: float) -> Array:
    """Add an array times a weight to a float64 array, in place; return it.

    A large one goes piece by piece, so that no wide copy of it is made; the bits are the same.
    """
    if array.size <= _PIECE or not (total.flags.c_contiguous and array.flags.c_contiguous):
        total += _times(array, weight)
        return total
    sums, values, room = total.reshape(-1), array.reshape(-1), np.empty(_PIECE)
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        wide = np.multiply(piece, weight, out=room[: piece.size], dtype=np.float64)
        sums[start : start + _PIECE] += wide
    return total


def _times(array: Array, weight: float) -> Array:
    """Return an array times a weight in float64, without a copy of it on the way."""
    return np.multiply(array, weight, dtype=np.float64)


def weighted_mean(terms: Iterable[tuple[float, Mapping[str, Array]]]) -> Arrays:
    """Return the weighted mean of named arrays in float64; integer buffers of the last term.

    Raises
    ------
    ValueError
        If there is no term or the weights do not sum to a positive number.

    Examples
    --------
    >>> mean = weighted_mean([(3, {"w": np.array([1.0])}), (1, {"w": np.array([5.0])})])
    >>> mean["w"].item()  # (3 * 1 + 1 * 5) / 4
    2.0
    """
    weights: list[float] = []

    def watched() -> Iterable[tuple[float, Mapping[str, Array]]]:
        for weight, arrays in terms:
            weights.append(weight)
            yield weight, arrays
            del arrays  # large, and it would lie there while the next one is made

    total = weighted_sum(watched())
    mass = float(np.sum(weights))
    if not mass > 0:
        raise ValueError(f"weights sum to {mass}, expected a positive number")
    return {
        name: _divided(array, mass) if array.dtype.kind == "f" else array
        for name, array in total.items()
    }


def _divided(array: Array, number: float) -> Array:
    """Divide a float64 array of one's own, in place; return it."""
    array /= number
    return array


def dot(left: Mapping[str, Array], right: Mapping[str, Array]) -> float:
    """Return the inner product of the parameters of two mappings, in float64."""
    names = [name for name, array in left.items() if is_parameter(name, array)]
    room = _room(left[name] for name in names)
    if right is left:
        return float(sum(_product(wide := _wide(left[name], room), wide) for name in names))
    other = _room(right[name] for name in names)
    return float(
        sum(_product(_wide(left[name], room), _wide(right[name], other)) for name in names)
    )


def _product(one: Array, other: Array) -> float:
    return float(np.dot(one, other))


def _room(arrays: Iterable[Array]) -> Array | None:
    """Return memory for any one of some arrays in float64; None: they are small.

    To find fresh memory for each of them takes longer than all the arithmetic.
    """
    largest = max((array.size for array in arrays), default=0)
    return np.empty(largest) if largest > _PIECE else None


def _wide(array: Array, room: Array | None) -> Array:
    """Return an array in float64, flat and in C order, in some memory if there is any."""
    if room is None:
        return array.astype(np.float64).ravel()
    found = room[: array.size]
    np.copyto(found.reshape(array.shape), array)
    return found


def norms(arrays: Mapping[str, Array]) -> dict[str, float]:
    """Return the L2 norm of each parameter, in float64."""
    trained = parameters(arrays)
    room = _room(trained.values())
    wide = ((name, _wide(array, room)) for name, array in trained.items())
    return {name: float(np.sqrt(_product(found, found))) for name, found in wide}


def norm(arrays: Mapping[str, Array], names: Collection[str] | None = None) -> float:
    """Return the L2 norm of the parameters (of those in ``names``), in float64.

    Examples
    --------
    >>> norm({"w": np.array([3.0, 4.0]), "bn.running_mean": np.array([9.0])})  # no buffers
    5.0
    """
    chosen = arrays if names is None else {name: arrays[name] for name in names}
    return float(np.sqrt(dot(chosen, chosen)))

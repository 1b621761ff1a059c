"""Between Flower's records and plain named arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.models.portions import completed
from unlearning.npy import decoded, encoded
from unlearning.protocol import Reply, Scalar, Wire, filled, part
from unlearning.weighing import Examples, part_of

__all__ = [
    "LARGE",
    "BadReplyError",
    "length",
    "num_bytes",
    "reach",
    "read_reply",
    "to_arrays",
    "to_content",
    "to_record",
]


_NPY = "numpy.ndarray"  # Flower's name of the format below
_named = lru_cache(maxsize=32)(str)  # NumPy works out a type's name anew each time
_METERED = (Wire.CLIENT_SECONDS, Wire.EXAMPLES_PROCESSED)
_LARGEST = 1e15  # nothing that a client measures is larger, and sums of it stay finite
_SINGLE = 4  # bytes of a float32
_FARTHEST = 1e3  # no local training moves a model by a thousand times its own length
LARGE = 2**20  # bytes of an update that is rather worked out when it is needed than kept
_PIECE = 2**16  # numbers whose differences stay in the processor's cache


class BadReplyError(ValueError):
    """A reply that must not touch a model; the message says why."""


def to_record(arrays: Mapping[str, named.Array]) -> ArrayRecord:
    """Return named arrays as a Flower record, in the given order."""
    made = {name: _encoded(np.asarray(array)) for name, array in arrays.items()}
    return filled(ArrayRecord(), made)


def to_arrays(record: ArrayRecord, *, copy: bool = True) -> Arrays:
    """Return a Flower record as named arrays, in the record's order.

    Without ``copy`` they lie in the record's own memory and cannot be written to.

    Raises
    ------
    ValueError
        If the bytes are not exactly one numeric array, as :func:`numpy.save` writes it.
    """
    return {name: _decoded(array, copy=copy) for name, array in record.items()}


def _decoded(array: Array, *, copy: bool) -> named.Array:
    if array.stype != _NPY:
        raise ValueError(f"serialisation {array.stype!r} is unknown")
    return decoded(array.data, copy=copy)


def _encoded(array: named.Array) -> Array:
    return Array(_named(array.dtype), array.shape, _NPY, encoded(array))


def num_bytes(record: Mapping[str, Array]) -> int:
    """Return the size of the serialised arrays in bytes."""
    return sum(len(array.data) for array in record.values())


def to_content(
    model: ArrayRecord, extras: Mapping[str, named.Array], config: Mapping[str, object]
) -> RecordDict:
    """Return the content of one message: a config record of its own, the arrays shared.

    Parameters
    ----------
    model : ArrayRecord
        The model; its entries may be shared between messages, they are never changed.
    extras : mapping
        Further arrays, sent under ``Wire.EXTRA``.
    config : mapping
        Scalars are sent as they are, everything else as JSON.
    """
    if extras:
        prefixed = {f"{Wire.EXTRA}{name}": np.asarray(array) for name, array in extras.items()}
        model = ArrayRecord({**model, **to_record(prefixed)})
    plain: dict[str, Scalar] = {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for key, value in config.items()
    }
    record = filled(ConfigRecord(), plain)
    return filled(RecordDict(), {Wire.ARRAYS: model, Wire.CONFIG: record})


def read_reply(
    message: Message,
    client: int,
    sent: Arrays,
    *,
    model_like: bool,
    declared: int | None,
    longest_s: float = float("inf"),
    farthest: float | None = None,
    trains: Collection[str] | None = None,
    later: bool = False,
) -> Reply:
    """Return the checked reply of one client.

    Parameters
    ----------
    message : Message
        Flower's message, without an error.
    client : int
        Who sent it.
    sent : Arrays
        The model this client was given; a model-like answer becomes an update against it.
    model_like : bool
        Whether the answer must have the model's names, shapes and dtypes; parts of the model that
        it says rest on none of its examples may be left out, and are those that were sent.
    declared : int or None
        Training examples the client said it holds when it joined: its weight may not exceed it.
    longest_s : float
        No client can have worked longer than this, in seconds.
    farthest : float or None
        What :func:`reach` says of ``sent``, where it is known.
    trains : collection of str or None
        Parts of the model that this client may have trained; None: any.
    later : bool
        Whether a large update is left to be worked out by whoever needs it: it is empty then, and
        the arrays lie in the message's own memory, where nobody can write to them.

    Raises
    ------
    BadReplyError
        If anything about the reply would harm the model.
    """
    model = part(message.content, Wire.ARRAYS, ArrayRecord)
    record = part(message.content, Wire.METRICS, MetricRecord)
    if model is None or record is None:
        raise BadReplyError("records are missing")
    try:
        later = later and model_like and num_bytes(model) >= LARGE
        arrays = to_arrays(model, copy=not later)
    except Exception as error:  # a stranger's bytes: whatever decoding them raises, they are bad
        reason = str(error).partition("\n")[0]
        raise BadReplyError(f"arrays cannot be read ({reason})") from error
    metrics = dict(record)
    count = metrics.pop(Wire.NUM_EXAMPLES, None)
    # An answer that is no model has no weight; an owner that is empty may say so with a 1.
    most = declared if declared is None or model_like else max(declared, 1)
    if not isinstance(count, int) or count < 0 or (most is not None and count > most):
        raise BadReplyError(f"{Wire.NUM_EXAMPLES} is {count!r}, expected 0 to {declared}")
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))}
    for key, value in numbers.items():
        low = 0.0 if key in _METERED else -_LARGEST
        high = min(longest_s, _LARGEST) if key == Wire.CLIENT_SECONDS else _LARGEST
        if not low <= value <= high:  # not a number is neither
            raise BadReplyError(f"metric {key!r} is {value:g}, expected {low:g} to {high:g}")
    update: Arrays | None = None
    moved = math.inf
    if model_like:
        rests = Examples.from_metrics(count, numbers)
        parts = dict.fromkeys(map(part_of, sent)) if trains is not None else ()
        if others := [part for part in parts if part not in (trains or ()) and rests.of(part)]:
            raise BadReplyError(f"it claims to train part {others[0]!r}, which is other clients'")
        arrays = completed(sent, arrays, rests)
        if difference := named.mismatch(sent, arrays):
            raise BadReplyError(difference)
        arrays = {name: arrays[name] for name in sent}
        with np.errstate(over="ignore", invalid="ignore"):
            update = {} if later else named.delta(sent, arrays)
            moved = _way(sent, arrays) if later else length(update)
    # What is a finite way from a model has no infinite value: two looks at all of them are saved.
    if not math.isfinite(moved) and (
        odd := named.not_finite(arrays) or (_became_infinite(sent, arrays) if model_like else None)
    ):
        raise BadReplyError(f"a value of array {named.plain(odd)!r} is not finite")
    if update is None:
        return Reply(client, count, arrays, numbers)
    limit = reach(sent) if farthest is None else farthest
    if not moved <= limit:
        raise BadReplyError(f"it moved the model by {moved:.3g} (L2), more than {limit:.3g}")
    return Reply(client, count, arrays, numbers, update, moved if later else None)


def reach(sent: Arrays) -> float:
    """Return how far (L2) no local training moves a model; the same for all that were sent it."""
    with np.errstate(over="ignore"):
        own = length({name: a for name, a in sent.items() if np.isfinite(a).all()})
    return _FARTHEST * max(own, math.sqrt(_size(sent)))


def _became_infinite(sent: Arrays, arrays: Arrays) -> str | None:
    """Return the name of an array with an infinity that was not sent, or None."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isinf(array).any():
            grown = np.isinf(array) & (array != sent[name])
            if grown.any():
                return name
    return None


def length(arrays: Arrays) -> float:
    """Return the L2 norm over all floating-point entries, float buffers included.

    In the arrays' own precision: as quick as it must be for every reply, and exact enough.
    """
    return math.sqrt(_squares(arrays))


def _squares(arrays: Arrays) -> float:
    floats = [a.astype(np.float32) if a.itemsize < _SINGLE else a for a in _floats(arrays)]
    return sum(float(np.vdot(a, a)) for a in floats)


def _way(start: Arrays, end: Arrays) -> float:
    """Return the length of the update between two models, without the memory of a third."""
    total = 0.0
    for name, array in end.items():
        if array.dtype.kind == "f":
            pair = start[name].reshape(-1), array.reshape(-1)
            for at in range(0, array.size, _PIECE):
                old, new = ({name: flat[at : at + _PIECE]} for flat in pair)
                total += _squares(named.delta(old, new))
    return math.sqrt(total)


def _size(arrays: Arrays) -> int:
    return sum(array.size for array in _floats(arrays))


def _floats(arrays: Arrays) -> list[named.Array]:
    return [array for array in arrays.values() if array.dtype.kind == "f"]

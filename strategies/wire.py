"""Between Flower's records and plain named arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Reply, Wire

__all__ = ["BadReplyError", "num_bytes", "read_reply", "to_arrays", "to_content", "to_record"]


class BadReplyError(ValueError):
    """A reply that must not touch a model; the message says why."""


def to_record(arrays: Mapping[str, named.Array]) -> ArrayRecord:
    """Return named arrays as a Flower record, in the given order."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def to_arrays(record: ArrayRecord) -> Arrays:
    """Return a Flower record as named arrays, in the record's order."""
    return {name: array.numpy() for name, array in record.items()}


def num_bytes(record: ArrayRecord) -> int:
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
    plain = {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for key, value in config.items()
    }
    return RecordDict({Wire.ARRAYS: model, Wire.CONFIG: ConfigRecord(plain)})  # type: ignore[arg-type]


def read_reply(
    message: Message, client: int, sent: Arrays, *, model_like: bool, declared: int | None
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
        Whether the answer must have the model's names, shapes and dtypes.
    declared : int or None
        Training examples the client said it holds when it joined: its weight may not exceed it.

    Raises
    ------
    BadReplyError
        If anything about the reply would harm the model.
    """
    content = message.content
    if Wire.ARRAYS not in content.array_records or Wire.METRICS not in content.metric_records:
        raise BadReplyError("records are missing")
    try:
        arrays = to_arrays(content.array_records[Wire.ARRAYS])
    except (ValueError, TypeError, OSError) as error:
        raise BadReplyError(f"arrays cannot be read ({error})") from error
    metrics = dict(content.metric_records[Wire.METRICS])
    count = metrics.pop(Wire.NUM_EXAMPLES, None)
    if not isinstance(count, int) or count < 0 or (declared is not None and count > declared):
        raise BadReplyError(f"{Wire.NUM_EXAMPLES} is {count!r}, expected 0 to {declared}")
    if model_like and (difference := named.mismatch(sent, arrays)):
        raise BadReplyError(difference)
    if not named.is_finite(arrays):
        raise BadReplyError("a value is not finite")
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))}
    arrays = {name: arrays[name] for name in sent} if model_like else arrays
    update = named.delta(sent, arrays) if model_like else None
    return Reply(client, count, arrays, numbers, update)

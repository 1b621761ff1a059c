"""Values of the run as bytes and back, without any format that runs code when it is read.

Frozen dataclasses and pydantic models that the caller names, tuples (and other sequences, which
come back as tuples), lists, mappings, plain values and arrays become one safetensors file: the
arrays as they are, the rest as JSON beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from unlearning.arrays import Arrays
from unlearning.errors import FedUnlearnError
from unlearning.packing import metadata, pack, unpack

__all__ = ["Keeper", "KeepingError"]

_VALUE = "value"


class KeepingError(FedUnlearnError):
    """A kept value is damaged, or of another version."""


class Keeper:
    """Writes and reads values of some kinds.

    Parameters
    ----------
    kinds : iterable of type
        The dataclasses and pydantic models that may occur.

    Examples
    --------
    >>> import numpy as np
    >>> from unlearning.cost import Cost
    >>> keeper = Keeper([Cost])
    >>> data = keeper.to_bytes({"cost": Cost(examples=3), "model": (np.arange(2.0), None)})
    >>> keeper.from_bytes(data)["model"][0].tolist()
    [0.0, 1.0]
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds = {kind.__name__: kind for kind in kinds}

    def to_bytes(self, value: object) -> bytes:
        """Return a value as bytes.

        Raises
        ------
        KeepingError
            If it holds something of a kind that was not named.
        """
        arrays: Arrays = {}
        plain = self._plain(value, arrays)
        return pack(arrays, {_VALUE: json.dumps(plain)})

    def from_bytes(self, data: bytes) -> Any:
        """Return the value that :meth:`to_bytes` wrote.

        Raises
        ------
        KeepingError
            If the bytes are damaged, or name a kind that is not known here.
        """
        try:
            return self._value(json.loads(metadata(data)[_VALUE]), unpack(data))
        except (FedUnlearnError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeepingError(f"a kept value cannot be read: {error}") from error

    def _plain(self, value: object, arrays: Arrays) -> object:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.generic):
            return self._plain(value.item(), arrays)
        if isinstance(value, np.ndarray):
            name = f"a{len(arrays):06d}"
            arrays[name] = value
            return {"array": name}
        if isinstance(value, (tuple, list, frozenset, set)):
            kind = type(value).__name__
            parts = sorted(value) if isinstance(value, (frozenset, set)) else value
            return {kind: [self._plain(part, arrays) for part in parts]}
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return {"tuple": [self._plain(part, arrays) for part in value]}
        if isinstance(value, Mapping):
            pairs = [[self._plain(k, arrays), self._plain(v, arrays)] for k, v in value.items()]
            return {"dict": pairs}
        name = type(value).__name__
        if self._kinds.get(name) is not type(value):
            raise KeepingError(f"a value of kind {name} cannot be kept")
        return {"kind": name, "fields": self._plain(_fields(value), arrays)}

    def _value(self, plain: Any, arrays: Arrays) -> Any:
        if not isinstance(plain, dict):
            return plain
        if "kind" in plain:
            return self._kinds[plain["kind"]](**self._value(plain["fields"], arrays))
        ((kind, inside),) = plain.items()
        if kind == "array":
            return arrays[inside]
        if kind == "dict":
            return {self._value(k, arrays): self._value(v, arrays) for k, v in inside}
        make = {"tuple": tuple, "list": list, "frozenset": frozenset, "set": set}[kind]
        return make(self._value(part, arrays) for part in inside)


def _fields(value: object) -> dict[str, object]:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if is_dataclass(value):
        return {entry.name: getattr(value, entry.name) for entry in fields(value) if entry.init}
    raise KeepingError(f"a value of kind {type(value).__name__} cannot be kept")

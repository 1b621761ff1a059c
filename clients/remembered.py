"""What a process remembers of examples from one message to the next, to spare itself work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from hashlib import sha256
from typing import Generic, TypeVar
from weakref import ref

import numpy as np
import torch

from unlearning.arrays import Array

__all__ = ["Attached", "Remembered"]

Thing = TypeVar("Thing")


class Remembered(Generic[Thing]):
    """Things made of examples, found again by the examples' content.

    So nothing else can be taken for them, whatever was forgotten in between; a process that does
    not remember makes the thing again.

    Parameters
    ----------
    most : int
        Things kept, the latest used; a process may play many clients.
    """

    def __init__(self, most: int = 32) -> None:
        self._most = most
        self._things: OrderedDict[bytes, Thing] = OrderedDict()

    def of(self, x: Array, how: str, make: Callable[[], Thing]) -> Thing:
        """Return what was made of examples, in the way ``how``; ``make`` makes it if need be."""
        content = sha256(f"{how}|{x.dtype.str}|{x.shape}|".encode())
        if x.size:
            content.update(np.ascontiguousarray(x).data)
        key = content.digest()
        found = self._things.pop(key, None)
        self._things[key] = make() if found is None else found
        while len(self._things) > self._most:
            self._things.popitem(last=False)
        return self._things[key]


class Attached(Generic[Thing]):
    """Things made of a tensor, found again by the tensor itself, and gone with it.

    Where the next message brings the same tensor, unchanged, nothing has to be made or hashed.
    """

    def __init__(self) -> None:
        self._things: dict[int, tuple[ref[torch.Tensor], Hashable, Thing]] = {}

    def of(self, tensor: torch.Tensor, how: Hashable, make: Callable[[], Thing]) -> Thing:
        """Return what was made of a tensor, in the way ``how``; ``make`` makes it if need be."""
        key, way = id(tensor), (how, tensor._version)
        known = self._things.get(key)
        if known is None or known[0]() is not tensor or known[1] != way:
            known = ref(tensor, lambda gone: self._things.pop(key, None)), way, make()
            self._things[key] = known
        return known[2]

"""State that is kept in parts, one per client, so that one can be exchanged or taken out.

Field ``gram`` of client 3 is the array ``gram/3``. What a model makes of all parts stands beside
them under plain names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Protocol

from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Instruction, Reply

__all__ = [
    "PartModel",
    "clients",
    "drop",
    "exchanged",
    "expect",
    "field",
    "fitting",
    "put",
    "renewed",
]

log = logging.getLogger("fedunlearn")


class PartModel(ArrayModel, Protocol):
    """A model whose state is a function of its clients' parts alone."""

    def ask(self, arrays: Arrays, client: int) -> Instruction:
        """Return what an owner is asked when some of its examples go.

        The forget set of the request is then in the step's ``local.forget``.
        """

    def without(self, arrays: Arrays, gone: Collection[int], replies: Iterable[Reply]) -> Arrays:
        """Return the state without the parts of clients, and with those that owners renew."""


def clients(arrays: Mapping[str, Array]) -> tuple[int, ...]:
    """Return the clients that have a part, in order."""
    found = {int(name.rpartition("/")[2]) for name in arrays if "/" in name}
    return tuple(sorted(found))


def field(arrays: Mapping[str, Array], client: int, name: str) -> Array:
    """Return one field of a client's part."""
    return arrays[f"{name}/{client}"]


def drop(arrays: Mapping[str, Array], gone: Collection[int]) -> Arrays:
    """Return the state without the parts of some clients."""
    return {
        name: array
        for name, array in arrays.items()
        if "/" not in name or int(name.rpartition("/")[2]) not in gone
    }


def put(arrays: Mapping[str, Array], client: int, fields: Mapping[str, Array]) -> Arrays:
    """Return the state with the part of a client replaced."""
    return drop(arrays, {client}) | {f"{name}/{client}": a for name, a in fields.items()}


def exchanged(
    arrays: Mapping[str, Array], replies: Iterable[Reply], check: Callable[[Reply], Arrays]
) -> Arrays:
    """Return the state with the parts of those that answered; who answers otherwise keeps its own.

    Parameters
    ----------
    arrays : mapping of str to array
        The state.
    replies : iterable of Reply
        What clients answered.
    check : callable
        ``check(reply)`` is the client's part; it raises FederationError where it is none.
    """
    state = dict(arrays)
    for reply in fitting(replies, check):
        state = put(state, reply.client, check(reply))
    return state


def renewed(
    arrays: Mapping[str, Array],
    gone: Collection[int],
    replies: Iterable[Reply],
    check: Callable[[Reply], Arrays],
) -> Arrays:
    """Return the state without some clients' parts, and with those that owners made anew.

    An owner that is left without any example (``counts``) is left without a part.
    """
    state = drop(arrays, gone)
    for reply in replies:
        part = check(reply)
        state = drop(state, {reply.client})
        if part["counts"].any():
            state = put(state, reply.client, part)
    return state


def fitting(replies: Iterable[Reply], check: Callable[[Reply], object]) -> Iterator[Reply]:
    """Yield the replies that ``check`` does not raise FederationError at; name the others."""
    for reply in replies:
        try:
            check(reply)
        except FederationError as error:
            log.warning("client %d was quarantined this round: %s", reply.client, error)
            continue
        yield reply


def expect(reply: Reply, shapes: Mapping[str, tuple[int | None, ...]]) -> Arrays:
    """Return the named arrays of a reply after a look at their shapes; None fits any length.

    Raises
    ------
    FederationError
        If one is missing or has another shape.
    """
    for name, shape in shapes.items():
        found = reply.arrays.get(name)
        if found is None or len(found.shape) != len(shape):
            seen = "nothing" if found is None else f"shape {found.shape}"
            raise FederationError(
                f"client {reply.client} answered {seen} as {name!r}, expected shape {shape}"
            )
        for there, wanted in zip(found.shape, shape, strict=True):
            if wanted is not None and there != wanted:
                raise FederationError(
                    f"client {reply.client} answered shape {found.shape} as {name!r}, "
                    f"expected {shape}"
                )
    return {name: reply.arrays[name] for name in shapes}

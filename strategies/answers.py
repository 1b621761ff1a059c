"""Answers that are no models, checked: gradients and the like, one array per parameter."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Reply

__all__ = ["Answer", "fitting"]

log = logging.getLogger("fedunlearn")


@dataclass(frozen=True)
class Answer:
    """What one client says about every parameter of the model, once per part of its data.

    Parameters
    ----------
    client, num_examples, metrics
        As in the reply.
    parts : mapping of str to Arrays
        Prefix to arrays with the names, shapes and dtypes of the model's parameters; only the
        parts that the client sent.
    """

    client: int
    num_examples: int
    metrics: Mapping[str, float]
    parts: Mapping[str, Arrays]


def fitting(
    replies: Iterable[Reply], model: Mapping[str, named.Array], prefixes: tuple[str, ...] = ("",)
) -> Iterator[Answer]:
    """Yield the answers that fit the model; leave out the others, by name, in the log.

    Parameters
    ----------
    replies : iterable of Reply
        Of steps that answer with arrays of their own, read as they arrive.
    model : mapping
        The parameters of the model.
    prefixes : tuple of str
        What the names of the arrays begin with, one per part; a client may leave out a part.
    """
    for reply in replies:
        parts: dict[str, Arrays] = {}
        rest = dict(reply.arrays)
        for prefix in prefixes:
            names = [name for name in rest if name.startswith(prefix)]
            if names:
                parts[prefix] = {name.removeprefix(prefix): rest.pop(name) for name in names}
        problems = [named.mismatch(model, part) for part in parts.values()]
        if rest:
            problems.append(f"array {next(iter(rest))!r} was not asked for")
        if found := [problem for problem in problems if problem]:
            log.warning("client %d was quarantined this round: %s", reply.client, found[0])
            continue
        yield Answer(reply.client, reply.num_examples, reply.metrics, parts)

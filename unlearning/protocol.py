"""What server and clients say to each other, free of Flower's types.

An :class:`Instruction` names a local step and its settings; a :class:`Reply` brings named arrays
and metrics back. The names used on the wire stand here, in Flower's kebab-case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from unlearning.arrays import Arrays
from unlearning.weighing import Examples

__all__ = [
    "EVERY",
    "FREE",
    "MASK",
    "Instruction",
    "Reply",
    "Scalar",
    "Settings",
    "Wire",
    "filled",
    "names_in",
    "part",
    "told_names",
]

Part = TypeVar("Part")
Record = TypeVar("Record", bound=MutableMapping[str, Any])

Scalar = bool | int | float | str
Settings = Mapping[str, Scalar]

MASK = "mask/"  # prefix of extras that say which entries of an array's first axis may be non-zero
FREE = "free/"  # prefix of extras that say which entries of an array are trained
EVERY = "every"  # split of the data: the retained, the forgotten and the held-out, each by itself


class Wire:
    """Keys of the records and of their entries."""

    ARRAYS = "arrays"  # the ArrayRecord: the model, and extras under EXTRA
    CONFIG = "config"  # the ConfigRecord: how to work
    METRICS = "metrics"  # the MetricRecord: numbers that come back
    EXTRA = "extra/"  # prefix of arrays that travel beside the model
    NAMES = "array-names"  # names of the arrays, in order, as JSON
    STEP = "step"
    CLIENT = "client"
    SEED = "seed"  # the address of the randomness, as JSON list of integers
    SERVER_ROUND = "server-round"
    OMIT = "omit"  # Omission, as JSON: forgotten for good, dropped before any step
    FORGET = "forget"  # Omission, as JSON: the forget set of the current request
    SPLIT = "split"  # of the data, for evaluation: retain, forget, held-out, or EVERY one
    SETTINGS = "settings"  # the step's own settings, as JSON
    SCENARIO = "scenario"  # what the client is made of (data, model), as JSON; opaque here
    DEVICE = "device"  # where clients compute: auto, cpu, cuda, cuda:N
    TASKS = "tasks"  # of a client that joins: those it has labels for, as JSON
    COMMIT = "commit"  # whether a client is to commit itself to its samples when it joins
    COMMITMENT = "commitment"  # the root of its samples, hex
    HOME = "home"  # folder for what clients remember across messages and restarts
    REMEMBER = "remember"  # keep the last local model, for methods that need it
    KEEP = "keep"  # what else to make while training, or to have at hand: steps, settings, as JSON
    TIMEOUT = "client-timeout-s"
    NUM_EXAMPLES = "num-examples"
    NAMED_EXAMPLES = "named-examples"  # of a receipt: how many a request for deletion names
    EXAMPLES_PROCESSED = "examples-processed"  # forward-backward passes over single examples
    LOSS = "training-loss"  # mean over the batches of a round, in nats
    CLIENT_SECONDS = "client-seconds"
    KEEP_EXAMPLES = "keep-examples."  # of these, those for a keepsake, whose name follows
    KEEP_SECONDS = "keep-seconds."


@dataclass(frozen=True)
class Instruction:
    """What one client is asked to do in one round.

    Parameters
    ----------
    step : str
        Name of a module in ``clients/steps``.
    settings : mapping
        The step's own settings; the training settings of the run are added where not given.
    arrays : Arrays or None
        The model to work on; None: the round's global model.
    extras : Arrays
        Further named arrays the step needs (a reference model, a Fisher diagonal ...).
    seed_round : int or None
        Address of the randomness; None: this round's own. A replay names the original round, so
        that the same client draws the same batches.
    answers : str
        ``"model"``: the reply must have the model's names, shapes and dtypes; ``"free"``: named
        arrays of the step's own (checked for finiteness only).
    """

    step: str = "train"
    settings: Settings = field(default_factory=dict)
    arrays: Arrays | None = None
    extras: Arrays = field(default_factory=dict)
    seed_round: int | None = None
    answers: str = "model"


@dataclass(frozen=True)
class Reply:
    """What one client brought back, checked.

    Parameters
    ----------
    client : int
        Stable client id.
    num_examples : int
        Examples the answer rests on: the weight of FedAvg.
    arrays : Arrays
        Whatever the step returns: a model, a gradient, statistics.
    metrics : mapping
        Numbers the step measured.
    update : Arrays or None
        For model-like answers: ``arrays`` minus the model the client was sent.
    moved : float or None
        Of an update that is not worked out yet, and empty: how long it is (L2, float buffers
        included). A hook sees no such reply.
    """

    client: int
    num_examples: int
    arrays: Arrays
    metrics: Mapping[str, float] = field(default_factory=dict)
    update: Arrays | None = None
    moved: float | None = None

    @property
    def examples(self) -> Examples:
        """The weight of the answer in a mean, by part of the model."""
        return Examples.from_metrics(self.num_examples, self.metrics)


def part(content: Mapping[str, object], key: str, kind: type[Part]) -> Part | None:
    """Return the record called ``key`` if it is there and of the kind that is expected.

    Flower's own ``content.array_records`` is a view in a reference cycle: each look at it would
    keep a whole model in memory until the garbage collector comes by.
    """
    found = content.get(key)
    return found if isinstance(found, kind) else None


def told_names(names: Iterable[str]) -> str:
    """Return names of arrays as they are told beside the arrays.

    >>> told_names(["layer.weight", "layer.bias"])
    '["layer.weight", "layer.bias"]'
    """
    return _told(tuple(names))


@lru_cache(maxsize=64)  # those of a model, time and again
def _told(names: tuple[str, ...]) -> str:
    return json.dumps(names)


@lru_cache(maxsize=64)
def names_in(text: str) -> tuple[str, ...]:
    """Return the names that :func:`told_names` told."""
    return tuple(json.loads(text))


def filled(record: Record, entries: Mapping[str, object]) -> Record:
    """Return a new record of Flower's with entries that are known to be of its kind.

    Flower checks name and value of each by way of its type hints, which costs ten times what the
    entry does, a dozen times a message. Where its records keep their entries elsewhere than today,
    they are set one by one.
    """
    held = vars(record).get("_data")
    if isinstance(held, dict):
        held.update(entries)
        return record
    for name, value in entries.items():
        record[name] = value
    return record

"""The adapter between Flower's messages and a :class:`~clients.participant.Participant`."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients.participant import Participant
from unlearning.errors import FederationError
from unlearning.npy import decoded, encoded
from unlearning.protocol import Scalar, Wire, filled, names_in, part, told_names
from unlearning.request import Omission

__all__ = ["MakeParticipant", "arrays_in", "config_of", "make_client_app", "trained"]

_NPY = "numpy.ndarray"  # Flower's name of the format
_named = lru_cache(maxsize=32)(str)  # NumPy works out a type's name anew each time

_UNLIMITED = contextlib.nullcontext()
_LATER_S = 0.05  # until the next look at whether an import is over
_GRACE, _GRACE_S = 0.1, 2.0  # of a limit: what interrupted work gets to clear up

# As Flower has them, where they are private.
Answering = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, Answering], Message]

MakeParticipant = Callable[[Context, dict[str, Scalar]], Participant]


def make_client_app(
    make_participant: MakeParticipant,
    *,
    disposable: Callable[[], bool] = lambda: False,
    mods: Sequence[Mod] = (),
) -> ClientApp:
    """Return a ClientApp that answers with the participant that ``make_participant`` gives.

    ``train`` runs a named step, ``evaluate`` answers for a named split, ``query`` says who this
    is, ``query.delete`` deletes for good. Everything a client needs travels in the message: a
    simulation hands clients no run config.

    Parameters
    ----------
    make_participant : callable
        ``(context, config) -> Participant``; ``config`` is the message's config record. It must
        live in an importable module: Ray sends it to its workers with every message.
    disposable : callable
        Whether the process that works may be ended where a client hangs outside of Python; a new
        one must take its place. Importable likewise.
    mods : sequence of Flower's mods
        Each sees every message before and every reply after.
    """
    app = ClientApp(mods=list(mods))

    def limited(config: dict[str, Scalar]) -> contextlib.AbstractContextManager[None]:
        seconds = float(config.get(Wire.TIMEOUT, 0.0))
        return _time_limit(seconds, disposable=disposable()) if seconds > 0 else _UNLIMITED

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = config_of(message)
        begun = time.perf_counter()
        with limited(config):
            arrays = _arrays(message, config)
            answer = make_participant(context, config).fit(arrays, config)
        return trained(message, answer, time.perf_counter() - begun)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        config = config_of(message)
        with limited(config):
            arrays = _arrays(message, config)
            loss, count, metrics = make_participant(context, config).evaluate(arrays, config)
        numbers = {key: _number(key, value) for key, value in metrics.items()}
        record = MetricRecord({Wire.NUM_EXAMPLES: int(count), "loss": float(loss), **numbers})
        return Message(RecordDict({Wire.METRICS: record}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        config = config_of(message)
        # Without a limit: what is loaded here, once per process, is no work of this client's.
        properties = make_participant(context, config).get_properties(config)
        return Message(RecordDict({Wire.CONFIG: ConfigRecord(dict(properties))}), reply_to=message)

    @app.query("delete")
    def delete(message: Message, context: Context) -> Message:
        config = config_of(message)
        omission = Omission.from_json(json.loads(str(config[Wire.FORGET])))
        with limited(config):
            receipt = make_participant(context, config).delete(omission)
        return Message(RecordDict({Wire.CONFIG: ConfigRecord(dict(receipt))}), reply_to=message)

    return app


def trained(
    message: Message, answer: tuple[list[NDArray[Any]], int, dict[str, Any]], seconds: float
) -> Message:
    """Return the reply to a ``train`` message: what ``fit`` answered, and how long it took."""
    arrays, count, metrics = answer
    names = names_in(str(metrics.pop(Wire.NAMES)))
    numbers = {key: _number(key, value) for key, value in metrics.items()}
    numbers[Wire.NUM_EXAMPLES] = int(count)
    numbers[Wire.CLIENT_SECONDS] = seconds
    made = {n: _encoded(np.asarray(array)) for n, array in zip(names, arrays, strict=True)}
    records = {
        Wire.ARRAYS: filled(ArrayRecord(), made),
        Wire.METRICS: filled(MetricRecord(), numbers),
    }
    return Message(filled(RecordDict(), records), reply_to=message)


def config_of(message: Message) -> dict[str, Scalar]:
    """Return the scalars that came with a message."""
    record = part(message.content, Wire.CONFIG, ConfigRecord) or ConfigRecord()
    return {k: v for k, v in record.items() if isinstance(v, (bool, int, float, str))}


def _arrays(message: Message, config: dict[str, Scalar]) -> list[NDArray[Any]]:
    record = part(message.content, Wire.ARRAYS, ArrayRecord) or ArrayRecord()
    config[Wire.NAMES] = told_names(record)
    return list(arrays_in(record).values())


def arrays_in(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the arrays of a record by name, in its order.

    What came beside the model is a step's own; the model lies in the record, and is not written to.
    """
    return {
        name: decoded(array.data, copy=name.startswith(Wire.EXTRA))
        if array.stype == _NPY
        else array.numpy()
        for name, array in record.items()
    }


def _encoded(array: NDArray[Any]) -> Array:
    return Array(_named(array.dtype), array.shape, _NPY, encoded(array))


def _number(key: str, value: Scalar) -> int | float:
    if not isinstance(key, str):
        raise FederationError(f"a metric is called {key!r}; a step names its numbers by strings")
    if isinstance(value, (bool, int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    raise FederationError(f"metric {key!r} is {value!r}; a step returns numbers only")


@contextlib.contextmanager
def _time_limit(seconds: float, *, disposable: bool = False) -> Iterator[None]:
    """Raise TimeoutError in the main thread after ``seconds``; elsewhere there is no limit.

    Ray workers and Flower's client processes call handlers in their main thread.

    Parameters
    ----------
    seconds : float
        The limit; 0: none.
    disposable : bool
        Whether this process may end altogether where the work cannot be interrupted since it hangs
        outside of Python, a little later than the limit.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        if _is_importing(frame):  # half a module would stay behind for whoever comes next
            signal.setitimer(signal.ITIMER_REAL, _LATER_S)
            return
        raise TimeoutError(f"client worked longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if disposable:  # this timer needs neither the interpreter nor its lock
        faulthandler.dump_traceback_later(seconds + min(_GRACE_S, _GRACE * seconds), exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if disposable:
            faulthandler.cancel_dump_traceback_later()


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether some caller of a frame is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False

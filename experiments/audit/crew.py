"""Worker processes of an audit, and this process where one is enough.

Workers are forked from a server that has imported everything once and holds no data and no
threads; the process that was started stays small, since all that is heavy happens in the workers.
What a worker answers depends on its job alone, so neither the number of workers nor an interruption
shows in a result.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from experiments.audit.usage import Usage
from unlearning.errors import FedUnlearnError

__all__ = ["Crew", "crew"]

_PRELOAD = "experiments.audit.preload"
_LOOK_S = 0.5  # between two looks at memory and processor time


class Crew:
    """Calls functions by name, here or in worker processes.

    Parameters
    ----------
    pool : Executor or None
        None: in this process.
    usage : Usage
        Looked at while waiting.
    """

    def __init__(self, pool: Executor | None, usage: Usage) -> None:
        self._pool, self._usage = pool, usage

    def call(self, function: str, *arguments: object) -> Any:
        """Return what ``module:function`` answers."""
        return next(self.each(function, [arguments]))

    def each(self, function: str, calls: Sequence[tuple[object, ...]]) -> Iterator[Any]:
        """Yield what ``module:function`` answers to each of several calls, as they end.

        Raises
        ------
        FedUnlearnError
            What the function raises; if a worker died.
        """
        if self._pool is None:
            for arguments in calls:
                answer = _call(function, *arguments)
                self._usage.look()
                yield answer
            return
        waiting: set[Future[Any]] = set()
        try:
            waiting = {self._pool.submit(_call, function, *arguments) for arguments in calls}
            while waiting:
                ready, waiting = wait(waiting, _LOOK_S, FIRST_COMPLETED)
                self._usage.look()
                for future in ready:
                    yield future.result()
        except BrokenProcessPool as error:
            raise FedUnlearnError(
                "a worker process died (killed, or out of memory); run the same command again, "
                "with fewer --workers if memory was short: what was done is kept"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def crew(workers: int, usage: Usage) -> Iterator[Crew]:
    """Yield a crew; its processes end with the block.

    Parameters
    ----------
    workers : int
        Processes; 1: this one.
    usage : Usage
        Looked at while waiting.
    """
    if workers == 1:
        yield Crew(None, usage)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _settle, (dict(os.environ),))
    try:
        yield Crew(pool, usage)
    except (KeyboardInterrupt, InterruptedError):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # what is under way is made again; nobody waits for it
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle(environment: Mapping[str, str]) -> None:
    """Take the environment of the process that was started, and leave interrupts to it.

    The server that workers are forked from lives as long as that process, and still has the
    environment of the moment in which the first crew was called: another cache folder, say.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(function: str, *arguments: object) -> Any:
    """Call ``module:function`` in one thread: sums over threads depend on their number."""
    import torch

    module, _, name = function.partition(":")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return partial(getattr(import_module(module), name), *arguments)()
    finally:
        torch.set_num_threads(threads)

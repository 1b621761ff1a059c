"""How what Python asks for is carried out: watched, and going on with what was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from experiments.runs.folder import RunFolder
    from experiments.runs.progress import Observer

__all__ = ["carried_out", "gone_on"]

T = TypeVar("T")


def carried_out(begin: Callable[[Observer], T], progress: bool | Observer) -> T:
    """Return what ``begin(observer)`` comes to while it is watched.

    Raises
    ------
    KeyboardInterrupt
        If somebody stops it; with the command that goes on as ``go_on`` where there is one.
    """
    from experiments.federation.participants import forget_built

    forget_built()  # a notebook may have changed a file or a function since
    try:
        with _watched(progress) as observer:
            return begin(observer)
    except InterruptedError as error:
        stopped = KeyboardInterrupt(*error.args)
        vars(stopped).update(vars(error))  # how it goes on, and the exit code
        raise stopped from None


def gone_on(folder: RunFolder, progress: bool | Observer, *, accept_change: bool) -> bool:
    """Go on with a run, comparison or audit; return whether there was anything to do.

    Raises
    ------
    FedUnlearnError
        If it was changed since it began, another process is at work, or it cannot go on.
    """
    from experiments.runs.intent import AUDIT, Intent

    intent = Intent.read(folder.path)

    def audited(observer: Observer) -> Path:
        from experiments.audit.run import audit
        from experiments.config.loading import load
        from experiments.reporting.report import render

        made = audit(
            load(folder.config),
            folder.path,
            strategies=intent.names,
            size=int(intent.settings["models"]),
            workers=int(intent.settings["workers"]),
            observer=observer,
            command=intent.command,
        )
        render(made)
        return made

    def resumed(observer: Observer) -> Path | None:
        from experiments.federation import launch

        return launch.resume(folder, intent, observer=observer, accept_change=accept_change)

    return carried_out(audited if intent.kind == AUDIT else resumed, progress) is not None


@contextmanager
def _watched(progress: bool | Observer) -> Iterator[Observer]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda tick: None
    else:
        from rich.console import Console

        from experiments.runs.progress import progress as shown

        with shown(Console(stderr=True)) as observer:
            yield observer

"""What is seen of a run when its requests are served: the model before, and each answer."""

from __future__ import annotations

from collections.abc import Callable

from experiments.federation.answers import answer
from experiments.federation.checkpoint import Saved
from experiments.federation.party import Party, without_arrays
from experiments.federation.task import Task
from experiments.federation.watching import Lookout, Pace
from experiments.runs.details import Answer
from strategies.federation import Moment
from unlearning.request import Request

__all__ = ["Testimony"]


class Testimony:
    """Collects, request by request, what is told of a run at its end.

    Parameters
    ----------
    task : Task
        Of the run.
    device : str
        Where models are evaluated.
    """

    def __init__(self, task: Task, device: str) -> None:
        self._task, self._device = task, device
        self._originals: list[Party] = []
        self._answers: list[Answer] = []
        self._read: list[int] = []

    def enter(self, request: Request, original: Party, read_bytes: int) -> None:
        """Take down the model before a request; that before the first is the run's original."""
        self._read.append(read_bytes)
        self._answers.append(answer(self._task, request, original, self._device))
        if not self._originals:
            # It rests on what is to be deleted; measures of tasks alone need the model itself.
            self._originals.append(original if self._task.tasks else without_arrays(original))

    def take_up(self, saved: Saved) -> None:
        """Go on after an interruption."""
        self._originals, self._answers = list(saved.originals), list(saved.answers)
        self._read = list(saved.read)

    def saving(
        self, save: Callable[..., None], lookout: Lookout, pace: Pace
    ) -> Callable[[Moment], None]:
        """Return what keeps a moment together with all that was seen until then."""

        def keep(moment: Moment) -> None:
            found = Saved(
                moment,
                lookout.points.so_far(),
                pace.done,
                tuple(map(without_arrays, self._originals)),
                tuple(self._read),
                tuple(self._answers),
            )
            save(found, durable=not moment.phase)

        return keep

    @property
    def told(self) -> list[Party | Answer]:
        """The original, and what it said of each request (for several tasks: told elsewhere)."""
        return [*self._originals, *(() if self._task.tasks else self._answers)]

    @property
    def points(self) -> int:
        """How many points of the timeline are the original's."""
        return sum(len(party.timeline) for party in self._originals)

    @property
    def read_bytes(self) -> int:
        """Bytes of the history that the strategy read."""
        return sum(self._read)

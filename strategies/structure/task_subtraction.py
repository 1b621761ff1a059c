"""TaskSubtraction: take out of the trunk what a task has put in, as the clients have noted it.

References
----------
Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023 (arXiv 2212.04089), for subtracting
what a task has added. Attribution to tasks while training in a federation, and the whole method,
are this project's: no federated task unlearning was published when it was written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import ATTRIBUTION
from strategies.structure.head_drop import without_heads
from strategies.structure.way_back import WayBack
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models.heads import tasks_of, trunk
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["TaskSubtraction", "subtract_contribution"]

log = logging.getLogger("fedunlearn")


def subtract_contribution(arrays: Arrays, contribution: Arrays, alpha: float) -> Arrays:
    """Return the model minus ``alpha`` times what a task has done to its trunk.

    Parameters
    ----------
    arrays : Arrays
        The model.
    contribution : Arrays
        S, float64, for some or all parameters of the trunk.
    alpha : float
        1 takes out all of it, 0 nothing.
    """
    return {
        name: (array - alpha * contribution[name]).astype(array.dtype)
        if name in contribution
        else array
        for name, array in arrays.items()
    }


class TaskSubtraction(UnlearningStrategy):
    """Subtraction of the task's contributions, kept by the clients, followed by recovery.

    SGD is additive over the terms of the loss, and so is its momentum: while they train, clients
    note what each task did to the trunk, times their share in the average. Asked to forget a task
    they hand out its sum, the server subtracts it and drops the head.

    Parameters
    ----------
    alpha : float, default 0.2
        Part of the contribution that is subtracted; 1 is the literal subtraction. Tasks pull the
        trunk in different directions, so that a part alone can be as large as the sum of all: on
        pairs of digits 0.2 costs the retained tasks nothing and takes out a small part of what
        retraining lacks, 0.3 takes out most and costs them some points, and 0.5 ruins the trunk
        beyond what a few rounds recover. A guess elsewhere: look at the retained tasks beside
        retraining.
    project : bool, default False
        In recovery, take out of every update of the trunk what leads back to the former model.
        For clients that might want the task back.

    Notes
    -----
    Clients must have kept the contributions from the start (two models per task they hold, nothing
    is sent while training); one that is gone takes its part with it, which then stays in the
    trunk. Sums of float64 parts are exact for SGD with momentum; weight decay is nobody's and not
    subtracted. Contributions of other tasks stay with the clients, for later requests. For a
    partial request the named clients hand out theirs, and the head stays. A task without a head
    leaves the model as it is.
    """

    scopes = frozenset({Scope.TASK})
    needs = frozenset({ATTRIBUTION})

    def __init__(self, *, alpha: float = 0.2, project: bool = False) -> None:
        super().__init__()
        in_range("alpha", alpha, 0, 2)
        self.alpha = alpha
        self.project = project
        self._asked_tasks: tuple[str, ...] = ()
        self._holders: frozenset[int] = frozenset()
        self._way_back = WayBack()

    def keepsakes(self) -> Mapping[str, Mapping[str, bool | int | float | str]]:
        """Return nothing: training itself keeps what is needed."""
        return {}

    def check(self, request: Request) -> None:
        """Refuse, too, where the clients have not kept what each task did.

        Raises
        ------
        ConfigError
            If they have not.
        """
        super().check(request)
        if tasks_of(self.federation.history.initial) and not self.federation.attribute:
            raise ConfigError(
                "TaskSubtraction needs clients that noted what each task did while they trained; "
                "learn with this strategy configured from the start"
            )

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Drop the head; one round of collecting follows."""
        self._way_back.begin(self.federation, arrays, barred=self.project)
        self._asked_tasks = request.tasks
        self._holders = frozenset(request.owners(self._roster.nodes))
        known = set(request.tasks) & set(tasks_of(arrays))
        return without_heads(arrays, history, request), int(bool(known))

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the holders for their contributions; the others settle their accounts."""
        return {
            client: Instruction(
                "attribution",
                {"tasks": ",".join(self._asked_tasks) if client in self._holders else ""},
                answers="free",
            )
            for client in self.remaining
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Subtract the sum."""
        shared = trunk(arrays)
        total: Arrays = {}
        answered = set()
        for reply in replies:
            answered.add(reply.client)
            odd = [
                name
                for name, array in reply.arrays.items()
                if name not in shared or array.shape != shared[name].shape
            ]
            if odd:
                log.warning("client %d was quarantined this round: array %r", reply.client, odd[0])
                continue
            for name, array in reply.arrays.items():
                part = array.astype(np.float64)
                total[name] = total[name] + part if name in total else part
        if missing := sorted(self._holders & set(self.remaining) - answered):
            log.warning("contributions of clients %s stay in the trunk", missing)
        return subtract_contribution(arrays, total, self.alpha)

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as usual; while recovering, if so asked, without what leads back."""
        return super().learn(server_round, arrays, self._way_back.guarded(arrays, replies))

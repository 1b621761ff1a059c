"""IsolatedAdapters: a task that lives in arrays of its own is forgotten by deleting them.

References
----------
Liu, Liu, Stone, "Continual Learning and Private Unlearning", CoLLAs 2022 (arXiv 2203.12817), keep
what is to be forgotten one day in isolated networks; the federated form is this project's.
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy
from strategies.fitness import Ground
from unlearning.arrays import Arrays
from unlearning.errors import UnsupportedRequestError
from unlearning.models.heads import is_isolated, reset, tasks_of
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["IsolatedAdapters"]


class IsolatedAdapters(UnlearningStrategy):
    """Deletion of the adapter and head of a task that never trained the trunk.

    Notes
    -----
    Exact and free: the trunk and the other tasks are, bit for bit, what they would be if the task
    had never been there. Which tasks are isolated is settled when the model is made
    (``model.isolated``); a task that trained the trunk is refused, and so is a partial request,
    whose task rests on the other clients too. A task without a head leaves the model as it is.
    """

    scopes = frozenset({Scope.TASK})
    guarantee = Guarantee.EXACT

    def check_request(self, request: Request, ground: Ground) -> None:
        """Refuse, too, what is not isolated.

        Raises
        ------
        UnsupportedRequestError
            For a task that trained the trunk, or a partial request.
        """
        super().check_request(request, ground)
        names = ground.initial()
        known = [task for task in request.tasks if task in tasks_of(names)]
        if odd := [task for task in known if not is_isolated(names, task)]:
            raise UnsupportedRequestError(
                f"IsolatedAdapters cannot forget task {odd[0]!r}, which has trained the trunk; "
                f"learn with model.isolated = {odd[0]!r}, or take task-subtraction or retrain"
            )
        if known and request.clients:
            raise UnsupportedRequestError(
                "IsolatedAdapters cannot forget a task at some clients: its adapter "
                "rests on the other clients too; forget the task everywhere, or take retrain"
            )

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Put the initial values in place of the task's arrays."""
        return reset(arrays, history.initial, request.tasks), 0

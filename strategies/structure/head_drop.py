"""HeadDrop: throw away the head of a task and learn on. The control of task unlearning.

References
----------
Huang et al., "Interference-Aware Multi-Task Unlearning", 2026 (arXiv 2605.19042), define full and
partial task requests for models with a shared trunk, in one place. No federated method was
published when this was written.
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.errors import UnsupportedRequestError
from unlearning.models.heads import reset
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope

__all__ = ["HeadDrop", "without_heads"]


def without_heads(arrays: Arrays, history: History, request: Request) -> Arrays:
    """Return the model with the heads of a request's tasks as before training.

    A partial request (one that names clients) leaves the head to the others.
    """
    return arrays if request.clients else reset(arrays, history.initial, request.tasks)


class HeadDrop(UnlearningStrategy):
    """The head of the task starts anew; the trunk keeps all that the task has taught it.

    Notes
    -----
    Without its head nothing can be asked of the task, and with a new one nearly all of it comes
    back: the claim is ``suppressed``. A partial request, which leaves the head to the other
    clients, is refused: there is nothing to do for it. A task without a head leaves the model as
    it is.
    """

    scopes = frozenset({Scope.TASK})
    guarantee = Guarantee.SUPPRESSED

    def check_scope(self, request: Request) -> None:
        """Refuse, too, what leaves the head to others.

        Raises
        ------
        UnsupportedRequestError
            For a partial request.
        """
        super().check_scope(request)
        if request.clients:
            raise UnsupportedRequestError(
                "HeadDrop cannot forget a task at some clients: the head rests on the other "
                "clients too and would stay; take task-subtraction or retrain"
            )

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Reset the head."""
        return without_heads(arrays, history, request), 0

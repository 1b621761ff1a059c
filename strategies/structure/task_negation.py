"""TaskNegation: negate the first layer of the trunk, then let the other tasks teach it again.

References
----------
Khalil, Brunswic, Lamghari, Li, Beitollahi, Chen, "NoT: Federated Unlearning via Weight Negation",
CVPR 2025 (arXiv 2503.05657); for tasks it is an extension of this project's.
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy
from strategies.negation import layers_behind, negate_once
from strategies.structure.head_drop import without_heads
from unlearning.arrays import Arrays
from unlearning.models.heads import tasks_of, trunk
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["TaskNegation"]


class TaskNegation(UnlearningStrategy):
    """NoT on the trunk: no history, and no help from those who hold the task.

    Parameters
    ----------
    include_bias : bool, default False
        Negate the layer's bias as well; the paper negates weights.

    Notes
    -----
    The head of the task is dropped (not for a partial request). With too few rounds of recovery
    the remaining tasks suffer; look at their accuracy beside retraining. A task without a head
    leaves the model as it is. A second request does not turn a layer back, see ``NoT``.
    """

    scopes = frozenset({Scope.TASK})

    def __init__(self, *, include_bias: bool = False) -> None:
        super().__init__()
        self.include_bias = include_bias

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Drop the head and negate."""
        if not set(request.tasks) & set(tasks_of(arrays)):
            return arrays, 0
        shared = trunk(arrays)
        choices = layers_behind(shared, (), include_bias=self.include_bias)
        after = without_heads(arrays, history, request)
        return (negate_once(self, history, after, choices) if choices else after), 0

"""TaskRestart: start the upper layers of the trunk anew, and let the other tasks teach them again.

References
----------
Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine
Unlearning", 2022 (arXiv 2201.06640), train the last k layers of a network from scratch to forget
(EU-k). Between the heads and the trunk of a federation of several tasks, with the layers below
trained on, it is an extension of this project's.
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy, in_range
from strategies.federation import INITIAL
from strategies.structure.head_drop import without_heads
from unlearning.arrays import Arrays
from unlearning.models.heads import TRUNK, task_of, tasks_of
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["TaskRestart", "upper_layers"]


def upper_layers(arrays: Arrays, layers: int) -> tuple[str, ...]:
    """Return the names of the trunk's arrays from its last ``layers`` layers on, in order.

    A layer begins with a weight of at least two dimensions; biases, normalisation and buffers
    behind it are part of it. Of a trunk with fewer layers, everything.

    >>> import numpy as np
    >>> w, b = np.zeros((2, 2)), np.zeros(2)
    >>> net = {"trunk.1.weight": w, "trunk.1.bias": b, "trunk.3.weight": w, "heads.a.weight": w}
    >>> upper_layers(net, 1), len(upper_layers(net, 5))
    (('trunk.3.weight',), 3)
    """
    names = [name for name in arrays if task_of(name) == TRUNK]
    begins = [i for i, name in enumerate(names) if arrays[name].ndim > 1]
    return tuple(names[begins[-layers] if layers <= len(begins) else 0 :])


class TaskRestart(UnlearningStrategy):
    """A trunk whose upper layers are as before training, under the heads of the other tasks.

    What a task needs alone tends to sit in the layers next to the heads; what all tasks need, in
    those below. The heads that stay are trained already and draw the new layers to where they were
    for their tasks, but not for the forgotten one.

    Parameters
    ----------
    layers : int, default 1
        How many of the trunk's layers start anew (k); as many as there are, or more, is a new
        trunk under old heads. Our choice: on pairs of digits one of two layers costs the retained
        tasks nothing and takes out seven tenths of what retraining lacks, two take out nine tenths
        and cost two points.

    Notes
    -----
    No history but the initial model, and no help from those who hold the task. The head of the task
    is dropped (not for a partial request). Layers below keep what the task has taught them: compare
    a fresh probe with that of retraining. Without rounds of recovery the remaining tasks are
    ruined. A task without a head leaves the model as it is.
    """

    scopes = frozenset({Scope.TASK})
    needs = frozenset({INITIAL})

    def __init__(self, *, layers: int = 1) -> None:
        super().__init__()
        in_range("layers", layers, 1)
        self.layers = layers

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Drop the head, and start the upper layers anew."""
        if not set(request.tasks) & set(tasks_of(arrays)):
            return arrays, 0
        anew = frozenset(upper_layers(arrays, self.layers))
        after = without_heads(arrays, history, request)
        initial = history.initial  # read and unpacked whenever it is asked for
        return {n: initial[n] if n in anew else a for n, a in after.items()}, 0

"""The judge: looks at models from outside, with all the data of a simulation at hand.

A strategy never sees it. Along the way it looks at a subset of each set, at the end at all of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from experiments.federation.task import Examples, Task
from unlearning.arrays import Arrays
from unlearning.evaluation.metrics import accuracy, backdoor_success
from unlearning.evaluation.scorecard import Outputs, Predictions, Triggered
from unlearning.evaluation.tally import Groups, Tally, tally
from unlearning.request import Forgotten, Request

__all__ = ["Judge"]

Floats = NDArray[np.float32]

_GLANCE = 1000  # examples of each set looked at after every round


class Judge:
    """Measures models against what a set of requests names.

    Parameters
    ----------
    task : Task
        Data and model.
    requests : iterable of Request
        Their union is the forget set.
    device : str
        Where models are evaluated.
    """

    def __init__(self, task: Task, requests: Iterable[Request], device: str = "cpu") -> None:
        self._task, self._device = task, device
        asked = tuple(requests)
        self._sets = {
            "test": task.test_set(),
            "retain": task.retain_set(Forgotten(asked)),
            "forget": _joined([task.forget_set(request) for request in asked], task),
            "held_out": _joined([task.held_out_set(request) for request in asked], task),
        }
        self._triggered = task.triggered_test()
        self._groups = Groups(
            clients=task.retain_owners(Forgotten(asked)),
            columns=self._sets["retain"].y,
            test_columns=self._sets["test"].y,
            names=tuple(map(str, range(task.num_classes))),
        )

    def outputs(self, arrays: Arrays) -> Outputs:
        """Return what a model says about every set."""
        predictions = {
            name: Predictions(self._predict(arrays, found.x), found.y)
            for name, found in self._sets.items()
        }
        triggered = None
        if self._triggered is not None:
            probabilities = self._predict(arrays, self._triggered.x)
            target = self._triggered.target
            triggered = Triggered(probabilities, self._triggered.y, target=target)
        return Outputs(**predictions, triggered=triggered)

    def tally(self, outputs: Outputs) -> Tally:
        """Return the right answers per remaining client and class of a model's outputs."""
        return tally(outputs.retain, outputs.test, self._groups)

    def glance(self, arrays: Arrays) -> dict[str, float | None]:
        """Return accuracies on a fixed subset of each set, for the timeline."""
        found: dict[str, float | None] = {}
        for name in ("test", "retain", "forget"):
            chosen = _subset(len(self._sets[name].y))
            labels = self._sets[name].y[chosen]
            probabilities = self._predict(arrays, self._sets[name].x[chosen])
            found[f"{name}_accuracy"] = accuracy(probabilities, labels) if len(labels) else None
        if self._triggered is not None:
            data = self._triggered
            chosen = _subset(len(data.y))
            predicted = self._predict(arrays, data.x[chosen]).argmax(1)
            found["backdoor_success"] = backdoor_success(predicted, data.y[chosen], data.target)
        return found

    def _predict(self, arrays: Arrays, x: Floats) -> Floats:
        return self._task.predict(arrays, x, self._device)


def _joined(parts: list[Examples], task: Task) -> Examples:
    none = Examples(np.empty((0, *task.input_shape), np.float32), np.empty(0, dtype=np.int64))
    xs, ys = zip(none, *parts, strict=True)
    return Examples(np.concatenate(xs), np.concatenate(ys))


def _subset(size: int) -> NDArray[np.int64]:
    """Return at most ``_GLANCE`` positions, spread evenly and the same at every look."""
    if not size:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.linspace(0, size - 1, min(size, _GLANCE)).astype(np.int64))

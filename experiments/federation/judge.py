"""The judge: looks at models from outside, with all the data of a simulation at hand.

A strategy never sees it. Along the way it looks at a subset of each set, at the end at all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from experiments.federation.judged_sets import judged_sets
from experiments.federation.predicting import Looked
from experiments.federation.task import Examples, Task
from unlearning.arrays import Arrays
from unlearning.evaluation.metrics import accuracy, backdoor_success
from unlearning.evaluation.scorecard import Outputs, Predictions, Triggered
from unlearning.evaluation.tally import Groups, Tally, tally
from unlearning.request import Forgotten, Request

__all__ = ["Judge"]

Floats = NDArray[np.float32]
Kind = TypeVar("Kind", bound=np.generic)

_GLANCE = 1000  # examples of each set looked at after every round
_TRIGGERED = "triggered"  # beside the sets: the test examples that a patch is to mislead


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
        self._sets: dict[str, Examples] = judged_sets(task, asked)._asdict()
        self._triggered = task.triggered_test()
        self._groups = Groups(
            clients=task.retain_owners(Forgotten(asked)),
            columns=self._sets["retain"].y,
            test_columns=self._sets["test"].y,
            names=tuple(map(str, range(task.num_classes))),
        )

    def outputs(self, arrays: Arrays, *, alone: bool = False) -> Outputs:
        """Return what a model says about every set.

        ``alone``: about the forget set and the held-out data like it; the other sets stay empty.
        """
        arrays = Looked(arrays)
        wanted = {"forget", "held_out"} if alone else self._sets.keys()
        sets = {
            name: found if name in wanted else Examples(found.x[:0], found.y[:0])
            for name, found in self._sets.items()
        }
        seen = self._look(arrays, {**sets, **self._with_trigger})
        triggered = None
        if self._triggered is not None:
            said = seen[_TRIGGERED]
            triggered = Triggered(said.probabilities, said.labels, target=self._triggered.target)
        return Outputs(
            test=seen["test"],
            retain=seen["retain"],
            forget=seen["forget"],
            held_out=seen["held_out"],
            triggered=triggered,
        )

    def tally(self, outputs: Outputs) -> Tally:
        """Return the right answers per remaining client and class of a model's outputs."""
        return tally(outputs.retain, outputs.test, self._groups)

    def glance(self, arrays: Arrays) -> dict[str, float | None]:
        """Return accuracies on a fixed subset of each set, for the timeline."""
        arrays = Looked(arrays)
        sets = {name: self._sets[name] for name in ("test", "retain", "forget")}
        chosen = {name: _subset(one) for name, one in {**sets, **self._with_trigger}.items()}
        seen = self._look(arrays, chosen)
        found: dict[str, float | None] = {}
        for name in sets:
            said = seen[name]
            value = accuracy(said.probabilities, said.labels) if len(said) else None
            found[f"{name}_accuracy"] = value
        if self._triggered is not None:
            said, target = seen[_TRIGGERED], self._triggered.target
            target = target if isinstance(target, int) else _some(target)
            predicted = said.probabilities.argmax(1)
            found["backdoor_success"] = backdoor_success(predicted, said.labels, target)
        return found

    @property
    def _with_trigger(self) -> dict[str, Examples]:
        """The test examples with a backdoor's patch, if there is one."""
        shown = self._triggered
        return {} if shown is None else {_TRIGGERED: Examples(shown.x, shown.y)}

    def _look(self, arrays: Arrays, sets: Mapping[str, Examples]) -> dict[str, Predictions]:
        """Return what a model says about sets of examples, all of them looked at at once."""
        said = self._said(arrays, [found.x for found in sets.values()])
        pairs = zip(sets.items(), said, strict=True)
        return {name: self._predictions(own, found) for (name, found), own in pairs}

    def _said(self, arrays: Arrays, sets: Sequence[Floats]) -> list[Floats]:
        return self._task.predict_each(arrays, sets, self._device)

    def _predictions(self, said: Floats, found: Examples) -> Predictions:
        """Return what was said about examples, a row per label that is to be predicted."""
        return Predictions(said, found.y)


def _subset(examples: Examples) -> Examples:
    return Examples(_some(examples.x), _some(examples.y))


def _some(rows: NDArray[Kind]) -> NDArray[Kind]:
    """Return the rows that are looked at along the way."""
    return rows[_places(len(rows))]


@lru_cache(maxsize=16)
def _places(size: int) -> NDArray[np.int64] | slice:
    """Return at most ``_GLANCE`` positions, spread evenly and the same at every look.

    All of a small set, as a slice: nothing is copied.
    """
    if size <= _GLANCE:
        return slice(None)
    return np.unique(np.linspace(0, size - 1, _GLANCE).astype(np.int64))

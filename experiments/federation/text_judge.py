"""The judge of a federation that learns text: it looks at every character, not at the last alone.

What it says fills the same scorecard: accuracy per character, membership by the mean loss of a
window. A client's text can be long, so that of each set at most so many windows are looked at,
spread evenly over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.federation.judge import Judge
from experiments.federation.judged_sets import judged_sets
from experiments.federation.task import Examples, Task
from unlearning.arrays import Arrays
from unlearning.evaluation.scorecard import Predictions
from unlearning.evaluation.tally import EVERYTHING, Groups
from unlearning.request import Forgotten, Request

__all__ = ["TextJudge", "spread_evenly"]

Floats = NDArray[np.float32]

_MOST = 2000  # windows of a set: 64,000 characters at the usual length, 25 MB of probabilities


class TextJudge(Judge):
    """Measures models of text against what a set of requests names.

    Parameters
    ----------
    task : Task
        Data and model, which answers at every position.
    requests : iterable of Request
        Their union is the forget set.
    device : str
        Where models are evaluated.
    """

    def __init__(self, task: Task, requests: Iterable[Request], device: str = "cpu") -> None:
        self._task, self._device = task, device
        asked = tuple(requests)
        whole = judged_sets(task, asked)
        owners = task.retain_owners(Forgotten(asked))
        self._sets = {name: spread_evenly(found, _MOST) for name, found in whole._asdict().items()}
        kept = np.repeat(spread_evenly(Examples(whole.retain.x, owners), _MOST).y, self._each)
        tested = len(self._sets["test"].y) * self._each
        self._triggered = None  # a canary is no trigger
        # One column: a table of every character would say little of anybody.
        self._groups = Groups(
            clients=kept,
            columns=np.zeros(len(kept), np.int64),
            test_columns=np.zeros(tested, np.int64),
            names=(EVERYTHING,),
        )

    @property
    def _each(self) -> int:
        return self._task.input_shape[0]

    def _said(self, arrays: Arrays, sets: Sequence[Floats]) -> list[Floats]:
        return [self._task.predict_all(arrays, x, self._device) for x in sets]

    def _predictions(self, said: Floats, found: Examples) -> Predictions:
        labels = self._task.labels(found.x, found.y)
        return Predictions(said.reshape(-1, said.shape[-1]), labels.ravel(), each=self._each)


def spread_evenly(found: Examples, most: int) -> Examples:
    """Return at most so many examples, the same ones every time."""
    if len(found.y) <= most:
        return found
    chosen = np.linspace(0, len(found.y) - 1, most).astype(np.int64)
    return Examples(found.x[chosen], found.y[chosen])

"""The judge of a federation with several tasks: its examples are pairs of input and task.

What it says fills the same scorecard: accuracy over all labels of the tasks that stay, on training
and test data, and over the labels that are to be forgotten. On these a retrained model, whose head
has never seen a label, is at chance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clients.multitask import NONE
from experiments.federation.judge import Judge
from experiments.federation.judged_sets import WHOLE, Pool, drawn, pool
from experiments.federation.task import Examples, Task
from experiments.federation.text_judge import TextJudge
from unlearning.arrays import Arrays
from unlearning.evaluation.metrics import accuracy
from unlearning.evaluation.scorecard import Predictions
from unlearning.evaluation.tally import Groups
from unlearning.request import Forgotten, Request

__all__ = ["TaskJudge", "judge_of", "pair_predictions", "task_accuracy"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def judge_of(task: Task, requests: Iterable[Request], device: str = "cpu") -> Judge:
    """Return the judge that fits a task."""
    if task.is_sequential:
        return TextJudge(task, requests, device)
    return TaskJudge(task, requests, device) if task.tasks else Judge(task, requests, device)


def pair_predictions(task: Task, probabilities: Floats, labels: Integers) -> Predictions:
    """Return one prediction per label there is.

    Parameters
    ----------
    task : Task
        Says which columns of ``probabilities`` belong to which task.
    probabilities : array of shape (n, sum of classes)
        As :meth:`Task.predict` returns them.
    labels : array of shape (n, tasks)
        -1 where an example has none.
    """
    widest = max(task.tasks.values())
    ends = np.cumsum(list(task.tasks.values()))
    rows, truth = [np.empty((0, widest), np.float32)], [np.empty(0, np.int64)]
    for place, (end, size) in enumerate(zip(ends, task.tasks.values(), strict=True)):
        there = labels[:, place] != NONE
        found = np.zeros((int(there.sum()), widest), np.float32)
        found[:, :size] = probabilities[there, end - size : end]
        rows.append(found)
        truth.append(labels[there, place])
    return Predictions(np.concatenate(rows), np.concatenate(truth))


def task_accuracy(task: Task, arrays: Arrays, device: str = "cpu") -> dict[str, float]:
    """Return the accuracy of every task on the test data, fractions 0 to 1."""
    labels = task.test_task_labels()
    probabilities = task.predict(arrays, task.test_set().x, device)
    found = {}
    for place, name in enumerate(task.tasks):
        alone = np.where(np.arange(labels.shape[1]) == place, labels, NONE)
        pairs = pair_predictions(task, probabilities, alone)
        found[name] = accuracy(pairs.probabilities, pairs.labels)
    return found


class TaskJudge(Judge):
    """Measures models for several tasks against what a set of requests names.

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
        everywhere = {name for request in asked if not request.clients for name in request.tasks}
        stays = np.array([name not in everywhere for name in task.tasks])
        test = task.test_set()
        training, owners = self._training(Forgotten(asked))
        self._sets = {
            "test": Examples(test.x, np.where(stays, task.test_task_labels(), NONE)),
            **training,
        }
        self._triggered = None  # a marker changes the labels of one task alone
        # In the order in which pairs are predicted: task by task, in each the examples' own.
        columns, rows = (self._sets["retain"].y != NONE).T.nonzero()
        self._groups = Groups(
            clients=owners[rows],
            columns=columns,
            test_columns=(self._sets["test"].y != NONE).T.nonzero()[0],
            names=tuple(task.tasks),
            by="task",
        )

    def _predictions(self, said: Floats, found: Examples) -> Predictions:
        return pair_predictions(self._task, said, found.y)

    def _training(self, forgotten: Forgotten) -> tuple[dict[str, Examples], Integers]:
        """Return the pairs that stay, those to be forgotten, and held-out ones like the latter.

        Beside them the client of every example that stays.
        """
        task, parts = self._task, {"retain": [], "forget": [], "held_out": []}  # type: ignore[var-annotated]
        owners, pools, fresh = [np.empty(0, np.int64)], [], []
        for client, gone in task.pairs(forgotten).items():
            data = task.client(client)
            labels, held_labels = task.task_labels(client)
            for name, mask in (("retain", ~gone), ("forget", gone)):
                parts[name].append(_with_labels(data.train_x, np.where(mask, labels, NONE)))
            owners.append(np.full(len(parts["retain"][-1].y), client))
            many = len(task.tasks)
            pools += [
                _pool(client * many + at, labels[:, at], held_labels[:, at], gone[:, at])
                for at in range(many)
            ]
            fresh.append((data.held_x, held_labels))
        chosen = iter(drawn(pools))
        for x, held_labels in fresh:
            like = np.stack([next(chosen) for _ in task.tasks], axis=1)
            parts["held_out"].append(_with_labels(x, np.where(like, held_labels, NONE)))
        training = {
            name: Examples(
                np.concatenate([part.x for part in found]),
                np.concatenate([part.y for part in found]),
            )
            for name, found in parts.items()
        }
        return training, np.concatenate(owners)


def _pool(owner: int, labels: Integers, held: Integers, gone: NDArray[np.bool_]) -> Pool:
    """Return what the non-members of a client's task are drawn from: by label, if some stay."""
    there = labels != NONE
    whole = bool(gone.any()) and bool(gone[there].all())
    members = np.full(int((gone & there).sum()), WHOLE) if whole else labels[gone & there]
    kinds = np.where(held == NONE, -1, WHOLE if whole else held)
    return pool(owner, members, kinds)


def _with_labels(x: Floats, y: Integers) -> Examples:
    there = (y != NONE).any(axis=1)
    return Examples(x[there], y[there])

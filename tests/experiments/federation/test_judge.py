"""Judges: their counts per client and class or task are those of the very models they score."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_judge import judge_of, task_accuracy
from unlearning.evaluation.metrics import accuracy
from unlearning.evaluation.scorecard import score
from unlearning.request import Request, Scope

REQUESTS = {
    "client": Request(Scope.CLIENT, clients=(2,)),
    "samples": Request(Scope.SAMPLE, samples={1: (0, 5, 7)}),
    "class": Request(Scope.CLASS, classes=(3,)),
    "class at a client": Request(Scope.SAMPLE, clients=(0,), classes=(3,)),
}


@pytest.fixture(scope="module")
def made() -> Task:
    raw = {"data": {"clients": 4, "limit": 400}, "model": {"hidden": 8}}
    return task(Scenario.of(from_mapping(raw)))


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_counts_are_those_of_each_client_asked_by_itself(made: Task, request_: Request) -> None:
    arrays, judge = made.initial(), judge_of(made, [request_])
    outputs = judge.outputs(arrays)
    found = judge.tally(outputs)
    gone = {
        "client": lambda k, y: np.full(len(y), k == 2),
        "samples": lambda k, y: np.isin(np.arange(len(y)), [0, 5, 7]) & (k == 1),
        "class": lambda k, y: y == 3,
        "class at a client": lambda k, y: (y == 3) & (k == 0),
    }[next(name for name, one in REQUESTS.items() if one is request_)]
    for client in made.clients:
        x, y, _, _ = made.client(client)
        stays = ~gone(client, y)
        if not stays.any():
            assert client not in found.clients
            continue
        right = made.predict(arrays, x).argmax(1) == y
        row = found.clients.index(client)
        for label in range(10):
            chosen = stays & (y == label)
            assert found.total[row][label] == chosen.sum()
            assert found.correct[row][label] == right[chosen].sum()
    card = score(outputs)
    assert np.sum(found.correct) / np.sum(found.total) == pytest.approx(card.retain_accuracy)
    test = np.sum(found.test_correct) / np.sum(found.test_total)
    assert test == pytest.approx(card.test_accuracy)


def test_counts_of_tasks_are_those_of_each_task_asked_by_itself() -> None:
    raw = {
        "data": {"name": "digit-pairs", "clients": 6, "limit": 300, "tasks_per_client": 2},
        "model": {"name": "multi-task"},
    }
    found = task(Scenario.of(from_mapping(raw)))
    arrays = found.initial()
    judge = judge_of(found, [Request(Scope.TASK, tasks=("parity",))])
    outputs = judge.outputs(arrays)
    made = judge.tally(outputs)
    assert made.by == "task"
    assert made.columns == ("left", "right", "parity")
    each = task_accuracy(found, arrays)
    for place, name in enumerate(made.test_columns[:2]):
        assert made.test_correct[place] / made.test_total[place] == pytest.approx(each[name])
    assert made.test_total[2] == 0  # not asked any more
    for client in found.clients:
        data, (labels, _) = found.client(client), found.task_labels(client)
        probabilities = found.predict(arrays, data.train_x)
        row = made.clients.index(client)
        for place, columns in enumerate((slice(0, 10), slice(10, 20))):
            there = labels[:, place] >= 0
            assert made.total[row][place] == there.sum()
            if there.any():
                expected = accuracy(probabilities[there, columns], labels[there, place])
                share = made.correct[row][place] / made.total[row][place]
                assert share == pytest.approx(expected)
        assert made.total[row][2] == 0

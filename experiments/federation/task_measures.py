"""What a request for a task did to every task, and what a trunk still holds of the forgotten one.

Beside the scorecard, which pools all labels: catastrophic forgetting shows in the worst of the
retained tasks, and a forgotten task may live on in the trunk after its head is gone. Everything is
measured on test data; the scales are the original and the retrained model.

References
----------
Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019
(arXiv 1905.00414), for linear CKA. The set of measures is this project's.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from flwr.serverapp import Grid
from numpy.typing import NDArray

from clients.multitask import NONE, MultiTask
from experiments.config.loading import Config
from experiments.federation.party import Party
from experiments.federation.task import Task
from experiments.federation.task_judge import task_accuracy
from experiments.models import networks as models
from experiments.runs.details import TaskMeasure
from experiments.runs.results import ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.models.heads import task_of
from unlearning.protocol import Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request

__all__ = ["linear_cka", "measure", "probe_accuracy", "relearn_limit", "relearn_rounds"]

log = logging.getLogger("fedunlearn")

_PROBE = 300  # labelled examples that a fresh head is trained on
_RELEARN = 20  # rounds at most
_NEAR = 0.02  # relearned: within this of the original's accuracy
_CHUNK = 1024  # examples per forward pass

Floats = NDArray[np.float32]


def measure(
    grid: Grid,
    config: Config,
    found: Task,
    requests: Sequence[Request],
    parties: Sequence[Party],
    *,
    limit: int | None = None,
    say: Callable[[str], None] = lambda strategy: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[TaskMeasure]:
    """Return what requests for tasks did; empty if none of them names a task.

    Parameters
    ----------
    grid : Grid
        Relearning runs on it; its nodes are the clients.
    config : Config
        With the seed of the federation.
    found : Task
        Data and model of that seed.
    requests : sequence of Request
        All that were served.
    parties : sequence of Party
        Of this seed; the original is among them. Without a retrained model, nothing is compared
        with it.
    limit : int or None
        Rounds after which relearning is given up; None: :func:`relearn_limit`, 0: no relearning.
    say : callable
        Told of every strategy whose turn has come.
    stop : callable
        True cancels.
    """
    asked = tuple(dict.fromkeys(name for request in requests for name in request.tasks))
    by_name = {party.strategy: party.arrays for party in parties}
    if not asked or ORIGINAL not in by_name:
        return []
    original, retrained = by_name[ORIGINAL], by_name.get(RETRAIN)
    most = relearn_limit(config) if limit is None else limit
    sight = _Sight(grid, config, found, requests, original, retrained, most, stop)
    measured = []
    for party in parties:
        say(party.strategy)
        for name, task, value in sight.look(party.arrays):
            measured.append(
                TaskMeasure(
                    strategy=party.strategy,
                    seed=config.seed,
                    measure=name,
                    task=task,
                    value=value,
                )
            )
    return measured


class _Sight:
    """Measures models beside the original and, where there is one, the retrained one."""

    def __init__(
        self,
        grid: Grid,
        config: Config,
        found: Task,
        requests: Iterable[Request],
        original: Arrays,
        retrained: Arrays | None,
        limit: int,
        stop: Callable[[], bool],
    ) -> None:
        self._grid, self._config, self._found = grid, config, found
        self._limit, self._stop = limit, stop
        self._original, self._retrained = original, retrained
        requests = tuple(requests)
        left = _labels_left(found, Forgotten(requests))
        self._asked = tuple(dict.fromkeys(name for request in requests for name in request.tasks))
        self._stays = tuple(name for name in found.tasks if left[name])
        self._gone = tuple(name for name in self._asked if not left[name])
        self._before = task_accuracy(found, original, config.device)
        self._target = None if retrained is None else task_accuracy(found, retrained, config.device)
        inputs = {name: _test_inputs(found, name) for name in self._asked}
        self._inputs = {name: x for name, x in inputs.items() if len(x)}

    def look(self, arrays: Arrays) -> Iterator[tuple[str, str | None, float]]:
        """Yield measure, task and value; see :class:`~experiments.runs.details.TaskMeasure`."""
        seen = task_accuracy(self._found, arrays, self._config.device)
        yield from (("accuracy", name, value) for name, value in seen.items())
        yield "retained", None, float(np.mean([seen[name] for name in self._stays]))
        worst = min(self._stays, key=lambda name: seen[name])
        yield "retained_worst", worst, seen[worst]
        if self._target is not None:
            change = {name: seen[name] - self._target[name] for name in self._stays}
            yield from (("change", name, value) for name, value in change.items())
            worst = min(change, key=lambda name: change[name])
            yield "worst_change", worst, change[worst]
        yield from self._traces(arrays)
        for name, x in self._inputs.items():
            here = features(self._found, arrays, x)
            for label, other in (("original", self._original), ("retrained", self._retrained)):
                if other is not None:
                    like = features(self._found, other, x)
                    yield f"cka_{label}", name, linear_cka(here, like)

    def _traces(self, arrays: Arrays) -> Iterator[tuple[str, str, float]]:
        """Yield what is left of the tasks that nobody keeps."""
        if not self._gone:
            return
        heads = {n: a for n, a in self._original.items() if task_of(n) in self._gone}
        old = task_accuracy(self._found, {**arrays, **heads}, self._config.device)
        goals = {name: self._before[name] - _NEAR for name in self._gone}
        for name in self._gone:
            yield "old_head", name, old[name]
            yield "probe", name, probe_accuracy(self._found, arrays, name, self._config.seed)
        if not self._limit:
            return
        try:
            rounds = relearn_rounds(
                self._grid, self._config, self._found, arrays, goals, self._limit, stop=self._stop
            )
        except FederationError as error:
            # What was found so far must not be lost with it.
            log.warning("rounds to relearn were not measured: %s", error)
        else:
            yield from (("relearn_rounds", name, float(n)) for name, n in rounds.items())


def features(found: Task, arrays: Arrays, x: Floats) -> Floats:
    """Return what the trunk makes of some inputs, shape (n, width)."""
    model = models.load(found.fresh_model(0), arrays)
    if not isinstance(model, MultiTask):
        raise TypeError(f"{type(model).__name__} has no trunk; take the model multi-task")
    with torch.inference_mode():
        chunks = torch.split(torch.from_numpy(np.ascontiguousarray(x)), _CHUNK)
        read: Floats = torch.cat([model.eval().trunk(chunk) for chunk in chunks]).numpy()
    return read


def probe_accuracy(found: Task, arrays: Arrays, name: str, seed: int) -> float:
    """Return the test accuracy of a fresh ridge head for a task on the frozen trunk.

    It is trained on 300 labelled examples of the clients' data, the same for every trunk.
    """
    from sklearn.linear_model import RidgeClassifier

    place = list(found.tasks).index(name)
    xs, ys = [], []
    for client in found.clients:
        labels, _ = found.task_labels(client)
        there = labels[:, place] != NONE
        xs.append(found.client(client).train_x[there])
        ys.append(labels[there, place])
    x, y = np.concatenate(xs), np.concatenate(ys)
    some = np.random.default_rng([seed, 300]).permutation(len(y))[:_PROBE]
    head = RidgeClassifier().fit(features(found, arrays, x[some]), y[some])
    labels = found.test_task_labels()[:, place]
    read = features(found, arrays, _test_inputs(found, name))
    return float((head.predict(read) == labels[labels != NONE]).mean())


def linear_cka(left: Floats, right: Floats) -> float:
    """Return the linear CKA of two representations of the same inputs, 0 to 1.

    A representation that is constant is like no other: 0.
    """
    a, b = (part - part.mean(axis=0, dtype=np.float64) for part in (left, right))
    cross = np.linalg.norm(a.T @ b) ** 2
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(cross / scale) if scale else 0.0


def relearn_limit(config: Config) -> int:
    """Return after how many rounds relearning is given up: twenty, or as many as were learned."""
    return min(_RELEARN, config.rounds)


def relearn_rounds(
    grid: Grid,
    config: Config,
    found: Task,
    arrays: Arrays,
    goals: Mapping[str, float],
    limit: int,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Return the rounds of ordinary learning of all tasks until each has reached its goal.

    Parameters
    ----------
    grid : Grid
        Its nodes are the clients.
    config : Config
        Its ``[train]`` says how; the draws are new ones.
    found : Task
        Data and model; every client takes part, with all it ever held.
    arrays : Arrays
        Where learning begins.
    goals : mapping of str to float
        Test accuracy that a task must reach.
    limit : int
        Rounds after which it is given up.
    stop : callable
        True cancels.

    Returns
    -------
    dict
        One more than ``limit`` where the goal was not reached by then.
    """
    reached: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as home:
        federation = _ordinary(grid, config, found, home, stop)
        for server_round in range(1, limit + 1):
            learner = UnlearningStrategy()
            learner.join(federation)
            arrays = to_arrays(learner.start(grid, to_record(arrays), num_rounds=1).arrays)
            seen = task_accuracy(found, arrays, config.device)
            for name in goals.keys() - reached.keys():
                if seen[name] >= goals[name]:
                    reached[name] = server_round
            if len(reached) == len(goals):
                break
    return {name: reached.get(name, limit + 1) for name in goals}


def _ordinary(
    grid: Grid, config: Config, found: Task, home: str, stop: Callable[[], bool]
) -> Federation:
    """Return a federation that learns as the measured one did and keeps nothing."""
    settings = {
        Wire.SCENARIO: found.scenario.to_json(),
        Wire.DEVICE: config.device,
        Wire.HOME: home,
    }
    train = config.train.model_dump()
    fraction = train.pop("fraction")
    return Federation(
        seed=config.seed + 1000,
        history=History(),
        ledger=Ledger(),
        train=train,
        fraction=fraction,
        recovery_rounds=0,
        client_config=settings,
        timeout_s=config.engine.timeout_s,
        min_replies=config.engine.min_replies,
        stop=stop,
        roster=Roster.discover(grid, len(found.clients), settings, timeout_s=60, stop=stop),
    )


def _labels_left(found: Task, forgotten: Forgotten) -> dict[str, int]:
    """Return how many training labels of every task are not forgotten."""
    counts = np.zeros(len(found.tasks), np.int64)
    for client, gone in found.pairs(forgotten).items():
        labels, _ = found.task_labels(client)
        counts += ((labels != NONE) & ~gone).sum(axis=0)
    return dict(zip(found.tasks, counts.tolist(), strict=True))


def _test_inputs(found: Task, name: str) -> Floats:
    """Return the test inputs that have a label for a task."""
    there = found.test_task_labels()[:, list(found.tasks).index(name)] != NONE
    x: Floats = found.test_set().x[there]
    return x

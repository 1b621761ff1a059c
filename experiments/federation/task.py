"""A task: model, shared-out data with its marker, and the sets by which forgetting is judged.

A :class:`Scenario` says in plain values what a task is made of; every process that receives it
builds the same task, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clients.multitask import NONE
from experiments.config.schema import Config, MarkerConfig
from experiments.data import datasets as data
from experiments.data import markers
from experiments.data.sites import REMOTE
from experiments.federation import asking, planting
from experiments.federation.examples import (
    ClientData,
    Examples,
    PlantedNoise,
    TriggeredExamples,
)
from experiments.federation.learned import Learned
from experiments.federation.scenario import Scenario
from experiments.federation.sources import declared, shared_out
from experiments.runs.folder import FederationFacts
from experiments.runs.record_ids import RecordIds
from unlearning.columns import Columns
from unlearning.errors import ConfigError, RequestError
from unlearning.request import Forgotten, Omission, Request

__all__ = [
    "ClientData",
    "Examples",
    "PlantedNoise",
    "Scenario",
    "Task",
    "TriggeredExamples",
    "forget_tasks",
    "task",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@lru_cache(maxsize=4)
def _of_text(text: str) -> Task:
    return Task(Scenario.from_json(text))


def task(scenario: Scenario | str) -> Task:
    """Return the task of a scenario, or of its JSON; the last four stay in memory.

    Raises
    ------
    ConfigError
        If the scenario cannot be built.
    """
    return _of_text(scenario if isinstance(scenario, str) else scenario.to_json())


def forget_tasks() -> None:
    """Drop the tasks and data sets that are kept in memory: what they were read from changed."""
    _of_text.cache_clear()
    data.load.cache_clear()


class Task(Learned):
    """Model and data of one federation; see :func:`task`.

    Parameters
    ----------
    scenario : Scenario
        What it is made of.

    Raises
    ------
    ConfigError
        If data, partition, model or marker cannot be built as asked.
    """

    def __init__(self, scenario: Scenario) -> None:
        chosen = scenario.data
        self.remote = chosen.name == REMOTE
        sources = (
            declared(chosen, scenario.marker)
            if self.remote
            else shared_out(chosen, scenario.data_seed)
        )
        self._data, self._public, self._partition = sources.data, sources.public, sources.shares
        super().__init__(scenario, self._data)
        marker = scenario.marker
        self.marker = None if marker is None else markers.placed(marker, self._data.train_x)
        self._marked = self._planted(self.marker)
        self.columns = self._columns()
        self._labels = {client: self.client(client).train_y for client in self.clients}
        known = chosen.rows or [0] * len(self.clients)  # sites say how many when they join
        self._told = dict(zip(chosen.members or self.clients, known, strict=True))

    @property
    def clients(self) -> tuple[int, ...]:
        """The stable client ids, 0 to K-1."""
        return tuple(self._partition.train)

    def client(self, client: int) -> ClientData:
        """Return one client's data, marker planted; a fresh copy.

        Raises
        ------
        RequestError
            If there is no such client.
        """
        if client not in self._partition.train:
            raise RequestError(f"unknown client {client} (known: 0 to {len(self.clients) - 1})")
        if client in self._marked:
            train, held_out = self._marked[client]
            return ClientData(train.x.copy(), train.y.copy(), held_out.x.copy(), held_out.y.copy())
        return ClientData(
            *self._rows(self._partition.train[client]),
            *self._rows(self._partition.held_out[client]),
        )

    def asked(self, client: int) -> Examples | None:
        """Return the training data that a client helps to unlearn with; None: as it trained.

        Where ``marker.unlearn_fraction`` says so another share of them carries the marker: all of
        the smaller share are among the larger one. FedOSD's program poisons the data anew.
        """
        marker = self.marker
        if marker is None or client not in self._marked or marker.unlearn_fraction is None:
            return None
        other = marker.model_copy(update={"fraction": marker.unlearn_fraction})
        marked, _ = self._planted(other)[client]
        return Examples(marked.x, marked.y)

    def task_labels(self, client: int) -> tuple[Integers, Integers]:
        """Return the labels of a client's training and held-out data for every task.

        Shape (n, number of tasks), -1 where an example has none or the client does not hold the
        task. Client k holds the tasks k, k+1, ... in their order, ``data.tasks_per_client`` of
        them.
        """
        found = self._data.train_tasks
        if found is None:
            return np.empty((0, 0), np.int64), np.empty((0, 0), np.int64)
        count = len(self.tasks)
        held = [(client + i) % count for i in range(self.scenario.data.tasks_per_client or count)]
        keeps = np.isin(np.arange(count), held)
        parts = (self._partition.train[client], self._partition.held_out[client])
        train, held_out = (np.where(keeps, found[rows], NONE) for rows in parts)
        return train, held_out

    def test_task_labels(self) -> Integers:
        """Return the labels of the test examples for every task, as :meth:`task_labels` does."""
        found = self._data.test_tasks
        return np.empty((0, 0), np.int64) if found is None else found

    def pairs(self, forgotten: Forgotten) -> dict[int, NDArray[np.bool_]]:
        """Return which training labels of every client are forgotten, shape (n, tasks)."""
        names = list(self.tasks)
        found = {}
        for client in self.clients:
            labels, _ = self.task_labels(client)
            gone = np.isin(names, sorted(forgotten.omission(client).tasks))
            rows = ~self.kept(client, forgotten)
            found[client] = (labels != NONE) & (gone | rows[:, None])
        return found

    def marked(self, client: int) -> tuple[int, ...]:
        """Return the positions of the training samples of ``client`` that carry the marker."""
        found = self._marked.get(client)
        return tuple(found[0].positions.tolist()) if found else ()

    def marked_held_out(self, client: int) -> tuple[int, ...]:
        """Return the positions of the held-out samples of ``client`` that carry the marker."""
        found = self._marked.get(client)
        return tuple(found[1].positions.tolist()) if found else ()

    @property
    def marked_samples(self) -> dict[int, tuple[int, ...]]:
        """Every client with a marker and the positions it was planted at."""
        return {client: self.marked(client) for client in self._marked}

    def requests(self, config: Config) -> tuple[Request, ...]:
        """Return the scheduled requests of ``config``, checked; ``marked`` becomes positions.

        Raises
        ------
        RequestError
            If one names what is not there, or nothing would be left to train on.
        """
        found = self.scheduled(config)
        self.check(*found)
        return found

    def scheduled(self, config: Config) -> tuple[Request, ...]:
        """Return the scheduled requests of ``config``, in positions."""
        return config.domain_requests(self.marked_samples, self.find_records, self.columns)

    def record_ids(self) -> RecordIds | None:
        """Return the records' own ids; None: the data have none, or the sites keep them."""
        if (ids := self._data.ids) is None:
            return None
        shares = self._partition
        kept_back = (ids[rows].tolist() for rows in shares.held_out.values())
        return RecordIds.of(
            {client: ids[rows].tolist() for client, rows in shares.train.items()},
            [one for part in kept_back for one in part],
        )

    def find_records(
        self, records: Sequence[str], clients: Sequence[int] = ()
    ) -> Mapping[int, tuple[int, ...]]:
        """Return the positions of records by their own ids, by client.

        Raises
        ------
        RequestError
            If one is unknown, or the data have no ids.
        """
        if (known := self.record_ids()) is None:
            raise asking.without_ids(None if self.remote else self.scenario.data.name)
        return known.find(records, clients)

    def check(self, *requests: Request) -> None:
        """Refuse requests, served one after the other, that make no sense for this task.

        Raises
        ------
        RequestError
            For an unknown client, sample, class or task; for one that forgets nothing, or nothing
            that is still there; if no client or no example would be left.
        """
        asking.check(requests, self.facts(), None if self.remote else self)

    def holds(self, request: Request) -> bool:
        """Return whether any client holds what a request names."""
        alone = Forgotten((request,))
        if self.tasks and not any(found.any() for found in self.pairs(alone).values()):
            return False
        return bool(request.tasks) or len(self.forget_set(request).y) > 0

    def leaves(self, forgotten: Forgotten) -> bool:
        """Return whether any example is left to train on."""
        if self.tasks:
            held = {client: self.task_labels(client)[0] != NONE for client in self.clients}
            gone = self.pairs(forgotten)
            if not any((held[client] & ~gone[client]).any() for client in self.clients):
                return False
        return any(self.kept(client, forgotten).any() for client in self.clients)

    def facts(self) -> FederationFacts:
        """Return who takes part and what can be forgotten."""
        return FederationFacts(
            clients=(
                dict(sorted(self._told.items()))
                if self.remote
                else {client: len(labels) for client, labels in self._labels.items()}
            ),
            # A character is no class that anybody could ask to forget.
            classes=() if self.is_sequential else tuple(range(self.num_classes)),
            tasks=tuple(self.tasks),
            holders=self.holders(),
            features=self.columns.size,
            shape=self.columns.shape,
            columns=self.columns.names,
        )

    def told(self, sizes: Mapping[int, int]) -> None:
        """Take in how many training examples the sites say that they hold, by client."""
        self._told |= dict(sizes)

    def holders(self) -> dict[str, tuple[int, ...]]:
        """Return the clients that hold training examples of every task."""
        held = {
            client: (self.task_labels(client)[0] != NONE).any(axis=0) for client in self.clients
        }
        return {
            name: tuple(client for client in self.clients if held[client][place])
            for place, name in enumerate(self.tasks)
        }

    def kept(self, client: int, forgotten: Forgotten) -> NDArray[np.bool_]:
        """Return which of a client's training examples stay, booleans of shape (n,)."""
        labels, gone = self._labels[client], forgotten.omission(client)
        if gone.everything:
            return np.zeros(len(labels), dtype=bool)
        return ~(_at(gone, len(labels)) | np.isin(labels, sorted(gone.classes)))

    def forget_set(self, request: Request) -> Examples:
        """Return the training examples that a request names, as they were trained on."""
        gone = Forgotten((request,))
        return self._training({client: self.named(client, gone) for client in self.clients})

    def named(self, client: int, forgotten: Forgotten) -> NDArray[np.bool_]:
        """Return which of a client's training examples are concerned, booleans of shape (n,).

        Those that go, and those that stay without some of their values.
        """
        blank = bool(forgotten.omission(client).features)
        return ~self.kept(client, forgotten) | blank

    def retain_set(self, forgotten: Forgotten, limit: int | None = None) -> Examples:
        """Return all training examples that are not forgotten.

        Parameters
        ----------
        forgotten : Forgotten
            What must not be trained on any more.
        limit : int or None
            At most so many, chosen with equal shares of every class; always the same ones.
        """
        kept = {client: self.kept(client, forgotten) for client in self.clients}
        found = self._training(kept, forgotten)
        if limit is None or limit >= len(found.y):
            return found
        chosen = data.stratified(found.y, limit)
        return Examples(found.x[chosen], found.y[chosen])

    def retain_owners(self, forgotten: Forgotten) -> Integers:
        """Return the client of every example of the retain set, in its order; shape (n,)."""
        kept = {client: int(self.kept(client, forgotten).sum()) for client in self.clients}
        return np.repeat(np.array(list(kept), np.int64), list(kept.values()))

    def joined(self, parts: Iterable[Examples]) -> Examples:
        """Return parts of this task's data one after the other; there may be none."""
        none = Examples(np.empty((0, *self.input_shape), np.float32), np.empty(0, dtype=np.int64))
        xs, ys = zip(none, *parts, strict=True)
        return Examples(np.concatenate(xs), np.concatenate(ys))

    def public_set(self) -> Floats:
        """Return what the server has to train on: examples no client holds, without labels.

        Shape (n, ...); n is 0 unless ``data.public`` sets some aside.
        """
        return self._data.train_x[self._public]

    def test_set(self) -> Examples:
        """Return the test examples, without marker."""
        return Examples(self._data.test_x, self._data.test_y)

    def triggered_test(self) -> TriggeredExamples | None:
        """Return the test examples that a patch is to mislead, with it; None without a patch."""
        return planting.triggered(self.marker, self.test_set(), self.num_classes)

    def planted_noise(self) -> PlantedNoise | None:
        """Return the noise on the marked client's training examples; None without such a marker."""
        marker = self.marker
        if marker is None or marker.kind != "noise" or marker.client is None:
            return None
        clean = self._rows(self._partition.train[marker.client])
        return planting.noise(self._marked[marker.client][0], clean)

    def _columns(self) -> Columns:
        """Return what the values of an example are called; none, where none can be forgotten."""
        if self._trunk is not None or self.tasks or self.is_sequential:
            return Columns(whole=True)
        spurious = planting.spurious(self.marker, self.input_shape)
        return Columns(self.input_shape, self._data.columns, spurious)

    def _planted(
        self, marker: MarkerConfig | None
    ) -> dict[int, tuple[markers.Marked, markers.Marked]]:
        scenario = replace(self.scenario, marker=marker)
        if marker is not None and self.is_sequential != (marker.kind == "canary"):
            reads = "reads text" if self.is_sequential else "does not read text"
            raise ConfigError(
                f"marker.kind = {marker.kind!r}, and model {self.scenario.model.name!r} {reads}; "
                "plant a 'canary' in text, and another marker elsewhere"
            )
        return planting.planted(scenario, self._partition, self._rows, self.num_classes, self.tasks)

    def planted_canaries(self) -> markers.Canaries | None:
        """Return what was planted in a client's text; None without such a marker."""
        return planting.canaries(self.scenario, self._partition, self._rows)

    @property
    def owners(self) -> tuple[str, ...]:
        """What the clients are called, where the data say and each owner is one; else ()."""
        named = self._data.owners
        return named if self.scenario.data.partitioner == "natural-id" else ()

    def _rows(self, positions: Integers) -> Examples:
        return Examples(self._data.train_x[positions], self._data.train_y[positions])

    def _training(
        self, chosen: Mapping[int, NDArray[np.bool_]], blank: Forgotten | None = None
    ) -> Examples:
        """Return training examples, without the values that ``blank`` takes from their clients."""
        parts = []
        for client, wanted in chosen.items():
            if wanted.any():
                x, y, _, _ = self.client(client)
                gone = blank.omission(client).features if blank is not None else frozenset()
                x.reshape(len(x), -1)[:, sorted(gone)] = 0
                parts.append(Examples(x[wanted], y[wanted]))
        return self.joined(parts)


def _at(omission: Omission, count: int) -> NDArray[np.bool_]:
    """Return which of ``count`` positions an omission names one by one."""
    return np.isin(np.arange(count), sorted(omission.samples))

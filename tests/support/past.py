"""Recorded pasts made by hand, for strategies that need no client to answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from experiments.federation.grids import LocalGrid
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.records.history import COLUMNS, History
from unlearning.request import Request, Scope
from unlearning.weighing import Examples, part_of
from unlearning.weighing import mean as weighted_mean

__all__ = ["Round", "TaskRound", "forget", "joined", "past", "random_past", "task_past", "vector"]

Round = Mapping[int, tuple[int, Arrays]]  # client -> (examples, update)


def vector(*values: float) -> Arrays:
    """Return a model of one parameter array in float64, so that golden numbers stay exact."""
    return {"w": np.array(values, dtype=np.float64)}


def past(
    initial: Arrays, rounds: Iterable[Round], *, keep: Iterable[str] = COLUMNS, interval: int = 1
) -> tuple[History, Arrays]:
    """Return a history of FedAvg rounds with the given answers, and the model after the last."""
    history = History(keep=tuple(keep), interval=interval)
    history.start(initial)
    current = initial
    for t, answers in enumerate(rounds, 1):
        with history.record(t, current) as entry:
            for client, (count, update) in answers.items():
                entry.add(client, count, update)
        mean = named.weighted_mean(answers.values())
        current = named.apply_update(current, mean)
    return history, current


def random_past(
    seed: int, *, rounds: int = 6, clients: int = 4, size: int = 5, scale: float = 0.3
) -> tuple[History, Arrays, list[Round]]:
    """Return a history of random answers of two to all clients, unequal counts, mixed signs."""
    rng = np.random.default_rng(seed)
    answers: list[Round] = []
    for _ in range(rounds):
        there = sorted(rng.choice(clients, size=int(rng.integers(2, clients + 1)), replace=False))
        answers.append(
            {
                int(k): (int(rng.integers(1, 9)), vector(*rng.normal(scale=scale, size=size)))
                for k in there
            }
        )
    history, final = past(vector(*rng.normal(size=size)), answers)
    return history, final, answers


TaskRound = Mapping[int, tuple[Examples, Arrays]]  # client -> (examples by part, update)


def task_past(
    seed: int, holders: Mapping[str, Iterable[int]], *, rounds: int = 1, clients: int = 5
) -> tuple[History, Arrays, list[TaskRound]]:
    """Return a history of a model for several tasks, its last model, and what clients answered.

    ``holders`` says who has which task. All take part; a client trains the trunk, and the heads of
    its tasks, on numbers of examples that are drawn; a head that it does not train it leaves.
    """
    rng = np.random.default_rng(seed)
    names = ["trunk.w", *(f"heads.{task}.w" for task in holders)]
    initial = {name: rng.normal(size=3) for name in names}
    history = History(keep=COLUMNS)
    history.start(initial)
    current, answers = initial, []
    for t in range(1, rounds + 1):
        answers.append({})
        with history.record(t, current) as entry:
            for client in range(clients):
                total = int(rng.integers(20, 90))
                parts = {
                    task: int(rng.integers(1, total + 1)) if client in owners else 0
                    for task, owners in holders.items()
                }
                examples = Examples(total, {"": total, **parts})
                update = {
                    name: rng.normal(size=3) * (examples.of(part_of(name)) > 0) for name in names
                }
                entry.add(client, examples, update)
                answers[-1][client] = examples, update
        current = named.apply_update(current, weighted_mean(answers[-1].values()))
    return history, current, answers


def joined(strategy: UnlearningStrategy, history: History, clients: int = 4) -> UnlearningStrategy:
    """Return the strategy in a federation whose clients must not be asked anything."""
    roster = Roster(LocalGrid(lambda *_: None, 0), {k: 100 + k for k in range(clients)})
    completed = max(history.rounds, default=0)
    strategy.join(Federation(history=history, roster=roster, completed=completed))
    return strategy


def forget(*clients: int, id: str = "request-1", at_round: int | None = None) -> Request:
    """Return a request of client scope."""
    return Request(Scope.CLIENT, clients=clients, id=id, at_round=at_round)

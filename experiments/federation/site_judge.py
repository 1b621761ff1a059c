"""The judge of a federation whose data lie at the sites: it asks them, and adds up what they tell.

The server's own test set is looked at here, if it has one. What needs single examples, as an attack
on membership does, nobody can measure: it stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from experiments.federation.judge import Judge
from experiments.federation.task import Task
from strategies.federation import Federation
from strategies.telling import ask_splits
from unlearning.arrays import Arrays
from unlearning.evaluation.scorecard import Outputs
from unlearning.request import Request
from unlearning.told import Told

__all__ = ["Ask", "SiteJudge", "site_judge"]

Ask = Callable[[Arrays, tuple[Request, ...]], dict[str, Told]]


class SiteJudge(Judge):
    """Measures models against what a set of requests names, with the sites' help.

    Parameters
    ----------
    task : Task
        Shape, classes, and the server's test set.
    requests : iterable of Request
        Their union is the forget set.
    device : str
        Where the test set is looked at.
    ask : callable
        ``ask(arrays, requests)`` returns what the sites tell of a model.
    """

    def __init__(self, task: Task, requests: Iterable[Request], device: str, ask: Ask) -> None:
        asked = tuple(requests)
        super().__init__(task, asked, device)
        self._asked, self._ask = asked, ask

    def outputs(self, arrays: Arrays, *, alone: bool = False) -> Outputs:
        """Return what a model says about the test set, and what the sites tell of theirs."""
        return replace(super().outputs(arrays, alone=alone), told=self._ask(arrays, self._asked))


def site_judge(
    task: Task,
    requests: Iterable[Request],
    device: str,
    federation: Federation,
    leavers: frozenset[int] = frozenset(),
) -> SiteJudge:
    """Return the judge of a federation's models.

    Parameters
    ----------
    task, requests, device
        As of :class:`SiteJudge`.
    federation : Federation
        Its members are asked.
    leavers : frozenset of int
        Forgotten clients that have not deleted yet: they are asked a last time.
    """

    def ask(arrays: Arrays, asked: tuple[Request, ...]) -> dict[str, Told]:
        roster = federation.roster
        return {} if roster is None else ask_splits(federation, roster, arrays, asked, leavers)

    return SiteJudge(task, requests, device, ask)

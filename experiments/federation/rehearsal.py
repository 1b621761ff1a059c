"""A request rehearsed on few rounds, to say beforehand about how long its unlearning will take.

A strategy answers after three and after six rounds. How much it asks of clients follows a straight
line between the two, up to the round at which it will be asked: retraining and replays grow with
the rounds, ascent and edits do not. What one answer took is measured. A plan that bends later, as
FedRecover's does, takes less than that.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.serverapp import Grid

from experiments.federation.branching import expect_served, fork, own_recovery
from experiments.federation.founding import Site, start
from strategies.base import UnlearningStrategy
from strategies.federation import UNLEARN, Federation
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import FedUnlearnError
from unlearning.protocol import Wire
from unlearning.records.ledger import Ledger
from unlearning.request import Request

__all__ = ["DEPTHS", "Plan", "extrapolated", "rehearsed"]

DEPTHS = (3, 6)  # learned rounds after which a request is rehearsed


@dataclass(frozen=True)
class Plan:
    """What a strategy will take for all requests of a config.

    Parameters
    ----------
    unlearning_s : float or None
        Seconds of its unlearning; None: it could not be rehearsed.
    recovery_rounds : int
        Rounds of learning that follow the last request.
    why : str
        What kept it from being rehearsed.
    """

    unlearning_s: float | None
    recovery_rounds: int
    why: str = ""


def rehearsed(
    site: Site,
    grid: Grid,
    federation: Federation,
    arrays: Arrays,
    strategies: Mapping[str, UnlearningStrategy],
) -> dict[str, Plan]:
    """Learn on, and let every strategy answer the first request on throwaway copies.

    Parameters
    ----------
    site, grid : Site, Grid
        Of the federation.
    federation, arrays : Federation, Arrays
        Learned up to the first depth.
    strategies : mapping of str to UnlearningStrategy
        By alias or ``module:Class``; at least one request must be scheduled.

    Returns
    -------
    dict of str to Plan
        By the same names.
    """
    requests = site.task.scheduled(site.config)
    costs: dict[str, list[Cost]] = {name: [] for name in strategies}
    why: dict[str, str] = {}
    for depth in DEPTHS:
        if rest := depth - federation.completed:
            arrays = start(UnlearningStrategy(), grid, federation, arrays, rest)
        for name, strategy in strategies.items():
            try:
                costs[name].append(
                    _answer(site, grid, name, strategy, federation, arrays, requests[0])
                )
            except FedUnlearnError as error:
                why[name] = str(error)
    asked = [request.at_round or site.config.rounds for request in requests]
    return {
        name: Plan(
            None if name in why else _all(costs[name], asked),
            own_recovery(site.config, name, strategy).recovery_rounds,
            why.get(name, ""),
        )
        for name, strategy in strategies.items()
    }


def _all(costs: Sequence[Cost], asked: Sequence[int]) -> float:
    first, second = costs
    return sum(extrapolated(first, second, at) for at in asked)


def extrapolated(first: Cost, second: Cost, rounds: int) -> float:
    """Return about how many seconds an unlearning takes after so many rounds.

    Examples
    --------
    >>> first, second = Cost(wall_s=1.0, client_rounds=6), Cost(wall_s=2.0, client_rounds=12)
    >>> extrapolated(first, second, 24), extrapolated(second, second, 24)
    (8.0, 2.0)
    """
    if not second.client_rounds:
        return second.wall_s
    begin, end = DEPTHS
    growth = (second.client_rounds - first.client_rounds) / (end - begin)
    answers = second.client_rounds + growth * (rounds - end)
    return max(0.0, answers) * second.wall_s / second.client_rounds


def _answer(
    site: Site,
    grid: Grid,
    name: str,
    strategy: UnlearningStrategy,
    learned: Federation,
    arrays: Arrays,
    request: Request,
) -> Cost:
    """Return what the unlearning of a request costs now, without its recovery."""
    branch = fork(site, grid, name, strategy, learned, Ledger())
    branch.recovery_rounds = 0
    branch.ledger.receive(replace(request, at_round=None))
    try:
        start(strategy, grid, branch, arrays, 0)
        expect_served(branch.ledger)
    finally:
        branch.history.destroy()
        shutil.rmtree(Path(str(branch.client_config[Wire.HOME])), ignore_errors=True)
    return branch.costs.get(UNLEARN, Cost())

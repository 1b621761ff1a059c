"""Branches of a comparison: a federation of its own for every strategy, which shares nothing."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from flwr.serverapp import Grid

from experiments.config.loading import Config, alias_of
from experiments.federation.founding import Site, recovery_of
from experiments.runs.results import FINE_TUNE, RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import LAST_LOCAL, Federation
from strategies.roster import Roster
from unlearning.errors import FederationError, UnsupportedRequestError
from unlearning.protocol import Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request

__all__ = ["close", "expect_served", "fork", "own_recovery"]

_LARGE = 2**26  # bytes of a history; what a branch of a larger one records would fill the memory


def fork(
    site: Site,
    grid: Grid,
    name: str,
    strategy: UnlearningStrategy,
    learned: Federation,
    ledger: Ledger,
) -> Federation:
    """Return a federation of its own for one strategy: it shares nothing that can change."""
    safe = alias_of(name).replace(":", ".").replace("/", ".")
    home = site.homes / safe
    remember, kept = LAST_LOCAL in strategy.needs, strategy.keepsakes()
    origin = Path(str(learned.client_config[Wire.HOME]))
    shutil.rmtree(home, ignore_errors=True)  # of a process that was killed
    if (remember or kept or learned.attribute) and origin.exists():
        shutil.copytree(origin, home)
    roster = learned.roster
    if roster is None:
        raise RuntimeError("a branch needs a federation that has met its clients")
    return replace(
        learned,
        **recovery_of(own_recovery(site.config, name, strategy)),
        history=_history(learned.history, f"seed-{site.seed}.{safe}"),
        ledger=ledger,
        client_config={**learned.client_config, Wire.HOME: str(home)},
        roster=Roster(
            grid,
            roster.nodes,
            roster.declared,
            capped=roster.capped,
            tasks=roster.tasks,
            window=site.window,
            stop=site.stop,
            restart_s=roster.restart_s,
        ),
        # What all others are measured against must be there, whatever it looks like.
        guard=None if name in (RETRAIN, FINE_TUNE) else copy.copy(learned.guard),
        robust=copy.deepcopy(learned.robust),
        budget=0 if name == RETRAIN else learned.budget,
        remember=remember,  # what other strategies have kept must not cost this one anything
        keepsakes=kept,
        losses=dict(learned.losses),
        forgotten=Forgotten(),
        costs={},
        velocity={},
    )


def _history(learned: History, name: str) -> History:
    """Return a copy of a history for the time of a branch, where it is small in memory."""
    if learned.root is None or learned.nbytes > _LARGE:
        root = None if learned.root is None else learned.root.with_name(name)
        return learned.fork(root, durable=False)
    return learned.lent()


def own_recovery(config: Config, name: str, strategy: UnlearningStrategy) -> Config:
    """Return the config with the recovery that a strategy has of its own, if it has one.

    Parameters
    ----------
    name : str
        Under which it takes part; its class is looked up too, since a trial has a name of its own.
    """
    own = config.recovering(name)
    kind = f"{type(strategy).__module__}:{type(strategy).__name__}"
    return own if own != config else config.recovering(kind)


def close(
    site: Site,
    ledger: Ledger,
    requests: Iterable[Request],
    federation: Federation,
    names: list[str],
) -> None:
    """After a comparison: nothing of the forgotten stays in the run's own stores."""
    branch = ledger.on_branch(f"seed-{site.seed}")
    for request in requests:
        facts = {"strategy": "comparison", "strategies": names}
        if branch.state(request.id) == "fulfilled":  # interrupted after it
            continue
        branch.add(request.id, "started", **facts)
        removed = federation.history.purge(request)
        branch.add(request.id, "fulfilled", **facts, removed_bytes=removed.bytes)
    federation.history.close()
    homes = site.homes
    shutil.rmtree(homes, ignore_errors=True)
    if homes.parent.exists() and not any(homes.parent.iterdir()):
        homes.parent.rmdir()


def expect_served(ledger: Ledger) -> None:
    """Raise where there is no answer: refused, failed, or held by the guard.

    A federation goes on after that, a comparison must not take it for an answer.
    """
    for held in ledger.held().values():
        raise FederationError(f"its answer is held by the guard: {held.facts['reason']}")
    for request in ledger.requests():
        if (state := ledger.state(request.id)) in ("refused", "failed"):
            told = [e for e in ledger.events(request.id) if e.branch == ledger.branch]
            kind = UnsupportedRequestError if state == "refused" else FederationError
            raise kind(str(told[-1].facts["reason"]))

"""Learn from the beginning, as if what a request names had never been there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flwr.serverapp import Grid

from experiments.federation.founding import Site, found_federation, recovery_of, start
from experiments.federation.judge import Judge
from experiments.federation.party import Party
from experiments.federation.watching import Lookout
from experiments.runs.results import RETRAIN
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.records.ledger import Ledger
from unlearning.request import Guarantee, Request

__all__ = ["from_scratch", "reference"]

_PHASES = ("unlearn", "recover")


def from_scratch(
    site: Site, grid: Grid, gone: Iterable[Request], watch: Callable[[Federation], Lookout]
) -> tuple[Arrays, dict[str, Cost], Lookout]:
    """Return the model that never saw what is gone, its cost as of an unlearning, and its rounds.

    Parameters
    ----------
    site : Site
        Where it takes place.
    grid : Grid
        Of this federation.
    gone : iterable of Request
        What it does without.
    watch : callable
        ``watch(federation)`` looks at every round.
    """
    config = site.config
    federation = found_federation(site, grid, (), site.homes / "without", Ledger())
    for request in gone:
        federation.ledger.receive(request)
        for event in ("started", "fulfilled"):
            federation.ledger.add(request.id, event)
    later = recovery_of(config)  # without anyone the first rounds are learning, not recovery
    federation.recovery, federation.recovery_rounds = federation.train, 0
    federation.recovery_fraction, federation.server_momentum = None, 0.0
    lookout = watch(federation)
    arrays = site.task.initial()
    learner = UnlearningStrategy()
    costs: dict[str, Cost] = {}
    for phase, rounds in zip(_PHASES, (config.rounds, config.recovery_rounds), strict=True):
        arrays = start(learner, grid, federation, arrays, rounds)
        costs[phase] = federation.costs.pop("learn", Cost())
        for key in ("recovery", "recovery_fraction", "server_momentum"):
            setattr(federation, key, later[key])
    federation.history.close()
    return arrays, costs, lookout


def reference(
    site: Site,
    ledger: Ledger,
    requests: Sequence[Request],
    judge: Judge,
    arrays: Arrays,
    costs: dict[str, Cost],
    lookout: Lookout,
) -> Party:
    """Return the party that stands beside a model that was trained elsewhere.

    Parameters
    ----------
    site : Site
        Where it took place.
    ledger : Ledger
        Of the run; it is noted that the requests were served.
    requests : sequence of Request
        What it does without.
    judge : Judge
        Looks at the model.
    arrays, costs, lookout
        As of :func:`from_scratch`.
    """
    branch = ledger.on_branch(f"{RETRAIN}/seed-{site.seed}")
    branch.restart()
    for request in requests:
        for event in ("started", "fulfilled"):
            branch.add(request.id, event)
    outputs = judge.outputs(arrays)
    learned = site.config.rounds
    return Party(
        RETRAIN,
        site.seed,
        str(Guarantee.EXACT),
        arrays,
        outputs,
        costs,
        0,
        requests[0].scope.value,
        tuple(
            point.model_copy(update={"strategy": RETRAIN, "phase": _PHASES[point.round > learned]})
            for point in lookout.points
        ),
        judge.tally(outputs),
    )

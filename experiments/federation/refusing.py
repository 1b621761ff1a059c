"""What a strategy refuses beforehand, written down so that a request is refused as it comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from experiments.runs.folder import FederationFacts, RunFolder
from strategies.base import UnlearningStrategy
from strategies.fitness import Ground
from unlearning.errors import FedUnlearnError
from unlearning.request import Request, Scope, kinds

__all__ = ["name_strategy", "refusals"]


def name_strategy(
    folder: RunFolder, name: str, strategy: UnlearningStrategy, ground: Ground
) -> None:
    """Write into a run folder which strategy serves it, and what that one does not."""
    facts = folder.read_federation()
    folder.write_federation(
        replace(
            facts,
            strategy=name,
            scopes=tuple(sorted(strategy.scopes)),
            refusals=refusals(strategy, ground, facts),
        )
    )


def refusals(
    strategy: UnlearningStrategy, ground: Ground, facts: FederationFacts
) -> dict[str, str]:
    """Return why a strategy refuses requests of some kinds, though it serves their scope.

    Parameters
    ----------
    strategy : UnlearningStrategy
        With the options in force.
    ground : Ground
        What it stands on.
    facts : FederationFacts
        What can be named in requests.

    Returns
    -------
    dict of str to str
        By the kinds of :func:`unlearning.request.kinds`; what is not refused is left out.
    """
    found: dict[str, str] = {}
    for request in _examples(facts):
        if request.scope not in strategy.scopes:
            continue
        try:
            strategy.check_request(request, ground)
        except FedUnlearnError as error:
            found |= dict.fromkeys(kinds(request), str(error))
        except Exception:
            continue
    return found


def _examples(facts: FederationFacts) -> Iterator[Request]:
    """Yield one request of every kind."""
    client = min(facts.clients, default=0)
    yield Request(Scope.CLIENT, clients=(client,))
    yield Request(Scope.SAMPLE, samples={client: (0,)})
    yield Request(Scope.SAMPLE, clients=(client,), classes=facts.classes[:1] or (0,))
    yield Request(Scope.CLASS, classes=facts.classes[:1] or (0,))
    yield Request(Scope.FEATURE, features=(0,))
    yield Request(Scope.FEATURE, features=(0,), clients=(client,))
    for task in facts.tasks:
        yield Request(Scope.TASK, tasks=(task,))
        yield Request(Scope.TASK, tasks=(task,), clients=(client,))

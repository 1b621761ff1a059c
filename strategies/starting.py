"""One start of a federation: the grid is there, rounds are owed, requests may stay open after them.

Flower's own loop learns; this says from where it begins and what comes after its last round.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.serverapp import Grid

from strategies import serving
from strategies.federation import Federation
from strategies.roster import Roster
from unlearning.arrays import Arrays

__all__ = ["begin", "serve_rest"]


def begin(
    federation: Federation,
    grid: Grid,
    initial: Callable[[], Arrays],
    num_rounds: int,
    timeout_s: float,
) -> Roster:
    """Find the clients if they are not known yet, and take up what the ledger says.

    Parameters
    ----------
    federation : Federation
        What is started.
    grid : Grid
        Where the clients are.
    initial : callable
        The model before the first round, asked for where none was learned yet.
    num_rounds : int
        How many rounds of learning follow.
    timeout_s : float
        How long to wait for the clients; the deadline of every exchange is no later than this.
    """
    roster = federation.roster
    if roster is None or roster.grid is not grid:
        expected = len(list(grid.get_node_ids()))
        roster = federation.roster = Roster.discover(
            grid,
            max(1, expected),
            federation.client_config,
            quorum=federation.min_replies,
            timeout_s=timeout_s,
            stop=federation.stop,
        )
    federation.timeout_s = min(federation.timeout_s, timeout_s)
    federation.forgotten, federation.failed = federation.ledger.forgotten(), frozenset()
    roster.forget(federation.forgotten.clients)
    if not federation.completed:
        untrained = federation.untrained
        federation.history.start(initial() if untrained is None else untrained)
    federation.goal, federation.owed = federation.completed + num_rounds, 0
    return roster


def serve_rest(
    federation: Federation,
    arrays: Arrays,
    serve: Callable[[Arrays], Arrays],
    learn: Callable[[Arrays, int], Arrays],
) -> Arrays:
    """Serve the requests that are open after the last round; ``recovery_rounds`` follow each time.

    Parameters
    ----------
    federation : Federation
        Whose ledger says what is open.
    arrays : Arrays
        The model of the last round.
    serve : callable
        ``serve(arrays)`` serves what is due and returns the model to go on with.
    learn : callable
        ``learn(arrays, rounds)`` learns on and returns the model.
    """
    while serving.due(federation):
        before = {request.id for request in federation.ledger.waiting()}
        federation.owed = rounds = federation.recovery_rounds
        arrays = serve(arrays)
        federation.owed = 0
        if before <= {request.id for request in federation.ledger.waiting()}:
            break  # what is left is held or failed: the model in force stays as it is
        if rounds and federation.roster is not None and federation.roster.clients:
            federation.goal = federation.completed + rounds
            arrays = learn(arrays, rounds)
    return arrays

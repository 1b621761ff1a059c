"""Where an interrupted federation goes on: its checkpoints, the last that counts, taking it up."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from experiments.federation.checkpoint import Checkpoints, Saved
from experiments.federation.founding import Site, found_history
from experiments.federation.watching import Lookout, Pace
from strategies.federation import Federation
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError

__all__ = ["checkpoints", "going_on", "last_saved", "take_up"]

log = logging.getLogger("fedunlearn")


def checkpoints(site: Site, federation: Federation, home: Path) -> Checkpoints:
    """Return where moments of a seed are kept; nowhere without a run folder."""
    changes = federation.remember or federation.keepsakes or federation.attribute
    folder = site.folder
    place = None if folder is None else folder.checkpoints / f"seed-{site.seed}"
    ring = federation.history.store.ring
    moments = None if ring is None else ring.beside("moments")
    return Checkpoints(place, home if changes else None, moments)


def last_saved(site: Site, kept: Checkpoints, federation: Federation) -> Saved | None:
    """Return where an interrupted run goes on; None: it begins.

    What was half made for a request is thrown away, before it can be taken for anything.

    Raises
    ------
    HistoryError
        If rounds were recorded that no checkpoint belongs to, and somebody was forgotten since.
    """
    history, root = federation.history, federation.history.root
    if root is None:
        return None
    for half_made in root.parent.glob(f"{root.name}.*"):
        shutil.rmtree(half_made, ignore_errors=True)
    saved = kept.find(history.mark)
    if saved is not None or history.mark == (0, ()):
        return saved
    if federation.ledger.forgotten().requests or history.served:
        raise HistoryError(
            f"{root} ends with round {history.mark[0]} and no checkpoint belongs to it; "
            "restore the folder from a backup: to begin again would train on what was forgotten"
        )
    log.warning(
        "no checkpoint belongs to round %d: it is learned from the beginning", history.mark[0]
    )
    history.destroy()  # nobody was forgotten: it begins again, with the same outcome
    federation.history = found_history(site, history.keep)
    return None


def going_on(site: Site, federation: Federation, home: Path) -> tuple[Checkpoints, Saved | None]:
    """Return where moments are kept, and the one to go on from; None: it begins."""
    kept = checkpoints(site, federation, home)
    saved = last_saved(site, kept, federation)
    if saved is None:  # the history may have begun again, with keys of its own
        kept = checkpoints(site, federation, home)
    return kept, saved


def take_up(
    saved: Saved, federation: Federation, lookout: Lookout, pace: Pace
) -> tuple[Arrays, int]:
    """Bring a federation to a saved moment; return its model and how many rounds are left."""
    moment = saved.moment
    federation.resume(moment)
    pace.done = saved.done
    lookout.take_up(saved.points, moment.completed)
    if moment.phase:  # the round was recorded and not looked at any more
        lookout.take_up(saved.points, moment.completed - 1)
        federation.observe(moment.phase, moment.completed, moment.arrays)
    return moment.arrays, max(0, moment.goal - moment.completed)

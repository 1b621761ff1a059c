"""Seeding of clusters on a client's own data, from the start or after some of them went.

References
----------
Pan, Sima, Prakash, Rana, Milenkovic, "Machine Unlearning of Federated Clusters", ICLR 2023
(arXiv 2210.16424).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome, Shard
from clients.training import number
from unlearning.models import clusters
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def seed_clusters(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with the seeds' positions, their cells, and the class counts nearest to each.

    Settings: ``num_clusters``, ``num_classes``, ``cell`` (side), and ``root``, ``client``,
    ``stream``: the address of this client's clocks, the same in every round. Extras, to forget:
    ``seeds`` and ``counts`` of the answer before. If no seed goes, only the examples that go are
    looked at; otherwise seeds are drawn again from the first one that goes.
    """
    address = [int(number(settings, key)) for key in ("root", "client", "stream")]
    num_classes = int(number(settings, "num_classes"))
    rows, labels = _table(local.retain)
    gone, gone_labels = _table(local.forget)
    known = local.extras.get("seeds")
    if known is not None and not np.isin(known, local.forget_positions).any():
        seeds, processed = known, len(gone)
        centres = rows[np.searchsorted(local.positions, seeds)]
        removed = clusters.census(gone, gone_labels, centres, num_classes)
        counts = local.extras["counts"] - removed
    else:
        kept = [] if known is None else _before(known, local.forget_positions)
        size = int(local.positions.max(initial=-1)) + 1
        wanted = int(number(settings, "num_clusters"))
        seeds = clusters.seed(rows, local.positions, size, wanted, address, kept)
        centres = rows[np.searchsorted(local.positions, seeds)]
        counts, processed = clusters.census(rows, labels, centres, num_classes), len(rows)
    bins = clusters.quantise(centres, number(settings, "cell"))
    # An owner of which nothing is left still answers, so that the server knows.
    count = len(rows) + (len(gone) if known is not None else 0)
    return Outcome(count, processed, {"seeds": seeds, "bins": bins, "counts": counts})


def _table(shard: Shard) -> tuple[clusters.Floats, clusters.Integers]:
    x, labels = shard.table()
    return x.astype(np.float64), labels


def _before(seeds: clusters.Integers, gone: clusters.Integers) -> list[int]:
    """Return the seeds before the first one that goes."""
    return [int(seed) for seed in seeds[: int(np.isin(seeds, gone).argmax())]]

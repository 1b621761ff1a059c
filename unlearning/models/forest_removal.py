"""Taking examples out of a forest: subtract counts, decide splits again, drop what is stale.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.models import trees
from unlearning.models.forest_parts import Blocks, Grown, Pruned
from unlearning.models.trees import LEAF, OPEN, stretches
from unlearning.protocol import Reply

if TYPE_CHECKING:
    from unlearning.models.forest import Forest

__all__ = ["pruned"]

Integers = NDArray[np.int64]


def pruned(forest: Forest, arrays: Arrays, gone: Iterable[Reply], *, stay: bool = False) -> Pruned:
    """Return the forest without some examples, not yet put together.

    Nodes below a split that changed are open. Without any example at all it is the forest before
    learning.

    Parameters
    ----------
    forest : Forest
        How it grows.
    arrays : Arrays
        A complete forest; not changed.
    gone : iterable of Reply
        From each owner ``counts_of_forgotten`` as ``rows``, ``total``, ``left``, and how many
        examples they are.
    stay : bool
        The counts are by how much those of rows that were replaced fell; no example goes, and
        leaves that may not be leaves any more are open.

    Raises
    ------
    FederationError
        If an owner's counts are not part of the forest's.
    """
    examples = dict(zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True))
    blocks, replies = Blocks(forest, arrays), list(gone)
    if not stay:
        for reply in replies:
            examples[reply.client] = examples.get(reply.client, 0) - reply.num_examples
    rows, fewer, taken = _summed(forest, blocks, replies)
    counts = arrays["counts"].copy()
    counts[rows] -= fewer
    inner = rows[arrays["feature"][rows] >= 0]
    mine = blocks.of(inner) - taken
    if min(counts[rows].min(initial=0), mine.min(initial=0), *examples.values(), 0) < 0:
        raise FederationError(
            "more examples were to be removed than the forest holds; an owner's data changed since "
            "it was grown, so grow it again"
        )
    nodes = {**trees.structure(arrays), "counts": counts}
    rests = forest.rests_on(examples)
    if not any(examples.values()):  # as learning leaves it where nobody holds an example
        roots = {name: forest.initial()[name] for name in nodes}
        nobody = np.zeros(len(counts), dtype=bool)
        return Pruned(forest, nodes, blocks, nobody, Grown.bare(forest, roots), inner, mine, rests)
    begun = rows[:0]
    if stay:
        leaves = rows[arrays["feature"][rows] < 0]
        begun = leaves[~forest.closed(arrays["path"][leaves], counts[leaves])]
    return _repaired(forest, nodes, blocks, begun, inner, mine, rests)


def _summed(
    forest: Forest, blocks: Blocks, replies: list[Reply]
) -> tuple[Integers, Integers, Integers]:
    """Return the nodes that any owner counts at, and all owners' counts there.

    These are class counts of the nodes, and those left of candidates of the inner ones.
    """
    if len(replies) == 1:  # as a rule: one owner, who names its nodes in order
        found = replies[0].arrays
        if (np.diff(found["rows"]) > 0).all():
            own = found["left"].reshape(-1, forest.num_classes)
            rows, total = found["rows"].astype(np.int64), found["total"].astype(np.int64)
            return rows, total, own.astype(np.int64)
    said = [np.zeros(0, dtype=np.int64), *(reply.arrays["rows"] for reply in replies)]
    rows = np.unique(np.concatenate(said))
    total = np.zeros((len(rows), forest.num_classes), dtype=np.int64)
    sizes = blocks.sizes[rows]
    begins = np.cumsum(sizes) - sizes
    left = np.zeros((int(sizes.sum()), forest.num_classes), dtype=np.int64)
    for reply in replies:
        place = np.searchsorted(rows, reply.arrays["rows"])
        total[place] += reply.arrays["total"]
        own = reply.arrays["left"].reshape(-1, forest.num_classes)
        left[stretches(begins[place], sizes[place])] += own
    return rows, total, left


def _repaired(
    forest: Forest,
    nodes: Arrays,
    blocks: Blocks,
    begun: Integers,
    rows: Integers,
    mine: Integers,
    rests: Arrays,
) -> Pruned:
    """Decide inner nodes again by counts that changed; drop what hung below changed splits.

    ``begun``: leaves that are open now.
    """
    sizes = blocks.sizes[rows]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = nodes["counts"][rows]
    found = forest.verdicts(nodes["path"][rows], total, mine, starts)
    tried = forest.plan.tried(nodes["tree"][rows], nodes["path"][rows])
    new_feature = np.full(len(rows), LEAF)
    new_threshold = np.zeros(len(rows), dtype=np.int64)
    split = found >= 0
    new_feature[split], new_threshold[split] = tried.at(found[split])
    differs = new_feature != nodes["feature"][rows]
    differs |= new_threshold != nodes["threshold"][rows]
    keep = np.ones(len(nodes["feature"]), dtype=bool)
    if differs.any() or len(begun):  # else the arrays stay, and what is known of them holds
        feature, threshold = nodes["feature"].copy(), nodes["threshold"].copy()
        feature[begun] = OPEN
        feature[rows[differs]] = new_feature[differs]
        threshold[rows[differs]] = new_threshold[differs]
        nodes = {**nodes, "feature": feature, "threshold": threshold}
        keep = ~_below(nodes, rows[differs])
    again = differs & split & keep[rows]
    below = forest.children(nodes, rows[again], total[again], mine[found[again]])
    begun = begun[keep[begun]]
    keep[begun] = False  # they come as open nodes do
    whole = {name: np.concatenate([below[name], nodes[name][begun]]) for name in below}
    order = trees.in_order(whole["tree"], whole["path"])
    grown = Grown.bare(forest, {name: array[order] for name, array in whole.items()})
    return Pruned(forest, nodes, blocks, keep, grown, rows, mine, rests)


def _below(nodes: Mapping[str, Array], changed: Integers) -> NDArray[np.bool_]:
    """Return which nodes have a changed node above them."""
    dead = np.zeros(len(nodes["tree"]), dtype=bool)
    rows = np.flatnonzero(np.isin(nodes["tree"], nodes["tree"][changed]))
    place = np.sort(trees.keys(nodes["tree"][changed], nodes["path"][changed]))
    path = nodes["path"][rows] // 2
    while len(rows):
        above = trees.keys(nodes["tree"][rows], path)
        at = np.searchsorted(place, above)
        found = place.take(at, mode="clip") == above
        dead[rows[found]] = True
        more = ~found & (path > 1)
        rows, path = rows[more], path[more] // 2
    return dead

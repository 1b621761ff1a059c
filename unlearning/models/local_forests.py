"""The union of forests that each client grows alone: the other way to share a forest.

Nothing of a client's data touches another client's trees, so forgetting concerns its owner's trees
alone: a leaver's are dropped, those of a client that stays are grown again by itself.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567): the trees,
here with candidates from a seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, FederationError
from unlearning.models import trees
from unlearning.models.forest import Forest
from unlearning.models.forest_counts import counts_of_open
from unlearning.models.parts import fitting
from unlearning.models.tree_sums import Standing, Table
from unlearning.models.trees import Plan
from unlearning.protocol import Instruction, Reply, Settings

__all__ = ["LocalForests", "grow"]

_NODES = ("tree", "path", "feature", "threshold", "counts")


class LocalForests:
    """The array model ``local-forests``; it is learned in one round.

    Parameters
    ----------
    plan : Plan
        How trees grow.
    num_classes : int
        C.
    num_trees : int
        Trees of each client; client k's are numbered from k times this.

    Notes
    -----
    State: nodes as of the forest (``tree``, ``path``, ``feature``, ``threshold``, ``counts``),
    ``clients`` and ``examples``. A client's trees weigh as much as it has examples.
    """

    name = "local-forests"

    def __init__(self, plan: Plan, num_classes: int, num_trees: int = 10) -> None:
        if num_trees < 1:
            raise ConfigError(f"model.trees is {num_trees}; a client needs at least 1")
        self.plan, self.num_classes, self.num_trees = plan, num_classes, num_trees

    def initial(self) -> Arrays:
        """Return no trees."""
        return {
            "tree": np.zeros(0, dtype=np.int32),
            "path": np.zeros(0, dtype=np.int64),
            "feature": np.zeros(0, dtype=np.int32),
            "threshold": np.zeros(0, dtype=np.int32),
            "counts": np.zeros((0, self.num_classes), dtype=np.int64),
            "clients": np.zeros(0, dtype=np.int64),
            "examples": np.zeros(0, dtype=np.int64),
        }

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the class shares where an example ends up, weighted by the owners' examples."""
        if not len(arrays["clients"]):
            return np.full((len(x), self.num_classes), 1 / self.num_classes)
        counts = arrays["counts"].astype(np.float64)
        shares = counts / counts.sum(1, keepdims=True)
        last = trees.last_rows(arrays, self.plan.binned(x))
        weights = np.repeat(arrays["examples"], self.num_trees)
        total = sum(weight * shares[rows] for weight, rows in zip(weights, last, strict=True))
        return np.asarray(total / weights.sum())

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask those whose trees are not there for them, the others for nothing."""
        there = arrays["clients"].tolist()

        def ask(client: int) -> Instruction:
            settings = {
                **self.plan.to_settings(),
                "num_classes": self.num_classes,
                "num_trees": 0 if client in there else self.num_trees,
                "first": client * self.num_trees,
            }
            return Instruction(step="local_forest", settings=settings, arrays={}, answers="free")

        return {client: ask(client) for client in clients}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Add the trees that came."""
        there = arrays["clients"].tolist()
        parts = [{name: arrays[name] for name in _NODES}]
        examples = dict(zip(there, arrays["examples"].tolist(), strict=True))
        for reply in fitting(replies, self._check):
            if reply.client in there:
                continue
            if len(reply.arrays["tree"]):
                parts.append({name: reply.arrays[name] for name in _NODES})
                examples[reply.client] = int(reply.arrays["examples"][0])
        return self._assembled(parts, examples)

    def without(self, arrays: Mapping[str, Array], clients: Collection[int]) -> Arrays:
        """Return the state without the trees of some clients."""
        keep = ~np.isin(arrays["tree"] // self.num_trees, list(clients))
        pairs = zip(arrays["clients"].tolist(), arrays["examples"].tolist(), strict=True)
        left = {client: count for client, count in pairs if client not in clients}
        return self._assembled([{name: arrays[name][keep] for name in _NODES}], left)

    def _assembled(self, parts: Sequence[Arrays], examples: Mapping[int, int]) -> Arrays:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in _NODES}
        order = trees.in_order(joined["tree"], joined["path"])
        return {
            **{name: array[order] for name, array in joined.items()},
            "clients": np.array(sorted(examples), dtype=np.int64),
            "examples": np.array([examples[client] for client in sorted(examples)], np.int64),
        }

    def _check(self, reply: Reply) -> None:
        found = reply.arrays
        first = reply.client * self.num_trees
        if (
            any(name not in found for name in (*_NODES, "examples"))
            or not np.isin(found["tree"], np.arange(first, first + self.num_trees)).all()
        ):
            raise FederationError(f"client {reply.client} sent no trees of its own")


def grow(settings: Settings, x: Array, labels: Array) -> Arrays:
    """Return the nodes of one client's trees; none without an example."""
    num_classes, num_trees = int(settings["num_classes"]), int(settings["num_trees"])
    plan = Plan.of(settings)
    if not num_trees or not len(labels):
        nobody = LocalForests(plan, num_classes).initial()
        return {name: nobody[name] for name in _NODES}
    forest = Forest(plan, num_classes, num_trees)
    arrays = forest.initial()
    arrays["tree"] = arrays["tree"] + np.int32(settings["first"])
    standing = Standing(Table(plan, x))
    while not forest.is_complete(arrays):
        opened = trees.growing(arrays)
        found = counts_of_open(forest.settings(), opened, x, labels, standing)
        whole = {"total": found.total, "left": found.left}
        arrays = forest.learn(arrays, [Reply(0, len(labels), whole)])
    return {name: arrays[name] for name in _NODES}

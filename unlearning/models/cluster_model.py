"""Federated k-means as a federation learns it: one exchange of cells, kept by client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from unlearning.arrays import Array, Arrays, flat
from unlearning.errors import FederationError
from unlearning.models import clusters, parts
from unlearning.models.clusters import Cells
from unlearning.protocol import Instruction, Reply, Settings

__all__ = ["ClusterModel"]

_SERVER = 6  # last part of the address of the server's randomness; the clients' ends in 7
_CLIENT = 7


class ClusterModel:
    """Centroids of the cells that clients report, read as classes by the classes found there.

    State: ``centroids`` (K, d), ``classes`` (K, C), and for each client ``seeds`` (positions in its
    training set), ``bins`` and ``counts``. A client is sent its own part alone, and only to forget.

    Parameters
    ----------
    width : int
        Features of an example (d), expected in [0, 1].
    num_classes : int
        C.
    seed : int
        Root of the randomness, the clients' clocks included.
    num_clusters : int
        K, at the server and at most at each client.
    cell : float
        Side of a cell of the grid (gamma).
    restarts : int
        Of the server's k-means; the best is kept.
    """

    name = "k-means"

    def __init__(
        self,
        width: int,
        num_classes: int,
        seed: int,
        num_clusters: int,
        cell: float,
        restarts: int,
    ) -> None:
        if num_clusters < 1 or not cell > 0 or restarts < 1:
            raise ValueError(
                f"clusters = {num_clusters}, cell = {cell} and restarts = {restarts} must be "
                "positive"
            )
        self.width, self.num_classes, self.seed = width, num_classes, seed
        self.num_clusters, self.cell, self.restarts = num_clusters, cell, restarts

    def initial(self) -> Arrays:
        """Return the state without any example."""
        return self._assembled({})

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        """Return the class shares of the nearest centroid."""
        rows = flat(x)
        return clusters.classify(arrays["centroids"], arrays["classes"], rows)

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        """Ask every client to seed clusters on what it holds; the same seeds every time."""
        return {client: self._instruction(client, {}) for client in clients}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Exchange the parts of those that answered and cluster; the same if none changed."""
        return self._assembled(parts.exchanged(arrays, replies, self._checked))

    def ask(self, arrays: Arrays, client: int) -> Instruction:
        """Ask an owner to count again, and to draw again from the first seed that goes."""
        known = {name: parts.field(arrays, client, name) for name in ("seeds", "counts")}
        return self._instruction(client, known)

    def without(self, arrays: Arrays, gone: Collection[int], replies: Iterable[Reply]) -> Arrays:
        """Exchange the parts and cluster again, also where only counts changed.

        The centroids would otherwise still depend on what is gone.
        """
        return self._assembled(parts.renewed(arrays, gone, replies, self._checked))

    def _assembled(self, state: Arrays) -> Arrays:
        none = Cells(np.empty((0, self.width), np.int64), np.empty((0, self.num_classes), np.int64))
        held = [
            Cells(parts.field(state, client, "bins"), parts.field(state, client, "counts"))
            for client in parts.clients(state)
        ]
        centroids, classes = clusters.cluster(
            clusters.merge([none, *held]),
            self.cell,
            self.num_clusters,
            [self.seed, 0, 0, _SERVER],
            restarts=self.restarts,
        )
        own = {name: array for name, array in state.items() if "/" in name}
        return {"centroids": centroids, "classes": classes} | own

    def _instruction(self, client: int, known: Arrays) -> Instruction:
        settings: Settings = {
            "num_clusters": self.num_clusters,
            "num_classes": self.num_classes,
            "cell": self.cell,
            "root": self.seed,
            "client": client,
            "stream": _CLIENT,
        }
        return Instruction("seed_clusters", settings, arrays={}, extras=known, answers="free")

    def _checked(self, reply: Reply) -> Arrays:
        shapes: dict[str, tuple[int | None, ...]] = {
            "seeds": (None,),
            "bins": (None, self.width),
            "counts": (None, self.num_classes),
        }
        found = parts.expect(reply, shapes)
        lengths = [len(found[name]) for name in shapes]
        if len(set(lengths)) > 1:
            raise FederationError(
                f"client {reply.client} answered {lengths} {', '.join(shapes)}; expected equal"
            )
        return found

"""KMeans: renew the seeds that must be forgotten and cluster again. Exact.

References
----------
Pan, Sima, Prakash, Rana, Milenkovic, "Machine Unlearning of Federated Clusters", ICLR 2023
(arXiv 2210.16424).
"""

from __future__ import annotations

from typing import ClassVar

from strategies.structure.partwise import _Partwise

__all__ = ["KMeans"]


class KMeans(_Partwise):
    """Removal from federated k-means, equal to retraining with the same seed, bit for bit.

    An owner whose seeds all stay only counts again; one that loses its j-th seed draws again from
    there. A leaver's cells are dropped. The server always clusters anew what is left: skipping
    that where only counts changed, as the released code does, would keep centroids that depend on
    what is gone.

    Notes
    -----
    A client with fewer examples than clusters reports the cells of them all.
    """

    models: ClassVar[frozenset[str] | None] = frozenset({"k-means"})

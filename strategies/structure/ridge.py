"""Ridge: subtract the sums of what must be forgotten and solve again. Exact.

References
----------
Cao, Yang, "Towards Making Systems Forget with Machine Unlearning", IEEE S&P 2015; Quan, Wu,
Montana, "Exact Federated Continual Unlearning for Ridge Heads on Frozen Foundation Models", 2026
(arXiv 2603.12977).
"""

from __future__ import annotations

from typing import ClassVar

from strategies.structure.partwise import _Partwise

__all__ = ["Ridge"]


class Ridge(_Partwise):
    """Subtraction of sums from a linear model, equal to retraining up to rounding (1e-9).

    A leaver's sums are dropped at the server; for samples and classes the owners send the sums of
    what goes. The inverse is updated by the Woodbury identity and computed anew from the sums
    after ``model.refactorise_every`` updates, or where the update would lose precision. A class
    that is gone loses its column.

    Notes
    -----
    Whoever sees the weights before and after can compute much of what was removed.
    """

    models: ClassVar[frozenset[str] | None] = frozenset({"ridge"})

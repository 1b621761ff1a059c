"""Svm: owners unlearn from their own machines along the path of the solution. Exact.

References
----------
Cauwenberghs, Poggio, "Incremental and Decremental Support Vector Machine Learning", NIPS 2000.
"""

from __future__ import annotations

from typing import ClassVar

from strategies.structure.partwise import _Partwise

__all__ = ["Svm"]


class Svm(_Partwise):
    """Decremental unlearning of averaged local machines, equal to retraining up to rounding.

    A leaver's machines are dropped and the others' weights renormalised; for samples and classes
    the owners bring the weights of what goes to zero, all others staying optimal, and send their
    machines again. Examples that are no support vectors cost nothing. The machine of a class that
    is gone is dropped.

    Notes
    -----
    The optimality conditions hold to 1e-8, as after retraining.
    """

    models: ClassVar[frozenset[str] | None] = frozenset({"svm"})

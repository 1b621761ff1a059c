"""All metrics by id, found by walking this package."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import unlearning.evaluation
from unlearning.evaluation.entry import Metric

__all__ = ["metrics_by_id"]


@cache
def metrics_by_id() -> dict[str, Metric]:
    """Return every :class:`Metric` that a module of this package declares, M1 first.

    Raises
    ------
    ValueError
        If two modules declare the same id.
    """
    found: dict[str, Metric] = {}
    for module in pkgutil.iter_modules(unlearning.evaluation.__path__):
        full = f"{unlearning.evaluation.__name__}.{module.name}"
        for entry in getattr(importlib.import_module(full), "METRICS", ()):
            if not isinstance(entry, Metric):
                continue  # the scorecard's columns go by another kind
            if entry.id in found:
                raise ValueError(f"{full} declares {entry.id}, which another module has")
            found[entry.id] = entry
    return dict(sorted(found.items(), key=lambda item: int(item[0][1:])))

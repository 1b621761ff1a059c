"""The families of unlearning algorithms, in the surveys' order, and who belongs to which.

The folder of a strategy tells its family of three; the finer division is one of the literature and
cannot be seen in the code, so it stands here, and a test holds it against the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from experiments.config.loading import alias_of
from experiments.runs.results import FINE_TUNE, ORIGINAL

__all__ = ["CONTROL", "FAMILIES", "OTHER", "family_of", "in_order", "members", "title"]

CONTROL, OTHER = "control", "other"
RANDOM_RESET = "random-reset"  # a control of those that reset weights; not run unless named

FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "1.1": (
        "retraining",
        ("retrain", "rapid-retrain", "heavy-ball", "sharded", "sequences", "fats"),
    ),
    "1.2": ("contribution removal", ("contribution-subtraction", "fed-recovery", "sifu")),
    "2.1": ("calibration of updates", ("fed-eraser", "fed-accum", "fed-recover", "crab")),
    "2.2": (
        "correction of gradients",
        (
            "gradient-ascent",
            "fed-osd",
            "no-t",
            "mo-de",
            "ewc-ascent",
            "quick-drop",
            "transformation",
            "negated-update",
            "quit",
            "forget-loss",
            "subspace",
            "auxiliary-head",
            "feature-sensitivity",
        ),
    ),
    "3.1": (
        "traditional models",
        (
            "forest-deletion",
            "local-forest-removal",
            "boosting-replay",
            "leaf-refresh",
            "ridge",
            "k-means",
            "svm",
            "newton",
        ),
    ),
    "3.2": (
        "structure of deep networks",
        (
            "class-pruning",
            "memory-pruning",
            "parameter-estimation",
            "dampening",
            "fused",
            "pruning-client",
            "head-drop",
            "task-subtraction",
            "task-osd",
            "task-negation",
            "task-restart",
            "isolated-adapters",
        ),
    ),
}


def members(*families: str) -> tuple[str, ...]:
    """Return the strategies of some families, by alias.

    Raises
    ------
    KeyError
        If there is no such family.
    """
    return tuple(name for family in families for name in FAMILIES[family][1])


def family_of(strategy: str) -> str:
    """Return the family of a strategy; ``control`` and ``other`` are the two beside the six."""
    alias = alias_of(strategy)
    if alias in (ORIGINAL, FINE_TUNE, RANDOM_RESET):
        return CONTROL
    return next((key for key, (_, names) in FAMILIES.items() if alias in names), OTHER)


def title(family: str) -> str:
    """Return a family in words, with its number."""
    return f"{family} {FAMILIES[family][0]}" if family in FAMILIES else family


def in_order(strategies: Iterable[str]) -> tuple[str, ...]:
    """Return strategies by family, controls first, in the order of the families' lists."""
    order = [ORIGINAL, FINE_TUNE, RANDOM_RESET, *members(*FAMILIES)]
    known = {name: place for place, name in enumerate(order)}
    return tuple(sorted(strategies, key=lambda name: (known.get(alias_of(name), 999), name)))

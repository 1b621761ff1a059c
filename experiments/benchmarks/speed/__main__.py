"""The command: measure the parts that are named, print a table or one JSON object.

``python -m experiments.benchmarks.speed PART [--root DATA] [--against WORKTREE] [--json]``
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.speed.clock import Found, Setting, Unmeasured
from unlearning.errors import FedUnlearnError

__all__ = ["KEYS", "main", "measured"]

# The figures of every part: its key in JSON, what it is, its goal.
KEYS: dict[str, dict[str, tuple[str, str]]] = {
    "demo": {
        "local_ratio": ("demo in process, of the older build's", "at most .55"),
        "ray_ratio": ("demo on Ray, of the older build's", "at most .70"),
        "ray_wall_ratio": ("the same, wall seconds", "at most .75"),
    },
    "audit": {"audit_ratio": ("audit of digits, of the older build's", "at most .35")},
    "compare": {"all_ratio": ("its strategies on digits, of the older build's", "at most .40")},
    "cnn": {"cnn_ratio": ("CNN per trained example, of the older build's", "at most .65")},
    "clients": {"client_ms": ("ms per client and round, 1,000 clients", "at most .7")},
    "message": {"message_ratio": ("a message on Ray, of plain Flower's", "at most 1.0")},
    "resnet": {
        "resnet_server_s": ("ResNet-18, server seconds per message", "at most .2"),
        "resnet_memory_ratio": ("peak memory, of the older build's", "at most .6"),
    },
    "forest": {
        "growth_ratio": ("growth at 26,050 rows, of scikit-learn's", "at most 1.5"),
        "growth_ratios": ("the same by number of rows", "1.5, 2.5, 2.5"),
        "accuracy_gap": ("accuracy behind scikit-learn's, five seeds", "at most .0025"),
        "deletion_ratio": ("scikit-learn's fit over one deletion", "at least 60"),
        "deletion_ms": ("ms of one deletion on small tables", "at most 10"),
    },
    "boosting": {"boosting_ratio": ("growth, of HistGradientBoosting's", "at most 6")},
    "svm": {
        "svm_mb": ("MB at 26,050 rows, 256 features", "at most 500"),
        "svm_deletion_ratio": ("a refit over one deletion", "at least 50"),
    },
    "kmeans": {"kmeans_ratio": ("deletion, of the older build's", "at most .10")},
    "ridge": {"ridge_ratio": ("deletion, of the older build's", "at most .15")},
    "site": {"site_round_ratio": ("a deployed round, wall seconds", "at most .33")},
}


def _part(name: str) -> Callable[[Setting], Found]:
    """Return the function that measures a part.

    Raises
    ------
    Unmeasured
        If there is none yet.
    """
    module = f"experiments.benchmarks.speed.parts.{name}"
    if importlib.util.find_spec(module) is None:
        raise Unmeasured("no measurement of it has been written yet")
    found: Callable[[Setting], Found] = getattr(importlib.import_module(module), name)
    return found


def measured(names: Sequence[str], setting: Setting) -> dict[str, Any]:
    """Return the figures of some parts by key, None where there is none, and why not."""
    figures: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    details: dict[str, Any] = {}
    load = os.getloadavg()[0]
    for name in names:
        try:
            found = _part(name)(setting)
        except (Unmeasured, FedUnlearnError) as reason:
            figures |= dict.fromkeys(KEYS[name])
            reasons[name] = str(reason)
        else:
            figures |= {key: found.figures[key] for key in KEYS[name]}
            details[name] = dict(found.details)
    machine = {
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    return {**figures, "reasons": reasons, "details": details, "machine": machine}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in value.items())
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print(names: Sequence[str], found: dict[str, Any]) -> None:
    table = Table("part", "figure", "key", "goal", "measured")
    for name in names:
        for key, (what, goal) in KEYS[name].items():
            table.add_row(name, what, key, goal, _shown(found[key]))
    console = Console()
    console.print(table)
    for name, reason in found["reasons"].items():
        console.print(f"{name}: not measured: {reason}", highlight=False)
    for name, details in found["details"].items():
        for what, value in details.items():
            console.print(f"{name}: {what}: {_shown(value)}", highlight=False)
    machine = found["machine"]
    console.print(
        f"CPU seconds, medians; {machine['cores']} cores, load {machine['load_before']} before, "
        f"{machine['load_after']} after"
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 0, or 1 if a part that was asked for could not be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m experiments.benchmarks.speed"
    )
    parser.add_argument("part", choices=[*KEYS, "all"])
    parser.add_argument("--root", type=Path, help="folder of data sets")
    parser.add_argument("--against", type=Path, help="worktree of an older build")
    parser.add_argument(
        "--repeats", type=int, default=3, help="how often whole commands are measured (3)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    chosen = parser.parse_args(list(arguments))
    for option in ("root", "against"):
        folder = getattr(chosen, option)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{option} {folder} is no folder")
    if chosen.repeats < 1:
        parser.error(f"--repeats is {chosen.repeats}; give 1 or more")
    root, against = (None if p is None else p.resolve() for p in (chosen.root, chosen.against))
    setting = Setting(root, against, chosen.repeats)
    names = list(KEYS) if chosen.part == "all" else [chosen.part]
    found = measured(names, setting)
    if chosen.json:
        print(json.dumps(found))
    else:
        _print(names, found)
    return 1 if found["reasons"] and chosen.part != "all" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

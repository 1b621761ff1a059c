"""One try of an attack, and what is told of many."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

__all__ = ["OFF", "ON", "Trial", "summary", "write_csv"]

OFF, ON = "off", "on"


@dataclass(frozen=True)
class Trial:
    """One try of an attack on one federation.

    Parameters
    ----------
    attack, variant : str
        Which, and how.
    seed : int
        Of the federation.
    defence : str
        ``off``, or what stood in the way.
    success : float
        How far it got, [0, 1]; every attack says what it counts.
    accuracy : float or None
        Of the model that was published, on test examples that no guard has seen.
    stopped : bool
        Whether the request was refused or the answer held.
    clean_cost : float or None
        Accuracy that the same defence costs an honest request, fraction; negative: it gains. None:
        not measured in this arm.
    honest : int
        Honest requests that met the same defence.
    false_refusals : int
        How many of them it refused or held.
    note : str
        What else was seen.
    """

    attack: str
    variant: str
    seed: int
    defence: str
    success: float
    accuracy: float | None = None
    stopped: bool = False
    clean_cost: float | None = None
    honest: int = 0
    false_refusals: int = 0
    note: str = ""


def write_csv(path: Path, trials: Sequence[Trial]) -> None:
    """Write one line per trial; numbers with six digits behind the point."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Trial)])
        writer.writeheader()
        for trial in trials:
            writer.writerow({key: _cell(value) for key, value in asdict(trial).items()})


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    return "" if value is None else value


def summary(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """Return a line per variant and defence: means over the seeds, sums of honest requests."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.attack, trial.variant, trial.defence), []).append(trial)
    lines: list[dict[str, object]] = []
    for (attack, variant, defence), found in groups.items():
        successes = [trial.success for trial in found]
        lines.append(
            {
                "attack": attack,
                "variant": variant,
                "defence": defence,
                "seeds": len({trial.seed for trial in found}),
                "success": f"{np.mean(successes):.3f} ({min(successes):.2f}-{max(successes):.2f})",
                "stopped": f"{sum(trial.stopped for trial in found)} of {len(found)}",
                "accuracy": _mean([trial.accuracy for trial in found]),
                "clean_cost": _mean([trial.clean_cost for trial in found]),
                "false_refusals": _share(found),
                "note": found[-1].note,
            }
        )
    return lines


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{np.mean(there):.3f}" if there else ""


def _share(trials: Sequence[Trial]) -> str:
    honest = sum(trial.honest for trial in trials)
    return f"{sum(trial.false_refusals for trial in trials)} of {honest}" if honest else ""

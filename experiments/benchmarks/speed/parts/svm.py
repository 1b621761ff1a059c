"""One machine on 256 random features of Adult's 26,050 rows: memory, deletion against a refit."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from experiments.benchmarks.speed.clock import HERE, Found, Setting, child
from experiments.config.loading import load
from experiments.federation.task import Scenario, task
from unlearning.request import Forgotten

SIZES = (26_050, 5_000)
_SCRIPT = Path(__file__).parents[1] / "svm_child.py"


def svm(setting: Setting) -> Found:
    """Measure 30 deletions of random samples at both sizes; a refit is compared at each."""
    config = HERE / "experiments" / "configs" / "forest_adult.toml"
    made = task(Scenario.of(load(config, [f"data.root={setting.data('the Adult table')}"])))
    x, y = made.retain_set(Forgotten())
    ratios: dict[str, float] = {}
    details: dict[str, object] = {}
    megabytes: dict[str, float] = {}
    with TemporaryDirectory() as home:
        for size in SIZES:
            table = Path(home) / f"{size}.npz"
            np.savez(table, x=x[:size].reshape(size, -1), signs=np.where(y[:size] == 1, 1.0, -1.0))
            asked = {"table": str(table), "count": 30, "refits": 1}
            found = child(_SCRIPT, HERE, [json.dumps(asked)], timeout_s=3600)
            taken, events = found.answer["deletions_s"], found.answer["events"]
            moving = [one for one, steps in zip(taken, events, strict=True) if steps]
            ratios[str(size)] = found.answer["fit_s"] / statistics.median(taken)
            megabytes[str(size)] = found.megabytes
            details[f"at {size} rows"] = {
                "fit_s": found.answer["fit_s"],
                "deletion_s": statistics.median(taken),
                "slowest_deletion_s": max(taken),
                "deletions_with_events": len(moving),
                "deletion_with_events_s": statistics.median(moving) if moving else None,
                "distance_from_refit": found.answer["distance"],
            }
    largest = str(SIZES[0])
    figures = {"svm_mb": megabytes[largest], "svm_deletion_ratio": ratios[largest]}
    return Found(figures, {"ratios": ratios, "megabytes": megabytes, **details})

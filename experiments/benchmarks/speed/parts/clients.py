"""A thousand clients in this process: CPU milliseconds of each in a round, 20 kB of history."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from experiments.benchmarks.speed.clock import HERE, Found, Setting, child

_SCRIPT = Path(__file__).parents[1] / "clients_child.py"
CLIENTS, ROUNDS = 1_000, 3
CHANGES = (f"data.clients={CLIENTS}", "train.local_epochs=1")


def clients(setting: Setting) -> Found:
    """Measure rounds after the first; beside the older build if there is one."""
    config = "experiments/configs/digits_client.toml"
    builds = {"ours": HERE} | ({"older": setting.against} if setting.against else {})
    taken: dict[str, list[float]] = {name: [] for name in builds}
    kept = 0
    for _ in range(setting.repeats):
        for name, worktree in builds.items():
            asked = {"config": config, "changes": list(CHANGES), "rounds": ROUNDS}
            found = child(_SCRIPT, worktree, [json.dumps(asked)], timeout_s=900)
            taken[name].append(1e3 * float(found.answer["round_s"]) / CLIENTS)
            kept = int(found.answer["history_bytes"]) if name == "ours" else kept
    medians = {name: statistics.median(times) for name, times in taken.items()}
    details = {
        "ms by build": medians,
        "history bytes per client and round": kept / CLIENTS / (ROUNDS + 1),
    }
    return Found({"client_ms": medians["ours"]}, details)

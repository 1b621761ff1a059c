"""ResNet-18, 45 MB of weights, in process on few small images, beside an older build's."""

from __future__ import annotations

import statistics
from pathlib import Path

from experiments.benchmarks.speed.clock import HERE, Child, Found, Setting, child
from experiments.benchmarks.speed.commands import CONFIGS

_SCRIPT = Path(__file__).parents[1] / "resnet_child.py"
_CLIENTS, _ROUNDS = 10, 2
_CHANGES = (
    "engine.grid=local",
    "model.name=resnet18",
    f"data.clients={_CLIENTS}",
    "data.limit=200",
    f"rounds={_ROUNDS}",
    "recovery_rounds=1",
    "train.local_epochs=1",
    "train.max_steps=1",
    "requests.0.at_round=1",
)


def resnet(setting: Setting) -> Found:
    """Measure a run with one request in both builds in turn."""
    builds = {"ours": HERE, "older": setting.older()}
    found: dict[str, list[Child]] = {name: [] for name in builds}
    asked = ["run", f"{CONFIGS}/digits_client.toml", "--out", "{home}/run"]
    asked += [part for change in _CHANGES for part in ("--set", change)]
    for _ in range(setting.repeats):
        for name, worktree in builds.items():
            found[name].append(child(_SCRIPT, worktree, asked, timeout_s=3600))
    seconds = {
        n: statistics.median(c.answer["server_s"] for c in runs) for n, runs in found.items()
    }
    largest = {n: statistics.median(c.megabytes for c in runs) for n, runs in found.items()}
    figures = {
        "resnet_server_s": seconds["ours"],
        "resnet_memory_ratio": largest["ours"] / largest["older"],
    }
    messages = {name: runs[0].answer["messages"] for name, runs in found.items()}
    return Found(figures, {"server_s": seconds, "MB": largest, "messages": messages})

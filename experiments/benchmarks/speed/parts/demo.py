"""The demo of digits beside an older build's: in this process, and on Ray."""

from __future__ import annotations

from experiments.benchmarks.speed.clock import Found, Setting
from experiments.benchmarks.speed.commands import CONFIGS, STACKED, beside


def demo(setting: Setting) -> Found:
    """Measure both in turn."""
    older = setting.older()
    asked = ["compare", f"{CONFIGS}/digits_client.toml", "--out", "{home}/run"]
    local = beside(older, [*asked, "--set", "engine.grid=local"], setting.repeats, ours=STACKED)
    ray = beside(older, asked, setting.repeats)
    figures = {
        "local_ratio": local.ratio,
        "ray_ratio": ray.ratio,
        "ray_wall_ratio": ray.wall_ratio,
    }
    return Found(figures, {"in process": local.details(), "on Ray": ray.details()})

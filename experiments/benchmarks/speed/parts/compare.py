"""All strategies on digits, five seeds, beside an older build."""

from __future__ import annotations

from experiments.benchmarks.speed.clock import Found, Setting
from experiments.benchmarks.speed.commands import CONFIGS, STACKED, beside


def compare(setting: Setting) -> Found:
    """Measure both in turn, in process."""
    asked = ["compare", f"{CONFIGS}/digits_client.toml", "--strategies", "all"]
    asked += ["--seeds", "0,1,2,3,4", "--set", "engine.grid=local", "--out", "{home}/run"]
    found = beside(setting.older(), asked, setting.repeats, ours=STACKED)
    return Found({"all_ratio": found.ratio}, found.details())

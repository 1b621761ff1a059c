"""All strategies on digits, five seeds, beside an older build."""

from __future__ import annotations

from pathlib import Path

from experiments.benchmarks.speed.clock import Found, Setting, child
from experiments.benchmarks.speed.commands import CONFIGS, STACKED, beside

_NAMES = Path(__file__).parents[1] / "strategies_child.py"


def compare(setting: Setting) -> Found:
    """Measure both in turn, in process, with all strategies that the older build has.

    Those that came since would count in one of the two alone.
    """
    older = setting.older()
    names = child(_NAMES, older, (), timeout_s=300).answer["names"]
    asked = ["compare", f"{CONFIGS}/digits_client.toml", "--strategies", ",".join(names)]
    asked += ["--seeds", "0,1,2,3,4", "--set", "engine.grid=local", "--out", "{home}/run"]
    found = beside(older, asked, setting.repeats, ours=STACKED)
    return Found({"all_ratio": found.ratio}, {**found.details(), "strategies": names})

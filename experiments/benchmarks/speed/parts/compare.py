"""All strategies on digits, five seeds, beside an older build."""

from __future__ import annotations

from pathlib import Path

from experiments.benchmarks.speed.clock import Found, Setting, child
from experiments.benchmarks.speed.commands import CONFIGS, STACKED, beside
from strategies.federation import PUBLIC
from strategies.registry import strategies

_NAMES = Path(__file__).parents[1] / "strategies_child.py"


def compare(setting: Setting) -> Found:
    """Measure both in turn, in process, with all strategies that the older build has and that fit.

    Those that came since would count in one of the two alone.
    """
    older = setting.older()
    there = child(_NAMES, older, (), timeout_s=300).answer["names"]
    # The config sets no examples aside for the server; who trains there is refused beforehand.
    names = [name for name in there if PUBLIC not in strategies()[name].needs]
    asked = ["compare", f"{CONFIGS}/digits_client.toml", "--strategies", ",".join(names)]
    asked += ["--seeds", "0,1,2,3,4", "--set", "engine.grid=local", "--out", "{home}/run"]
    found = beside(older, asked, setting.repeats, ours=STACKED)
    return Found({"all_ratio": found.ratio}, {**found.details(), "strategies": names})

"""The audit of one strategy on digits beside an older build."""

from __future__ import annotations

from experiments.benchmarks.speed.clock import Found, Setting
from experiments.benchmarks.speed.commands import CONFIGS, beside


def audit(setting: Setting) -> Found:
    """Measure both in turn: eight models a side, one worker, nothing kept from before."""
    asked = ["audit", f"{CONFIGS}/digits_audit.toml", "--strategies", "fed-eraser"]
    asked += ["--models", "8", "--workers", "1", "--out", "{home}/audit"]
    found = beside(setting.older(), asked, setting.repeats)
    return Found({"audit_ratio": found.ratio}, found.details())

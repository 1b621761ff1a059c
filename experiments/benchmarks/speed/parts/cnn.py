"""The CNN of MNIST, training and judging, beside an older build, per trained example."""

from __future__ import annotations

from experiments.benchmarks.speed.clock import Found, Setting
from experiments.benchmarks.speed.commands import CONFIGS, beside

# Rounds beyond the first run, so that starts and imports fall out of the difference.
_SHORT, _LONG = 1, 5


def cnn(setting: Setting) -> Found:
    """Measure what four more rounds cost in each build; both train on the same examples."""
    root = setting.data("MNIST's files")
    asked = ["compare", f"{CONFIGS}/mnist_class.toml", "--out", "{home}/run"]
    for change in ("engine.grid=local", f"data.root={root}", "recovery_rounds=1"):
        asked += ["--set", change]
    short = beside(setting.older(), [*asked, "--set", f"rounds={_SHORT}"], setting.repeats)
    long = beside(setting.older(), [*asked, "--set", f"rounds={_LONG}"], setting.repeats)
    own, other = (b - a for a, b in zip(short.cpu_s, long.cpu_s, strict=True))
    return Found({"cnn_ratio": own / other}, {"short": short.details(), "long": long.details()})

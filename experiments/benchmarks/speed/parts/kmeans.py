"""Forgetting one of 40,000 rows of MNIST from clusters, beside an older build."""

from __future__ import annotations

from experiments.benchmarks.speed.clock import HERE, Found, Setting
from experiments.benchmarks.speed.deleting import beside


def kmeans(setting: Setting) -> Found:
    """Measure deletions in both builds in turn."""
    older, root = setting.older(), setting.data("MNIST's files")
    config = HERE / "experiments" / "configs" / "digits_k_means.toml"
    changes = ["rounds=1", "data.name=mnist", f"data.root={root}", "data.limit=40000"]
    own, other = beside(older, config, changes, "k-means", 5)
    return Found({"kmeans_ratio": own / other}, {"cpu_s": {"ours": own, "older": other}})

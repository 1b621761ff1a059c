"""A round of a deployment with three sites on loopback: warm beside not warm, or an older build's.

With ``--against`` the older build is started by Flower's own programs, without TLS; ours has TLS
and node authentication. Wall seconds, the median over the rounds of one run each.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from experiments.benchmarks.speed.clock import Found, Setting, child
from experiments.config.loading import from_mapping
from experiments.config.schema import Config
from experiments.deployment import processes
from experiments.deployment.kit import Kit
from experiments.deployment.server import Server
from experiments.deployment.serving import run
from experiments.deployment.shares import remote, write_shares

_SCRIPT = Path(__file__).parents[1] / "site_child.py"
_SITES, _ROUNDS = 3, 6


def site(setting: Setting) -> Found:
    """Measure warm and not warm, and the older build if there is one."""
    warm, cold = deployed(warm=True), deployed(warm=False)
    beside, details = cold, {"warm_s": warm, "not_warm_s": cold, "warm_of_not_warm": warm / cold}
    if setting.against is not None:
        beside = details["older_s"] = older(setting.against)
    return Found({"site_round_ratio": warm / beside}, details)


def settings() -> Config:
    """Return what is run, as a simulation's config."""
    return from_mapping(
        {
            "rounds": _ROUNDS,
            "recovery_rounds": 0,
            "strategy": "retrain",
            "device": "cpu",
            "data": {"name": "digits", "clients": _SITES},
            "model": {"name": "mlp"},
            "engine": {"timeout_s": 300.0},
        }
    )


def deployed(*, warm: bool) -> float:
    """Return seconds per round of this build."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        server = Server.init(out / "fed", f"127.0.0.1:{processes.free_port()}")
        kits = []
        for number, file in enumerate(write_shares(settings(), out / "shares")):
            kit, public = Kit.init(out / f"site-{number}", f"site-{number}")
            _, invitation = server.add(public)
            kits.append(kit.accept(invitation).hold(str(file)))
        try:
            server.start()
            with ThreadPoolExecutor(_SITES) as pool:
                list(pool.map(lambda kit: kit.start(_silent, _silent, warm=warm), kits))
            run(server, remote(settings(), out / "shares"), out / "run")
        finally:
            for kit in kits:
                kit.stop()
            server.stop()
        timeline = json.loads((out / "run" / "details.json").read_text())["timeline"]
        return _per_round([point["wall_s"] for point in timeline])


def older(worktree: Path) -> float:
    """Return seconds per round of an older build."""
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "config.toml"
        # The words that it knows, too.
        asked = settings().to_dict()
        kept = ("rounds", "recovery_rounds", "strategy", "device", "data", "model", "engine")
        least = {"data": ("name", "clients"), "model": ("name",), "engine": ("timeout_s",)}
        plain = {key: asked[key] for key in kept}
        for key, inside in least.items():
            plain[key] = {name: asked[key][name] for name in inside}
        config.write_text(_toml(plain))
        found = child(_SCRIPT, worktree, [str(config), str(_SITES)], timeout_s=1200)
    return _per_round(list(found.answer["ends_s"]))


def _toml(value: dict[str, object]) -> str:
    import tomli_w

    return tomli_w.dumps(value)


def _per_round(ends: list[float]) -> float:
    """Return the median time between two ends; the first round also waits for the sites."""
    return statistics.median(after - before for before, after in pairwise(ends))


def _silent(line: str) -> None:
    pass

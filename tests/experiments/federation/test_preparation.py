"""What learning pays for one strategy is that strategy's cost, and nobody else's."""

from __future__ import annotations

from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.runs.details import read_details
from experiments.runs.results import read_results
from strategies.exchange import _kept
from tests.support.undrawn import undrawn
from unlearning.protocol import Reply, Wire

CONFIG = {
    "rounds": 2,
    "recovery_rounds": 1,
    "data": {"clients": 3, "limit": 150},
    "model": {"hidden": 8},
    "requests": [{"scope": "client", "clients": [1]}],
    "engine": {"grid": "local"},
}


def compared(tmp_path, *names):
    out = launch.compare(
        from_mapping(CONFIG), tmp_path / "-".join(names), strategies=names, observer=lambda _: None
    )
    _, rows = read_results(out)
    costs = {row.strategy: row.cost for row in rows}
    return costs, {phases.strategy: phases for phases in read_details(out).phases}


def test_distilling_while_learning_counts_for_quick_drop_alone(tmp_path, monkeypatch):
    undrawn(monkeypatch.setattr)
    costs, phases = compared(tmp_path, "quick-drop", "gradient-ascent")
    own = phases["quick-drop"]
    assert own.prepare.examples > 0
    assert own.prepare.client_s > 0
    parts = (own.prepare, own.unlearn, own.recover)
    assert costs["quick-drop"]["examples"] == sum(part.examples for part in parts)
    assert phases["gradient-ascent"].prepare.examples == 0
    alone, _ = compared(tmp_path, "gradient-ascent")
    for name in ("original", "retrain", "fine-tune", "gradient-ascent"):
        assert costs[name]["examples"] == alone[name]["examples"]


def test_a_client_cannot_claim_more_than_its_work():
    said = {f"{Wire.KEEP_EXAMPLES}synthetic": 1e9, f"{Wire.KEEP_SECONDS}synthetic": -1.0}
    whole = {Wire.EXAMPLES_PROCESSED: 40.0, Wire.CLIENT_SECONDS: 2.0}
    found = _kept(Reply(0, 4, {}, {**said, **whole}), "synthetic")
    assert (found.examples, found.client_s) == (40, 0.0)
    assert _kept(Reply(0, 4, {}, whole), "synthetic").examples == 0

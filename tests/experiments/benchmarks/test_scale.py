"""What a million clients ask for is worked out from what strategies say they keep."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.benchmarks import scale
from experiments.benchmarks.speed.clock import Child


def test_only_updates_grow_with_the_clients_of_a_round() -> None:
    rows = {row[0]: row[3:] for row in scale.kept(1_000)}
    # A kilobyte each: a million updates and one model, or a thousand updates and one model.
    assert rows["globals, updates"] == ("1", "0.001", "0")
    assert rows["updates"] == ("1", "0.001", "0")
    assert rows["nothing"] == ("0", "0", "0")
    assert rows["contributions, public"] == ("0", "0", "2")  # float64, of everybody, once


def test_every_strategy_is_in_one_group() -> None:
    from strategies.registry import strategies

    assert sum(int(str(row[1])) for row in scale.kept(1)) == len(strategies())


def test_an_unknown_model_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        scale.main(["--models", "mlpp"])
    assert left.value.code == 2
    assert "mlpp is unknown; give mlp or cnn" in capsys.readouterr().err


def test_a_cluster_is_asked_for_every_size_and_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def measured(script: str, told: dict[str, Any]) -> Child:
        asked.append((script, told))
        return Child({"round_s": 0.5, "rounds": told["rounds"]}, 30.0, 600.0)

    monkeypatch.setattr(scale, "_measured", measured)
    assert scale.main(["--ray", "--clients", "10,20", "--models", "mlp"]) == 0
    assert [script for script, _ in asked] == ["ray_child.py"] * 2
    assert "data.clients=20" in asked[1][1]["changes"]
    told = capsys.readouterr().out
    assert told.startswith("## On a Ray cluster")
    assert "| mlp | 20 | 0.5 | 25.0 | 30 | 600 |" in told

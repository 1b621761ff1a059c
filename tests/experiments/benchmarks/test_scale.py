"""What a million clients ask for is worked out from what strategies say they keep."""

from __future__ import annotations

import pytest

from experiments.benchmarks import scale


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

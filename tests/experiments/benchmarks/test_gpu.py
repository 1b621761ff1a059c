"""The script for an accelerator, tried where there is none: on the processor, for a moment."""

from __future__ import annotations

import json

import pytest
import torch

from experiments.benchmarks import gpu
from unlearning.errors import ConfigError


def test_both_ways_train_the_same_examples() -> None:
    pace = gpu.measure("cnn", torch.device("cpu"), seconds=0.0, examples=64)
    assert (pace.model, pace.device, pace.examples) == ("cnn", "cpu", 64)
    assert pace.ours > 0
    assert pace.plain > 0
    assert pace.ratio == pytest.approx(pace.ours / pace.plain)
    assert pace.ours_mb is pace.plain_mb is None


def test_a_table_and_an_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SHAPES", {"cnn": (1, 28, 28)})
    short = ["--device", "cpu", "--seconds", "0", "--examples", "64"]
    assert gpu.main(short) == 0
    assert "| cnn | cpu | " in capsys.readouterr().out
    assert gpu.main([*short, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ratio"] == pytest.approx(found["ours"] / found["plain"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device; nothing is missing")
def test_a_missing_device_is_not_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("not measured: ")
    assert not told.out


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="take one of cnn, resnet18"):
        gpu.measure("mlp", torch.device("cpu"), 0.0)

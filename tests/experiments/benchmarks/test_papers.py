"""The table of the papers' figures: our side follows from the recorded results and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import measured, papers
from experiments.config.registry import strategies


def test_what_is_committed_is_what_the_results_say() -> None:
    text = (measured.RESULTS / "papers.md").read_text()
    assert papers.table(papers.FIGURES) in text


def test_every_line_names_a_strategy() -> None:
    assert {figure.strategy for figure in papers.FIGURES} <= strategies().keys()


def test_unlearning_alone_leaves_recovery_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Recovery costs 10: retraining (50 - 10) against (20 - 10) is 4x, and a quarter is asked.
    rows = ["strategy,seed,client_rounds", "retrain,0,50", "fine-tune,0,10", "x,0,20"]
    (tmp_path / "found.csv").write_text("\n".join(rows))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    assert measured.alone("found.csv", "client_rounds")("x").startswith(
        "4.00x by client rounds; 75 % saved"
    )


def test_the_average_gap_is_taken_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seed 0: |.1| + |.1| + 0 + 0 over 4 = 5 points; seed 1: 0. Mean 2.5, sd 5 / sqrt 2.
    head = "strategy,seed,retain_accuracy,forget_accuracy,test_accuracy,mia_auc"
    rows = [head, "retrain,0,.9,.5,.9,.5", "retrain,1,.8,.4,.8,.5", "x,1,.8,.4,.8,.5"]
    (tmp_path / "found.csv").write_text("\n".join([*rows, "x,0,.8,.6,.9,.5"]))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    assert measured.gap("found.csv")("x").startswith("Avg Gap 2.50 ± 3.54 points")


def test_a_recent_method_stands_beside_retraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "strategy,seed,test_accuracy,backdoor_success,forget_accuracy,speedup_examples"
    rows = [head, "retrain,0,.9,.1,.2,1", "x,0,.8,.3,.4,5"]
    for scope in ("client", "class"):
        (tmp_path / f"recent_{scope}.csv").write_text("\n".join(rows))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    assert measured.recent("client")("x") == (
        "test accuracy 0.800, retrained 0.900; marker 0.300, retrained 0.100; 5.00x by examples "
        "(`recent_client.csv`)"
    )
    assert "the class 0.400, retrained 0.200" in measured.recent("class")("x")

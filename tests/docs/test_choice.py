"""What a user should pick: every figure of the five sentences is that of the recorded files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments.reporting.measured import figure, gap_of

ROOT = Path(__file__).parents[2]
IID, UNLIKE = "families_client_iid.csv", "families_client_dirichlet.csv"
SAMPLES, CLASS = "families_sample_backdoor.csv", "families_class.csv"
FEATURE = "recent_feature.csv"


def sentences() -> list[str]:
    text = (ROOT / "docs" / "results.md").read_text().partition("## What to pick")[2]
    return [" ".join(one.split()) for one in re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]]


def auc(strategy: str) -> float:
    found = json.loads((ROOT / "experiments/results/audit_ten_best.json").read_text())
    (row,) = (row for row in found["rows"] if row["strategy"] == strategy)
    return float(row["metrics"]["M3"]["value"])


def gap(strategy: str, file: str) -> str:
    return f"{gap_of(file, strategy):.3f}"


def work(strategy: str, file: str, decimals: int = 2) -> str:
    return f"{figure(file, strategy, 'speedup_examples'):.{decimals}f}x"


def stays(strategy: str) -> str:
    return f"({figure(IID, strategy, 'backdoor_success'):.3f}"


def test_there_are_five() -> None:
    assert len(sentences()) == 5
    assert all(one.count(". ") == 0 for one in sentences())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (1, lambda: [work("sharded", "recent_sharded.csv"), work("heavy-ball", IID)]),
        (
            2,
            lambda: [
                f"({work('fed-accum', IID)} less at a gap of {gap('fed-accum', IID)}, and of "
                f"{gap('fed-accum', UNLIKE)}",
                f"by {gap('fine-tune', IID)} and {gap('fine-tune', UNLIKE)}",
                f"samples ({gap('fed-accum', SAMPLES)})",
                f"({gap('fed-recover', IID)} at {work('fed-recover', IID)};",
                f"an AUC of {auc('fed-recover'):.2f})",
            ],
        ),
        (
            3,
            lambda: [
                f"gaps of {gap('quit', IID)} and {gap('quit', UNLIKE)} for a client, "
                f"{gap('quit', SAMPLES)} for samples, {gap('quit', CLASS)} for a class, at "
                f"{work('quit', CLASS, 1)} to {work('quit', IID, 1)} less",
                f"({gap('contribution-subtraction', IID)} and "
                f"{gap('contribution-subtraction', UNLIKE)} at "
                f"{work('contribution-subtraction', IID, 1)})",
                f"`fed-eraser` ({gap('fed-eraser', CLASS)} at {work('fed-eraser', CLASS)})",
            ],
        ),
        (
            4,
            lambda: [
                f"`forget-loss` (AUC {auc('forget-loss'):.2f})",
                *(f"`{one}` ({auc(one):.2f})" for one in ("dampening", "quit", "heavy-ball")),
            ],
        ),
        (
            5,
            lambda: [
                *(f"`{one}` {stays(one)}" for one in ("fine-tune", "random-reset", "fused")),
                f"`fed-recovery` without noise {stays('fed-recovery')}",
                f"({work('feature-sensitivity', FEATURE)})",
            ],
        ),
    ],
)
def test_the_figures_are_those_of_the_files(place: int, said) -> None:  # type: ignore[no-untyped-def]
    sentence = sentences()[place - 1]
    for words in said():
        assert words in sentence


def test_what_the_sentences_say_without_a_figure_of_their_own() -> None:
    files = (IID, UNLIKE, SAMPLES, CLASS)
    assert max(float(gap("heavy-ball", file)) for file in files) == 0.008
    for file in ("recent_sharded.csv", "recent_sharded-tree.csv"):
        assert figure(file, "sharded", "prediction_distance") == 0
    found = json.loads((ROOT / "experiments/results/audit_ten_best.json").read_text())
    best = [row for row in found["rows"] if row["kind"] == "strategy"]
    assert len(best) == 10
    assert all(row["metrics"]["M6"]["value"] < 0.01 for row in best)
    verdicts = {row["strategy"]: row["verdict"] for row in best}
    for told in ("forget-loss", "dampening", "quit", "heavy-ball"):
        assert verdicts[told] == "not forgotten"
    assert verdicts["fed-recover"] == "inconclusive"
    assert figure(FEATURE, "feature-sensitivity", "speedup_examples") < 1

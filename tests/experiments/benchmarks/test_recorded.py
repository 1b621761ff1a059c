"""The tables of recorded comparisons follow from the files and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks import recorded
from experiments.runs.results import read_table, write_results

HEAD = (
    "strategy,seed,scope,guarantee,retain_accuracy,forget_accuracy,test_accuracy,mia_auc,"
    "backdoor_success,prediction_distance,wall_s,client_rounds,client_s,examples,bytes_up,"
    "bytes_down,history_bytes,speedup_wall,speedup_examples,model_digest"
)


def line(strategy: str, seed: int, test: float, backdoor: str = "") -> str:
    return f"{strategy},{seed},client,none,,,{test},,{backdoor},,,,,,,,,,,"


def made(tmp_path: Path, *lines: str) -> tuple[recorded.Row, ...]:
    path = tmp_path / "found.csv"
    path.write_text("\n".join([HEAD, *lines]))
    return read_table(path)


def cells(text: str, strategy: str) -> list[str]:
    found = next(row for row in text.splitlines() if row.startswith(f"| `{strategy}`"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_what_is_committed_is_what_the_files_say(capsys: pytest.CaptureFixture[str]) -> None:
    recorded.main()
    text = (recorded.RESULTS / "families.md").read_text()
    assert text.endswith(capsys.readouterr().out.rstrip("\n") + "\n")


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    rows = made(tmp_path, line("retrain", 0, 0.9), line("x", 0, 0.8, "0.5"))
    write_results(tmp_path, {}, rows)
    assert read_table(tmp_path / "results.csv") == rows


def test_what_is_wrong_is_crossed_out_and_why_is_said(tmp_path: Path) -> None:
    rows = made(tmp_path, line("retrain", 0, 0.9), line("x", 0, 0.8), line("y", 0, 0.7))
    struck = (recorded.Struck("*", ("test",), "it was guessed", "x"),)
    text = recorded.table(rows, struck)
    assert cells(text, "x")[1] == "~~0.800~~"
    assert cells(text, "y")[1] == "0.700"
    assert text.endswith("\n\nStruck out, test: it was guessed.")


def test_the_gap_is_paired_by_seed_and_compared_with_fine_tuning(tmp_path: Path) -> None:
    # Gaps of x: 1 and 2 points; of fine-tuning: 11 and 12. The lead is 10 at both seeds.
    rows = made(
        tmp_path,
        *(line("original", seed, 0.5) for seed in (0, 1)),
        *(line("retrain", seed, test) for seed, test in ((0, 0.90), (1, 0.80))),
        *(line("fine-tune", seed, test) for seed, test in ((0, 0.79), (1, 0.68))),
        *(line("x", seed, test) for seed, test in ((1, 0.78), (0, 0.89))),
    )
    text = recorded.table(rows)
    assert cells(text, "x")[-3:] == ["0.015 ± 0.007", "yes", "none: no marker"]
    assert cells(text, "fine-tune")[-3] == "0.115 ± 0.007"
    assert cells(text, "retrain")[-3] == "0.000"


def test_a_marker_that_was_never_learned_gives_no_verdict(tmp_path: Path) -> None:
    def table(learned: str) -> str:
        names = {"original": learned, "retrain": "0.0", "fine-tune": "0.9", "x": "0.01"}
        lines = [line(name, seed, 0.9, hit) for name, hit in names.items() for seed in (0, 1)]
        return recorded.table(made(tmp_path, *lines))

    assert cells(table("0.9"), "x")[-1] == "forgotten"
    assert cells(table("0.9"), "fine-tune")[-1] == "not forgotten"
    assert cells(table("0.2"), "x")[-1] == "none: no power"

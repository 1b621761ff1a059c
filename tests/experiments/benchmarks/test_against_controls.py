"""A method that does not beat both controls says so in its summary."""

from __future__ import annotations

import pytest

from experiments.benchmarks.against_controls import RECENT, beaten, gaps, main
from experiments.runs.results import read_table
from strategies.registry import describe

SAID = "no better than"


@pytest.mark.parametrize("scope", RECENT)
def test_those_that_were_beaten_say_so_and_no_others(scope: str) -> None:
    found = gaps(read_table(RECENT[scope]))
    worse = beaten(found)
    summaries = {entry.alias: entry.summary for entry in describe()}
    for name in found.keys() & summaries.keys():
        if name in worse:
            assert SAID in summaries[name]
    if scope == "client":
        assert worse == {"fused"}


def test_a_gap_as_large_as_that_of_a_control_is_no_gain() -> None:
    found = {"fine-tune": 0.2, "random-reset": 0.1, "retrain": 0.0, "a": 0.1, "b": 0.09, "c": 0.3}
    assert beaten(found) == {"a", "c"}


def test_the_table_names_every_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    text = capsys.readouterr().out
    assert "| client | `fused` |" in text
    assert "| class | `random-reset` | 0.044 | control |" in text

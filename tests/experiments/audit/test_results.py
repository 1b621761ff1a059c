"""audit.json: what is written is what is read, and damage is said in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.audit.results import (
    AUDIT,
    Audit,
    CardRecord,
    Estimate,
    MetricRecord,
    RowRecord,
    read_audit,
    write_audit,
)
from experiments.runs.record import ResultsError
from unlearning.evaluation.scorecard import Verdict


def audit() -> Audit:
    card = CardRecord(passes=True, dose=((0.0, 0.5), (100.0, None)))
    metric = MetricRecord(
        id="M3", name="u_lira", title="U-LiRA", unit="AUC", perfect="0.5", source="-", card=card
    )
    row = RowRecord(
        strategy="retrain",
        kind="control",
        guarantee="exact",
        metrics={"M3": Estimate(value=0.5, n=16, equivalent=True)},
        verdict=Verdict.FORGOTTEN,
        why="M3 within its margin",
    )
    return Audit(
        command="fedunlearn audit c.toml",
        key="abc",
        models_per_side=16,
        exploratory=False,
        federations=5,
        seconds=1.5,
        workers=2,
        peak_rss_bytes=10,
        scenario={"data": "digits"},
        margins={"M3": 0.05},
        metrics=(metric,),
        rows=(row,),
    )


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = write_audit(tmp_path, audit())
    assert path == tmp_path / AUDIT
    assert read_audit(tmp_path) == audit()
    plain = json.loads(path.read_text())
    assert plain["rows"][0]["verdict"] == "forgotten"
    assert plain["metrics"][0]["card"]["dose"] == [[0.0, 0.5], [100.0, None]]


def test_damage_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="does not exist; `fedunlearn audit"):
        read_audit(tmp_path)
    (tmp_path / AUDIT).write_text("{")
    with pytest.raises(ResultsError, match="cannot be read"):
        read_audit(tmp_path)
    (tmp_path / AUDIT).write_text('{"key": "a"}')
    with pytest.raises(ResultsError, match=r"another shape .*command"):
        read_audit(tmp_path)


def test_a_number_is_finite_or_missing() -> None:
    with pytest.raises(ValueError, match="finite"):
        Estimate(value=float("nan"))

"""The terminal's tables: every row, greyed metrics with their reason, verdicts."""

from __future__ import annotations

from rich.console import Console

from experiments.audit.results import Audit, CardRecord, Estimate, MetricRecord, RowRecord
from experiments.cli.audit_table import cards_table, closing, rows_table
from unlearning.evaluation.scorecard import Verdict


def metric(name: str, card: CardRecord) -> MetricRecord:
    return MetricRecord(id=name, name="n", title="t", unit="u", perfect="0", source="s", card=card)


def found() -> Audit:
    good = CardRecord(passes=True, false_alarm_rate=0.05, separation_auc=1.0, dose_spearman=1.0)
    poor = CardRecord(passes=False, reason="no power here", separation_auc=0.6)
    absent = CardRecord(passes=False, reason="needs noise")
    estimates = {"M3": Estimate(value=0.5, calibrated=0.01), "M4": Estimate(value=0.25)}
    rows = [
        RowRecord(
            strategy=name,
            kind="control",
            guarantee="exact",
            metrics=estimates,
            verdict=verdict,
            why="because",
            more_seeds=more,
        )
        for name, verdict, more in (
            ("retrain", Verdict.FORGOTTEN, None),
            ("no-t", Verdict.INCONCLUSIVE, 7),
            ("fed-osd", None, None),
        )
    ]
    return Audit(
        command="c",
        key="k",
        models_per_side=3,
        exploratory=True,
        federations=9,
        reused=2,
        seconds=61.0,
        cpu_seconds=100.0,
        workers=2,
        peak_rss_bytes=7 * 10**8,
        scenario={},
        margins={},
        metrics=(metric("M3", good), metric("M4", poor), metric("M7", absent)),
        rows=tuple(rows),
        refused=({"strategy": "mo-de", "reason": "cannot"},),
    )


def shown(what: object, **settings: object) -> str:
    console = Console(width=150, **settings)  # type: ignore[arg-type]
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_cards_say_why_not() -> None:
    text = shown(cards_table(found()))
    for words in ("M3 n", "passes", "0.05", "no power here", "needs noise"):
        assert words in text
    # What does not apply here did not fail.
    said = {line.split()[0]: line for line in text.splitlines() if line.startswith(" M")}
    assert "fails" in said["M4"]
    assert "not applicable" in said["M7"]
    assert "fails" not in said["M7"]


def test_rows_say_value_place_and_verdict() -> None:
    text = shown(rows_table(found()))
    for words in ("retrain", "0.500", "(+0.01)", "0.250", "forgotten (because)", "7 more seeds"):
        assert words in text
    assert "no verdict: because" in text
    assert "M7" not in text  # nobody measured it


def test_what_failed_its_card_is_greyed() -> None:
    lines = shown(rows_table(found()), force_terminal=True, color_system="standard").splitlines()
    values = next(line for line in lines if "0.250" in line)
    assert "\x1b[2m0.250" in values.replace(" ", "")
    assert "\x1b[2m0.500" not in values.replace(" ", "")


def test_the_closing_line_counts() -> None:
    text = closing(found())
    for words in (
        "9 federations (2 were",
        "61 s with 2 workers",
        "700 MB",
        "first look",
        "mo-de did",
    ):
        assert words in text

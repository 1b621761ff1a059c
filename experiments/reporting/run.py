"""A run as a report sees it: rows, details, the comparisons of both, and numbers as words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.runs.details import Details, Roc, Tallied
from experiments.runs.fates import fates, is_marker_asked
from experiments.runs.results import (
    CONTROLS,
    FINE_TUNE,
    ORIGINAL,
    RETRAIN,
    Row,
    by_seed,
    strategies,
)
from experiments.runs.table import DASH
from unlearning.evaluation.attack_roc import AttackRoc
from unlearning.evaluation.fate import Fate
from unlearning.evaluation.scorecard import (
    MARKER_POWER,
    RANGES,
    Spread,
    Verdict,
    average_gap,
    bounded,
    judge_marker,
    paired_differences,
    summarise,
)
from unlearning.evaluation.tally import Tally

__all__ = ["TITLES", "Cell", "Run", "interval", "mean", "measured", "number", "reasons"]

TITLES = {
    "retain_accuracy": "Retain accuracy",
    "forget_accuracy": "Forget accuracy",
    "test_accuracy": "Test accuracy",
    "mia_auc": "MIA AUC",
    "backdoor_success": "Backdoor success",
    "prediction_distance": "Prediction distance",
}
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Cell:
    """A table cell: a number as words, what stands below it, and why there is none.

    Parameters
    ----------
    text : str
        What is read first.
    interval : str
        The 95 % interval in words; empty for one seed.
    below : str
        A last line.
    why : str
        Why nothing was measured; empty if something was.
    value, sd, low, high : float or None
        The number itself and its spread, unrounded; by ``value`` the column is sorted.
    n : int or None
        Number of seeds behind it.
    """

    text: str
    below: str = ""
    why: str = ""
    interval: str = ""
    value: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


def number(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    """Return a number for readers: commas in thousands, a real minus, no sign on zero."""
    if value is None:
        return DASH
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:  # no sign on what rounds to zero
        text = f"{0:.{decimals}f}"
    return text.replace("-", _MINUS)


def interval(low: float | None, high: float | None, decimals: int = 3) -> str:
    """Return an interval in words; empty if there is none."""
    if low is None or high is None:
        return ""
    return f"{number(low, decimals)} to {number(high, decimals)}"


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what was measured, None if nothing was."""
    found = [value for value in values if value is not None]
    return summarise(found).mean if found else None


def measured(
    found: Spread | None, why: str, decimals: int = 3, *, below: str = "", sign: bool = False
) -> Cell:
    """Return a cell with mean and 95 % interval, or a dash that says why."""
    if found is None:
        return Cell(DASH, why=why)
    return Cell(
        text=number(found.mean, decimals, sign=sign),
        below=below,
        interval=interval(found.low, found.high, decimals),
        value=found.mean,
        sd=found.sd,
        low=found.low,
        high=found.high,
        n=found.n,
    )


def reasons(titles: Sequence[str], cells: Sequence[Sequence[Cell]]) -> list[str]:
    """Return why dashes stand in a table, column by column, for those who cannot hover."""
    found = dict.fromkeys(
        f"{title}: {cell.why}"
        for line in cells
        for title, cell in zip(titles, line, strict=True)
        if cell.why
    )
    return list(found)


class Run:
    """What a run left behind, with the comparisons that several parts of the report need."""

    def __init__(self, rows: Sequence[Row], details: Details) -> None:
        self.rows, self.details = tuple(rows), details
        self.strategies = strategies(rows)
        self.answers = tuple(name for name in self.strategies if name not in CONTROLS)
        self.seeds = tuple(sorted({row.seed for row in rows}))
        self.guarantees = {row.strategy: row.guarantee or "none" for row in rows}
        kind = (details.marker or {}).get("kind", "")
        self.has_backdoor = kind in ("backdoor", "spurious")
        self.is_marker_asked = is_marker_asked(details)
        before = by_seed(rows, ORIGINAL, "backdoor_success").values()
        self.marker_before = [value for value in before if value is not None]
        self.fates = fates(details, rows)

    @property
    def has_reference(self) -> bool:
        """Whether there is a retrained model to compare with."""
        return RETRAIN in self.strategies

    @property
    def has_power(self) -> bool:
        """Whether the marker can tell forgetting from not having learned."""
        return (
            self.is_marker_asked
            and bool(self.marker_before)
            and summarise(self.marker_before).mean >= MARKER_POWER
        )

    def is_retraining(self, strategy: str) -> bool:
        """Return whether a row took retraining's work, or more: then closeness is no merit."""
        shares = [
            ours / whole
            for seed, ours in by_seed(self.rows, strategy, "examples").items()
            if ours is not None and (whole := by_seed(self.rows, RETRAIN, "examples").get(seed))
        ]
        return bool(shares) and summarise(shares).mean >= 1

    def has_failed(self, strategy: str) -> bool:
        """Return whether the marker or a request says that a strategy did not forget."""
        own = [found.fate for (_, name), found in self.fates.items() if name == strategy]
        return self.verdict(strategy) is Verdict.NOT_FORGOTTEN or Fate.NOT_FORGOTTEN in own

    def gaps(self, strategy: str) -> dict[int, float | None]:
        """Return the average gap to the retrained model of the same seed."""
        cards = {row.seed: row.metrics for row in self.rows if row.strategy == RETRAIN}
        return {
            row.seed: average_gap(row.metrics, cards[row.seed])
            for row in self.rows
            if row.strategy == strategy and row.seed in cards
        }

    def gap(self, strategy: str) -> Spread | None:
        """Return the average gap over the seeds, None if there is none."""
        found = [value for value in self.gaps(strategy).values() if value is not None]
        return bounded(summarise(found), *RANGES["average_gap"]) if found else None

    def to_retrain(self, strategy: str, name: str) -> list[float]:
        """Return the differences to the retrained model in one number, paired by seed."""
        ours = by_seed(self.rows, strategy, name)
        return paired_differences(ours, by_seed(self.rows, RETRAIN, name))

    def verdict(self, strategy: str) -> Verdict | None:
        """Return what the marker says about a strategy; None: no verdict may be given.

        A marker says nothing where its owner was not asked to leave: nobody wants it gone.
        """
        if not self.is_marker_asked:
            return None
        return judge_marker(self.marker_before, self.to_retrain(strategy, "backdoor_success"))

    def against_fine_tune(self, strategy: str) -> list[float]:
        """Return the differences of the average gap to that of fine-tuning, paired by seed."""
        return paired_differences(self.gaps(strategy), self.gaps(FINE_TUNE))

    def of_text(self, strategy: str, measure: str) -> float | None:
        """Return the mean over seeds of one measure of text, None if nothing was measured."""
        measures = self.details.text_measures
        return mean([m.value for m in measures if (m.strategy, m.measure) == (strategy, measure)])

    def rocs(self, strategy: str) -> list[AttackRoc]:
        """Return the attack's curves, one per seed."""
        return [_curve(one) for one in self.details.rocs if one.strategy == strategy]

    def tallies(self, strategy: str) -> dict[int, Tally]:
        """Return the counts of right answers by seed."""
        return {one.seed: _tally(one) for one in self.details.tallies if one.strategy == strategy}


def _curve(found: Roc) -> AttackRoc:
    return AttackRoc(found.fpr, found.tpr, found.members, found.non_members)


def _tally(found: Tallied) -> Tally:
    return Tally(
        found.by,
        found.clients,
        found.columns,
        found.correct,
        found.total,
        found.test_columns,
        found.test_correct,
        found.test_total,
    )

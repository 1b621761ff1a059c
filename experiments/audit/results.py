"""What an audit found, as it lies on disk (``audit.json``): metrics with cards, rows, ROC curves.

Frozen records that any program may read; a number that was not measured is None, ``null`` there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from experiments.runs.record import Record
from unlearning.evaluation.scorecard import Verdict
from unlearning.records.files import write_atomically

__all__ = [
    "AUDIT",
    "Audit",
    "CardRecord",
    "Estimate",
    "Findings",
    "MetricRecord",
    "Roc",
    "RowRecord",
    "read_audit",
    "write_audit",
]

AUDIT = "audit.json"


class CardRecord(Record):
    """Whether a metric may be trusted in this scenario, by what its controls showed.

    Parameters
    ----------
    passes : bool
        Whether all that could be checked was in order.
    reason : str
        In words: what failed, or that nothing did.
    false_alarm_rate, false_alarm_low, false_alarm_high : float or None
        Share of null runs (retrained against retrained) that raised an alarm, and its 95 %
        Clopper-Pearson interval.
    separation_auc : float or None
        ROC AUC of null runs against positive runs (original against retrained).
    dose_spearman : float or None
        Rank correlation of the share of the forget set still trained on with the metric's size.
    dose : tuple of (float, float or None)
        That share in percent, 0 to 100, and the metric's value.
    """

    passes: bool
    reason: str = ""
    false_alarm_rate: float | None = None
    false_alarm_low: float | None = None
    false_alarm_high: float | None = None
    separation_auc: float | None = None
    dose_spearman: float | None = None
    dose: tuple[tuple[float, float | None], ...] = ()

    @property
    def was_tried(self) -> bool:
        """Whether the controls put it to the test; what does not apply here did not fail."""
        return self.false_alarm_rate is not None or self.separation_auc is not None

    @property
    def word(self) -> str:
        """What the card says, in one word or two."""
        return "passes" if self.passes else "fails" if self.was_tried else "not applicable"


class MetricRecord(Record):
    """One metric: what it is, and its card in this scenario.

    Parameters
    ----------
    id : str
        ``M1`` to ``M18``.
    name, title, unit : str
        For programs, for people, and in what it is counted.
    perfect : str
        The value of exact retraining, in words where it is not one number.
    remembered : "higher", "lower" or None
        On which side of it a model that did not forget lies; None: it does not measure that.
    source : str
        The publication.
    card : CardRecord
        Whether to trust it here.
    decides : bool
        Whether the verdict rests on it.
    """

    id: str
    name: str
    title: str
    unit: str
    perfect: str
    remembered: Literal["higher", "lower"] | None = None
    source: str
    card: CardRecord
    decides: bool = False


class Estimate(Record):
    """One metric of one row.

    Parameters
    ----------
    value, low, high : float or None
        Estimate and 95 % interval over training seeds, in the metric's unit.
    n : int
        Training seeds it rests on.
    calibrated, calibrated_low, calibrated_high : float or None
        The same, scaled so that exact retraining is 0 and no unlearning 1; None where the metric
        cannot tell the two apart.
    p, p_holm : float or None
        Of no difference to exact retraining, and adjusted over the rows.
    equivalent : bool or None
        Whether a difference beyond the margin could be excluded; None without a margin.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    calibrated: float | None = None
    calibrated_low: float | None = None
    calibrated_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    equivalent: bool | None = None


class RowRecord(Record):
    """A strategy or a control.

    Parameters
    ----------
    strategy, kind, guarantee : str
        Alias; ``control`` or ``strategy``; how far the strategy's claim goes.
    metrics : dict of str to Estimate
        By id; a metric that does not apply is left out.
    verdict : Verdict or None
        None: no metric that decides passed its card, ``why`` says so.
    why : str
        What the verdict rests on.
    more_seeds : int or None
        With how many further training seeds an inconclusive one could be settled, if that is known.
    work : dict of str to float
        Rounds of clients, examples and bytes of unlearning and recovery, means over seeds.
    """

    strategy: str
    kind: Literal["control", "strategy"]
    guarantee: str
    metrics: dict[str, Estimate]
    verdict: Verdict | None
    why: str
    more_seeds: int | None = None
    work: dict[str, float] = Field(default_factory=dict)


class Roc(Record):
    """ROC curve of the likelihood-ratio attack (M3) on one row, with the band of chance."""

    strategy: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    auc: float
    null_low: float
    null_high: float


@dataclass(frozen=True)
class Findings:
    """What an audit says, on its way from the worker that evaluated it: parts of :class:`Audit`.

    It stands here so that whoever receives it need not import what it was worked out with.
    """

    metrics: tuple[MetricRecord, ...]
    rows: tuple[RowRecord, ...]
    roc: tuple[Roc, ...]


class Audit(Record):
    """Everything an audit found.

    Parameters
    ----------
    command, key : str
        How it was made; the hash of config, code, data and libraries that its models rest on.
    models_per_side : int
        K, training seeds behind every row.
    exploratory : bool
        Whether K is too small for more than a first look.
    federations : int
        Models trained or unlearned, each the result of one federation.
    reused : int
        Of these, how many were there already.
    seconds, cpu_seconds : float
        Wall clock of the command; processor seconds of all its processes.
    workers : int
        Worker processes.
    peak_rss_bytes : int
        Largest sum over the processes of their share of memory (PSS where the system tells).
    scenario : dict
        Data, model, marker, requests and rounds.
    margins : dict of str to float
        Differences that count as none, by metric, declared beforehand.
    metrics, rows, roc : tuple
        The findings.
    refused : tuple of dict
        Strategies that did not answer, with the reason.
    """

    command: str
    key: str
    models_per_side: int
    exploratory: bool
    federations: int
    reused: int = 0
    seconds: float
    cpu_seconds: float | None = None
    workers: int
    peak_rss_bytes: int
    scenario: dict[str, Any]
    margins: dict[str, float]
    metrics: tuple[MetricRecord, ...]
    rows: tuple[RowRecord, ...]
    roc: tuple[Roc, ...] = ()
    refused: tuple[dict[str, str], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)


def write_audit(run_dir: Path, audit: Audit) -> Path:
    """Write ``audit.json`` whole or not at all; return its path."""
    path = run_dir / AUDIT
    write_atomically(path, (audit.model_dump_json(indent=1) + "\n").encode())
    return path


def read_audit(run_dir: Path) -> Audit:
    """Return what an audit found.

    Raises
    ------
    ResultsError
        If ``audit.json`` is missing, damaged or of another shape.
    """
    return Audit.read(
        run_dir / AUDIT,
        missing=f"`fedunlearn audit CONFIG --out {run_dir}` writes it",
        again="run the audit again",
    )

"""What a report tells beside the rows: ``details.json``, which may grow.

A number that was not measured is None here and ``null`` there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from experiments.runs.record import Record
from unlearning.records.files import write_atomically

__all__ = [
    "PREPARE",
    "Answer",
    "Details",
    "Extra",
    "FeatureMeasure",
    "Phases",
    "Point",
    "Refused",
    "Roc",
    "Tallied",
    "TaskMeasure",
    "TextMeasure",
    "Work",
    "read_details",
    "write_details",
]

PREPARE = "prepare"  # the phase of what learning pays for one strategy


class Point(Record):
    """One measurement along the way; ``round`` is its position from the start of the run."""

    strategy: str
    seed: int
    phase: Literal["learn", "unlearn", "recover"]
    round: int
    test_accuracy: float | None = None
    retain_accuracy: float | None = None
    forget_accuracy: float | None = None
    backdoor_success: float | None = None
    wall_s: float | None = None


class Work(Record):
    """What one phase cost; the names and units of :class:`unlearning.cost.Cost`."""

    wall_s: float | None = None
    client_rounds: float | None = None
    client_s: float | None = None
    examples: float | None = None
    bytes_up: float | None = None
    bytes_down: float | None = None


class Phases(Record):
    """What one strategy cost at one seed, apart for unlearning and recovery.

    ``prepare`` is what learning paid for it alone: what clients made and kept beside training so
    that it could answer; None in runs that did not tell it apart.
    """

    strategy: str
    seed: int
    prepare: Work | None = None
    unlearn: Work = Work()
    recover: Work = Work()


class Extra(Record):
    """What is worth knowing about one row beyond its numbers."""

    strategy: str
    seed: int
    array_distance: float | None = None
    mia_null_se: float | None = None
    notes: tuple[str, ...] = ()


class Roc(Record):
    """The membership attack's curve on one model: an ``AttackRoc`` as it is written."""

    strategy: str
    seed: int
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    members: int
    non_members: int


class Tallied(Record):
    """Right answers of one model; the entries of :class:`unlearning.evaluation.tally.Tally`."""

    strategy: str
    seed: int
    by: str = "class"
    clients: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    correct: tuple[tuple[int, ...], ...] = ()
    total: tuple[tuple[int, ...], ...] = ()
    test_columns: tuple[str, ...] = ()
    test_correct: tuple[int, ...] = ()
    test_total: tuple[int, ...] = ()


class Refused(Record):
    """A strategy that did not answer, and why."""

    strategy: str
    reason: str


class Answer(Record):
    """One request on one final model, by itself.

    Parameters
    ----------
    request : str
        Its id.
    strategy, seed
        Whose model; the original's says what was there to forget.
    examples : int
        Size of the forget set.
    forget_accuracy, mia_auc, backdoor_success : float or None
        As on the scorecard, on what this request names; the last where it names the examples that
        carry the backdoor.
    """

    request: str
    strategy: str
    seed: int
    examples: int = 0
    forget_accuracy: float | None = None
    mia_auc: float | None = None
    backdoor_success: float | None = None


class FeatureMeasure(Record):
    """One measure of one model after a request for features.

    Parameters
    ----------
    strategy, seed
        Whose model.
    measure : str
        ``sensitivity``, the mean of ``|f(x) - f(x + d)| / |d|`` over owners' training rows and
        noise d on the features, f being logits (probabilities of a model that is no network);
        ``accuracy_without``, test accuracy with 0 for the features; ``attribute_auc``, how well
        the model's loss on an owner's training row tells whether the features' mean value was
        high; ``attribute_null``, the same on rows never trained on; ``attribute_se``, the standard
        error of the first if there is nothing to tell.
    value : float
        Never a stand-in: what was not measured is not there.
    """

    strategy: str
    seed: int
    measure: str
    value: float


class TaskMeasure(Record):
    """One measure of one model after a request for a task.

    Parameters
    ----------
    strategy, seed
        Whose model.
    measure : str
        ``accuracy`` of a task's own head; ``change`` against the retrained model, of a task that
        stays; ``retained``, the mean accuracy of those that stay, ``retained_worst`` and
        ``worst_change``, the least of them. Of a forgotten task: ``old_head``, the accuracy of the
        original's head on this trunk; ``probe``, that of a fresh head on the frozen trunk;
        ``relearn_rounds``, rounds of ordinary learning until it is back (one more than
        ``rounds["relearn"]`` if it was not by then); ``cka_original`` and ``cka_retrained``, how
        alike the trunks are on its inputs. Test data; fractions 0 to 1, and rounds.
    task : str or None
        Which; of ``retained_worst`` and ``worst_change`` the task it is; None: over several.
    value : float
        Never a stand-in: what was not measured is not there.
    """

    strategy: str
    seed: int
    measure: str
    task: str | None = None
    value: float


class TextMeasure(Record):
    """One measure of one model of text.

    Parameters
    ----------
    strategy, seed
        Whose model.
    measure : str
        ``retain_perplexity``, ``forget_perplexity``, ``held_out_perplexity`` (of the forgotten
        clients' unseen text) and ``test_perplexity``; ``forget_completion`` and
        ``held_out_completion``, the share of windows whose second half begins, for four
        characters, as the model goes on with the first; ``canary_exposure``, a mean in bits, and
        ``canary_completion``, the share of canaries whose secret the model says.
    value : float
        Never a stand-in: what was not measured is not there.
    """

    strategy: str
    seed: int
    measure: str
    value: float


class SiteMeasure(Record):
    """What one site told of one model on one split of its own data.

    Parameters
    ----------
    strategy, seed
        Whose model.
    client : int
        Which site.
    split : str
        ``retain``, ``forget`` or ``held_out``.
    few : bool
        It has some examples, but fewer than ten: it told nothing.
    examples : int
        How many it told of.
    accuracy : float or None
        Right answers over examples; None where it told nothing.
    """

    strategy: str
    seed: int
    client: int
    split: str
    few: bool = False
    examples: int = 0
    accuracy: float | None = None


class Details(Record):
    """Everything the report tells beside the rows."""

    command: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    rounds: dict[str, int] = Field(default_factory=dict)
    marker: dict[str, Any] | None = None
    requests: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] = Field(default_factory=dict)
    timeline: tuple[Point, ...] = ()
    phases: tuple[Phases, ...] = ()
    extra: tuple[Extra, ...] = ()
    task_measures: tuple[TaskMeasure, ...] = ()
    feature_measures: tuple[FeatureMeasure, ...] = ()
    text_measures: tuple[TextMeasure, ...] = ()
    site_measures: tuple[SiteMeasure, ...] = ()
    answers: tuple[Answer, ...] = ()
    refused: tuple[Refused, ...] = ()
    rocs: tuple[Roc, ...] = ()
    tallies: tuple[Tallied, ...] = ()
    ledger_head: str = ""
    history: dict[str, Any] = Field(default_factory=dict)
    partial: bool = False


def write_details(run_dir: Path, details: Details | Mapping[str, object]) -> None:
    """Write ``details.json`` for the report.

    Raises
    ------
    ValueError
        If an entry has another shape than :class:`Details` tells.
    """
    checked = Details.model_validate(details).model_dump(mode="json")
    # On one line: with its curves and counts a line per number would be most of the file.
    text = json.dumps(checked, allow_nan=False, separators=(",", ":"))
    write_atomically(run_dir / "details.json", f"{text}\n".encode())


def read_details(run_dir: Path) -> Details:
    """Return what the report tells beside the rows; empty if the run kept no ``details.json``.

    Raises
    ------
    ResultsError
        If the file is damaged or of another shape.
    """
    path = run_dir / "details.json"
    return Details.read(path) if path.exists() else Details()

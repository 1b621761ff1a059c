"""The books of a run: what is written while it goes on, and at its end.

One piece writes status, rows, details, timeline and report. Whatever a strategy leaves is entered
as soon as it is there, so that a run that ends early keeps what was finished; until the books are
closed the files say that they are a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from experiments.config.loading import Config
from experiments.federation.answers import asks_for_marker
from experiments.federation.party import Failure, Party
from experiments.federation.task import Task
from experiments.federation.task_measures import relearn_limit
from experiments.federation.text_measures import REFERENCES
from experiments.reporting.report import render
from experiments.reporting.timeline import timeline
from experiments.runs.details import (
    PREPARE,
    Answer,
    Details,
    Extra,
    FeatureMeasure,
    Phases,
    Refused,
    Roc,
    SiteMeasure,
    Tallied,
    TaskMeasure,
    TextMeasure,
    Work,
    write_details,
)
from experiments.runs.folder import RUN, RunFolder
from experiments.runs.lock import held
from experiments.runs.log import logged
from experiments.runs.progress import Observer, Tick
from experiments.runs.results import ORIGINAL, RETRAIN, FailedRow, Row, write_results
from experiments.runs.text import write_text_measures
from experiments.runs.versions import versions
from experiments.tracking.live import tracked
from unlearning.arrays import mismatch, parameters, plain
from unlearning.cost import Cost, speedup
from unlearning.evaluation.attack_roc import attack_roc
from unlearning.evaluation.metrics import array_distance
from unlearning.evaluation.scorecard import membership_null_se, score
from unlearning.packing import pack
from unlearning.records.files import write_atomically

__all__ = ["Books"]

_DIGITS = 6  # of a share in details.json


@dataclass(frozen=True)
class _Entry:
    """What is written of one party; worked out once for each reference it is held against."""

    row: Row
    extra: Extra
    phases: Phases | None
    roc: Roc | None
    tally: Tallied | None


class Books:
    """Keeps what a run folder tells of a run; :meth:`kept` opens and closes them.

    Parameters
    ----------
    folder : RunFolder
        Where to write.
    config : Config
        All settings.
    task : Task
        Of the first seed.
    kind : str
        ``"run"`` or ``"compare"``.
    tell : Observer
        Told of every step.
    command : str
        The words that made the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        task: Task,
        kind: str,
        tell: Observer,
        command: str,
    ) -> None:
        self.folder, self.ledger = folder, folder.open_ledger()
        self._config, self._task, self._kind, self._tell = config, task, kind, tell
        self._parties: list[Party] = []
        self._entries: dict[tuple[int, bool], _Entry] = {}
        self._failed: list[Failure] = []
        self._refused: list[Refused] = []
        self._task_measures: list[TaskMeasure] = []
        self._feature_measures: list[FeatureMeasure] = []
        self._text_measures: list[TextMeasure] = []
        self._answers: list[Answer] = []
        self._command = command
        self._tick: Tick | None = None

    @classmethod
    @contextmanager
    def kept(
        cls,
        folder: RunFolder,
        config: Config,
        task: Task,
        kind: str,
        observer: Observer,
        command: str,
    ) -> Iterator[Books]:
        """Keep the books of a run in a block; how the block ends is how the run ended."""
        with (
            held(folder.path),
            tracked(config.track, folder.path, observer) as followed,
            logged(folder.path, followed, command) as noted,
            folder.tracked(noted) as tell,
        ):
            yield cls(folder, config, task, kind, tell, command)

    def tick(self, tick: Tick) -> None:
        """Write how far the run is, and tell it."""
        self._tick = tick
        self._tell(tick)

    def measuring(self, strategy: str) -> None:
        """Tell, with the counts of the last round, that a strategy's model is being measured."""
        if self._tick is not None:
            now = replace(
                self._tick, strategy=strategy, phase="measure", server_round=0, accuracy=None
            )
            self._tell(now)

    def enter(
        self,
        found: Party | Failure | Refused | TaskMeasure | FeatureMeasure | TextMeasure | Answer,
    ) -> None:
        """Take down what a strategy left, or why it left nothing, and write what there is."""
        if isinstance(found, TaskMeasure):
            self._task_measures.append(found)
        elif isinstance(found, FeatureMeasure):
            self._feature_measures.append(found)
        elif isinstance(found, TextMeasure):
            self._text_measures.append(found)
        elif isinstance(found, Answer):
            self._answers.append(found)
        elif isinstance(found, Refused):
            if found not in self._refused:
                self._refused.append(found)
        elif isinstance(found, Failure):
            self._failed.append(found)
            self._refused.append(
                Refused(strategy=found.name, reason=f"seed {found.seed}: {found.reason}")
            )
            self._write(partial=True)
        else:
            self._parties.append(found)
            self._write(partial=True)

    def close(self) -> None:
        """Write everything, whole now, with model, timeline and report."""
        if self._kind == RUN:
            released = self._parties[-1].arrays
            named = {plain(name): array for name, array in released.items()}
            write_atomically(self.folder.model, pack(named))
        details = self._write(partial=False)
        if details.text_measures:
            write_text_measures(self.folder.path, details.text_measures)
        if picture := timeline(details.timeline):
            write_atomically(self.folder.timeline, picture.encode())
        render(self.folder.path)

    # Inside ---------------------------------------------------------------------------------

    def _write(self, *, partial: bool) -> Details:
        entries = self._entered()
        rows = [entry.row for entry in entries]
        failed = [
            FailedRow(one.strategy, one.seed, one.scope, one.guarantee, one.reason)
            for one in self._failed
        ]
        write_results(
            self.folder.path,
            self._config.to_dict(),
            rows,
            failed,
            partial=partial,
            measures=[*self._text_measures, *self._feature_measures],
        )
        details = self._details(entries, partial=partial)
        write_details(self.folder.path, details)
        return details

    def _entered(self) -> list[_Entry]:
        references = {party.seed: party for party in self._parties if party.strategy == RETRAIN}
        for place, party in enumerate(self._parties):
            key = (place, party.seed in references)
            if key not in self._entries:
                self._entries[key] = _entry(party, _fitting(party, references.get(party.seed)))
        return [
            self._entries[place, party.seed in references]
            for place, party in enumerate(self._parties)
        ]

    def _details(self, entries: Sequence[_Entry], *, partial: bool) -> Details:
        config, task, asked = self._config, self._task, self.ledger.requests()
        marker = None
        if config.marker is not None:
            marker = {**config.marker.model_dump(), "asked": asks_for_marker(task, asked)}
        return Details(
            command=self._command,
            versions=versions(),
            rounds={
                "learned": config.rounds,
                "recovery": config.recovery_rounds,
                **({"relearn": relearn_limit(config)} if self._task_measures else {}),
                **({"canary_ranks": REFERENCES + 1} if self._text_measures else {}),
            },
            marker=marker,
            requests=tuple({**request.to_json(), "text": request.describe()} for request in asked),
            data={
                "name": config.data.name,
                "clients": len(task.clients),
                "classes": task.num_classes,
                "model": config.model.name,
                **({"at_sites": True} if task.remote else {}),
                **({"owners": list(task.owners)} if task.owners else {}),
            },
            timeline=tuple(point for party in self._parties for point in party.timeline),
            phases=tuple(entry.phases for entry in entries if entry.phases is not None),
            extra=tuple(entry.extra for entry in entries),
            task_measures=tuple(self._task_measures),
            feature_measures=tuple(self._feature_measures),
            text_measures=tuple(self._text_measures),
            site_measures=tuple(one for party in self._parties for one in _told(party)),
            answers=tuple(self._answers),
            refused=tuple(self._refused),
            rocs=tuple(entry.roc for entry in entries if entry.roc is not None),
            tallies=tuple(entry.tally for entry in entries if entry.tally is not None),
            ledger_head=self.ledger.head,
            history={"interval": config.history.interval, "dtype": config.history.dtype},
            partial=partial,
        )


def _fitting(party: Party, reference: Party | None) -> Party | None:
    """Return the reference if it was judged on the same sets.

    In a run with several requests the original was judged when the first was served, the final
    model on all of them.
    """
    if reference is None or len(party.outputs.forget) != len(reference.outputs.forget):
        return None
    return reference


def _told(party: Party) -> Iterator[SiteMeasure]:
    """Yield what the sites told of a model; a simulation's judge sees everything itself."""
    named = {"strategy": party.strategy, "seed": party.seed}
    for split, told in party.outputs.told.items():
        for client, count, right in told.by_client:
            facts = {"client": client, "split": split, "examples": count, "accuracy": right / count}
            yield SiteMeasure.model_validate({**named, **facts})
        for client in told.silent:
            yield SiteMeasure.model_validate(
                {**named, "client": client, "split": split, "few": True}
            )


def _entry(party: Party, reference: Party | None) -> _Entry:
    return _Entry(
        row=_row(party, reference),
        extra=_extra(party, reference),
        phases=None if party.strategy == ORIGINAL else _phases(party),
        roc=_roc(party),
        tally=_tally(party),
    )


def _total(costs: Mapping[str, Cost], names: Sequence[str]) -> Cost:
    return sum((costs[name] for name in names if name in costs), Cost())


def _row(party: Party, reference: Party | None) -> Row:
    phases = ("learn",) if party.strategy == ORIGINAL else (PREPARE, "unlearn", "recover")
    spent = _total(party.costs, phases)
    cost: dict[str, Any] = {**spent.to_json(), "history_bytes": party.history_bytes}
    if reference is not None and party.strategy != ORIGINAL:
        base = _total(reference.costs, phases)
        cost["speedup_wall"] = speedup(base.wall_s, spent.wall_s)
        cost["speedup_examples"] = speedup(base.examples, spent.examples)
    metrics = score(party.outputs, reference.outputs if reference else None).to_json()
    return Row(
        strategy=party.strategy,
        seed=party.seed,
        scope=party.scope,
        guarantee=party.guarantee,
        metrics=metrics,
        cost=cost,
        model_digest=party.digest,
    )


def _phases(party: Party) -> Phases:
    phases = (PREPARE, "unlearn", "recover")
    found = {name: party.costs.get(name, Cost()).to_json() for name in phases}
    return Phases(
        strategy=party.strategy,
        seed=party.seed,
        **{name: Work(**values) for name, values in found.items()},
    )


def _extra(party: Party, reference: Party | None) -> Extra:
    distance = None
    # A model that is no network may have other shapes, or whole numbers alone.
    if (
        reference is not None
        and not mismatch(party.arrays, reference.arrays)
        and any(array.any() for array in parameters(reference.arrays).values())
    ):
        distance = array_distance(party.arrays, reference.arrays)
    return Extra(
        strategy=party.strategy,
        seed=party.seed,
        array_distance=distance,
        mia_null_se=membership_null_se(party.outputs),
    )


def _roc(party: Party) -> Roc | None:
    found = attack_roc(party.outputs)
    if found is None:
        return None
    return Roc(
        strategy=party.strategy,
        seed=party.seed,
        fpr=tuple(round(share, _DIGITS) for share in found.fpr),
        tpr=tuple(round(share, _DIGITS) for share in found.tpr),
        members=found.members,
        non_members=found.non_members,
    )


def _tally(party: Party) -> Tallied | None:
    if party.tally is None:
        return None
    return Tallied(strategy=party.strategy, seed=party.seed, **asdict(party.tally))

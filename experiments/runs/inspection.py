"""What a run folder tells: how far the run is, what became of each request, what is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.runs.folder import RUN, RunFolder
from experiments.runs.risks import residual_risks
from experiments.runs.status import FINISHED, Status
from unlearning.errors import ConfigError, FedUnlearnError, HistoryError, LedgerError
from unlearning.records.states import FINAL

if TYPE_CHECKING:
    from unlearning.records.event import Event
    from unlearning.records.history import History
    from unlearning.records.ledger import Ledger

__all__ = [
    "ALARMS",
    "Overview",
    "RequestState",
    "Verdict",
    "leftovers",
    "overview",
    "sweep",
    "verify",
]

_OVERDUE, _BROKEN = "OVERDUE", "LEDGER NOT TO BE TRUSTED"
_NOT_MEASURED = "not measured"  # of fates, whose room is not needed before there are results
_TOLD_WHY = ("held", "deletion-pending", "failed", "refused", "withdrawn")
ALARMS = (_OVERDUE, _BROKEN)  # how the lines begin that must not be overlooked


@dataclass(frozen=True)
class RequestState:
    """What became of one request.

    Parameters
    ----------
    id, text : str
        The request, and what it asks in words.
    at_round : int or None
        When it is to be served.
    states : dict of str to str
        Last event by branch; a comparison has a branch for each strategy and seed, a run has one
        with an empty name.
    reasons : dict of str to str
        Why it is held, by branch.
    risks : tuple of str
        What serving it left open: owners that did not confirm the deletion, what the guard saw.
    verdicts : dict of str to str
        Beside the state: what the measures say by strategy, once there are results. Fulfilled is
        not yet forgotten.
    due : str
        By when it must be fulfilled, ISO 8601.
    is_overdue : bool
        Whether it is open after that.
    """

    id: str
    text: str
    at_round: int | None
    states: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)
    risks: tuple[str, ...] = ()
    verdicts: dict[str, str] = field(default_factory=dict)
    due: str = ""
    is_overdue: bool = False

    def line(self, run: str = "RUN") -> str:
        """Return the request on one line, with what to do about it in this run folder."""
        fates = [f"{branch}: {event}" if branch else event for branch, event in self.states.items()]
        when = f" after round {self.at_round}" if self.at_round else ""
        said = f"request {self.id}: forget {self.text}{when}: {', '.join(fates)}"
        if self.is_overdue:
            said = f"{_OVERDUE} since {self.due[:10]}: {said}"
        elif self.due and self._is_open:
            said += f"; due {self.due[:10]}"
        held = {self.reasons[branch] for branch, event in self.states.items() if event == "held"}
        said += "".join(f"; {why}" for why in sorted({*self.reasons.values()} - held))
        for why in sorted(held):
            said += (
                f"; held because {why}; the model before stays in force and the data stay out of "
                f"training; let it go with `fedunlearn release {run} {self.id}`"
            )
        if self.states.get("") == "failed":
            said += (
                f"; the data stay out of training; `fedunlearn resume {run}` serves it again, with "
                f"another strategy or options in {run}/config.toml if --accept-change stands there"
            )
        if self.verdicts:
            said += f"; {self._measured}"
        return "; but ".join([said, *self.risks])

    @property
    def _is_open(self) -> bool:
        return any(event not in FINAL for event in self.states.values())

    @property
    def verdict(self) -> str:
        """The verdicts in words: ``fed-eraser forgotten, fine-tune not forgotten``."""
        return ", ".join(f"{name} {fate}" for name, fate in self.verdicts.items())

    @property
    def _measured(self) -> str:
        if set(self.verdicts.values()) == {_NOT_MEASURED}:
            return "not compared with a retrained model"
        return f"measured: {self.verdict}"

    @property
    def remark(self) -> str:
        """What must be said of it when the run ends: verdicts, what is not served, what is open."""
        open_ = [f"{b}: {e}" if b else e for b, e in self.states.items() if e != "fulfilled"]
        why = self.reasons[""] if self.states.get("") == "failed" and "" in self.reasons else ""
        parts = [self.verdict, ", ".join(open_), why, *self.risks]
        said = "; ".join(filter(None, parts)) or "fulfilled"
        return f"request {self.id}: forget {self.text}: {said}"


@dataclass(frozen=True)
class Overview:
    """How far a run is; ``status`` is None before it began, ``broken`` says what its ledger is."""

    run: str
    status: Status | None
    requests: tuple[RequestState, ...]
    broken: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "run": self.run,
            "status": None if self.status is None else asdict(self.status),
            "requests": [asdict(request) for request in self.requests],
            "broken": self.broken,
        }

    def lines(self) -> list[str]:
        """Return the same in words."""
        found = self.status
        broken = [f"{_BROKEN}: {self.broken}"] if self.broken else []
        if found is None:
            return [f"{self.run}: not begun", *broken]
        head = f"{self.run}: {found.state}"
        if found.is_running:
            head += f" (process {found.pid} on {found.host})"
        if found.error:
            head += f": {found.error}"
        parts = [
            f"{found.strategy}, {found.phase}, round {found.server_round}"
            if found.strategy
            else "",
            f"{found.rounds_done} of {found.rounds_total} rounds done"
            if found.rounds_total
            else "",
            "" if found.accuracy is None else f"accuracy {found.accuracy:.3f}",
            f"updated {found.updated}",
        ]
        return [
            head,
            "; ".join(part for part in parts if part),
            *broken,
            # What is overdue comes first.
            *(one.line(self.run) for one in sorted(self.requests, key=lambda r: not r.is_overdue)),
        ]

    @property
    def is_overdue(self) -> bool:
        """Whether a request is open after its due date."""
        return any(request.is_overdue for request in self.requests)


def overview(folder: RunFolder) -> Overview:
    """Return how far a run is and what became of each request; nothing is changed.

    Raises
    ------
    ConfigError, LedgerError
        If the status or the ledger cannot be read.
    """
    states: list[RequestState] = []
    verdicts, broken = _verdicts(folder), ""
    if not folder.ledger.is_file() and folder.ledger.with_suffix(".head").is_file():
        raise LedgerError(f"{folder.ledger} is missing; restore it from a backup")
    if folder.ledger.is_file():
        with folder.open_ledger(readonly=True) as ledger:
            broken = _broken(ledger)
            kind = folder.read_federation().kind if folder.federation.is_file() else RUN
            overdue = {one.id for one in ledger.overdue()} if kind == RUN else set()
            for request in ledger.requests():
                events = [e for e in ledger.events(request.id) if e.event != "extended"]
                fates = {event.branch: event.event for event in events}  # more time is no fate
                if len(fates) > 1 and fates.get("") == "received":
                    del fates[""]  # received once for all branches; the branches tell more
                text = request.describe()
                why = {
                    event.branch: str(event.facts["reason"])
                    for event in events
                    if event.event in _TOLD_WHY
                    and "reason" in event.facts
                    and fates.get(event.branch) == event.event
                }
                risks = _risks(events)
                said = {name: fate for (id_, name), fate in verdicts.items() if id_ == request.id}
                is_own = set(fates) == {""}  # in a comparison nobody waits for it
                due = ledger.due_date(request.id).isoformat(timespec="seconds") if is_own else ""
                late = is_own and request.id in overdue
                states.append(
                    RequestState(
                        request.id,
                        text,
                        request.at_round,
                        fates,
                        why,
                        risks,
                        said,
                        due,
                        late,
                    )
                )
    return Overview(str(folder.path), folder.read_status(), tuple(states), broken)


def _broken(ledger: Ledger, head: str | None = None) -> str:
    """Return why a ledger cannot be trusted, in words; nothing: it is sound."""
    try:
        ledger.verify(head)
        return ledger.anchored().fault
    except FedUnlearnError as error:
        return str(error)


def _risks(events: Iterable[Event]) -> tuple[str, ...]:
    """Return what a request leaves open, with the strategies of which alone it is said.

    Controls are no answers, so what they leave open is not said.
    """
    from experiments.runs.results import CONTROLS

    found: dict[str, set[str]] = {}
    names: set[str] = set()
    for event in events:
        name = event.branch.rpartition("/")[0] or event.branch
        if event.event in ("fulfilled", "deletion-pending") and name not in CONTROLS:
            names.add(name)
            for risk in residual_risks(event.facts):
                found.setdefault(risk, set()).add(name)
    return tuple(
        risk if said == names else f"{', '.join(sorted(said))}: {risk}"
        for risk, said in found.items()
    )


def _verdicts(folder: RunFolder) -> dict[tuple[str, str], str]:
    """Return what the measures say by request and strategy; empty before there are results."""
    if not folder.results.is_file():
        return {}
    from experiments.runs.details import read_details
    from experiments.runs.fates import fates
    from experiments.runs.results import read_results

    _, rows = read_results(folder.path)
    found = fates(read_details(folder.path), rows)
    return {key: str(one.fate) for key, one in found.items()}


@dataclass(frozen=True)
class Verdict:
    """What was checked, and every problem found, in words."""

    checked: tuple[str, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {"sound": not self.problems, **asdict(self)}


def verify(folder: RunFolder) -> Verdict:
    """Check the chain of the ledger, every stored file of the history, and the final model.

    Nothing is written, locked or removed: the run may be at work.
    """
    checked: list[str] = []
    problems: list[str] = []
    for check in (_check_ledger, _check_histories, _check_model):
        said, wrong = check(folder)
        checked += said
        problems += wrong
    return Verdict(tuple(checked), tuple(problems))


Findings = tuple[list[str], list[str]]


def _check_ledger(folder: RunFolder) -> Findings:
    from experiments.runs.details import read_details

    if not folder.ledger.is_file():
        return [], [f"{folder.ledger} is missing; restore it from a backup"]
    try:
        with folder.open_ledger(readonly=True) as ledger:
            ledger.verify(read_details(folder.path).ledger_head or None)
            events, cover = len(ledger.events()), ledger.anchored()
    except FedUnlearnError as error:
        return ["ledger: broken"], [str(error)]
    said = [f"ledger: the chain of {events} event(s) is sound", cover.line]
    return [*filter(None, said)], [*filter(None, [cover.fault])]


def _check_histories(folder: RunFolder) -> Findings:
    from unlearning.records.history import History
    from unlearning.records.store import INDEX

    said: list[str] = []
    problems: list[str] = []
    status = folder.read_status()
    is_running = status is not None and status.is_running
    learned = _learned(folder)
    found = {index.parent for index in folder.histories.rglob(INDEX)}
    for root in sorted(found | set(_folders(folder)) | set(_expected(folder, status))):
        name = root.relative_to(folder.path)
        try:
            with History.open(root, readonly=True, key=folder.key) as history:
                # The unfinished round of a run that is at work is no fault.
                wrong = history.verify(leftovers=not is_running)
                rounds, size, sealed = len(history.rounds), history.nbytes, history.sealed
                if not is_running:
                    wrong += _lost(history, root, learned)
        except (HistoryError, OSError, sqlite3.Error, TypeError, ValueError) as error:
            said.append(f"{name}: cannot be read")
            problems.append(str(error))
            continue
        problems += wrong
        verdict = f"{len(wrong)} problem(s)" if wrong else "every stored file is sound"
        said.append(f"{name}: {rounds} round(s), {size} bytes, {verdict}; {sealed}")
    return said, problems


def _folders(folder: RunFolder) -> list[Path]:
    """Return the folders of histories, with an index or without: then nothing can be trusted."""
    return [path for path in folder.histories.glob("seed-*") if path.is_dir()]


def _expected(folder: RunFolder, status: Status | None) -> list[Path]:
    """Return the histories that a finished run has kept."""
    if status is None or status.state != FINISHED or not folder.federation.is_file():
        return []
    start = folder.read_config().get("start")
    if isinstance(start, dict) and start.get("model"):
        return []  # a model trained elsewhere has none
    return [folder.history(seed) for seed in folder.read_federation().seeds]


def _learned(folder: RunFolder) -> int:
    """Return how many rounds the results say were learned; 0: nobody knows."""
    from experiments.runs.details import read_details

    try:
        return int(read_details(folder.path).rounds.get("learned", 0))
    except FedUnlearnError:
        return 0  # what is wrong with that file is told elsewhere


def _lost(history: History, root: Path, learned: int) -> list[str]:
    """Return what the index itself must name and does not, in words."""
    again = "restore the folder from a backup"
    if learned and not history.rounds:
        return [f"{root} names no round, but {learned} were learned; {again}"]
    if history.rounds and not history.store.select("kind = 'initial'"):
        return [
            f"{root} names {len(history.rounds)} round(s) but no model they began with; {again}"
        ]
    return []


def _check_model(folder: RunFolder) -> Findings:
    """Compare the saved model with the digest among the results."""
    from experiments.runs.results import read_results
    from unlearning.arrays import digest
    from unlearning.packing import unpack_file

    if not folder.results.is_file():
        return [], []
    if not folder.model.is_file():
        if not folder.federation.is_file() or folder.read_federation().kind != RUN:  # keeps none
            return [], []
        return ["model: missing"], [f"{folder.model} is missing; restore it from a backup"]

    try:
        _, rows = read_results(folder.path)
        found = digest(unpack_file(folder.model))
    except (FedUnlearnError, OSError) as error:
        return ["model: cannot be checked"], [f"{folder.model}: {error}"]
    if any((row.model_digest or "").endswith(found) for row in rows):
        return ["model: it is the one the results speak of"], []
    return ["model: not the one the results speak of"], [
        f"{folder.model} has sha256 {found}, which no row of {folder.results} names; "
        "restore it from a backup or run the config again"
    ]


def leftovers(folder: RunFolder) -> list[Path]:
    """Return what lies in the histories of a run without being named by their index.

    Raises
    ------
    HistoryError
        If an index is missing, or names nothing at all: the files are all that is left then.
    """
    from unlearning.records.history import History

    found: list[Path] = []
    for root in sorted(_folders(folder)):
        with History.open(root, readonly=True) as history:
            orphans = [root / path for path in history.store.orphans()]
            if orphans and not history.store.select():
                raise HistoryError(
                    f"the index in {root} names nothing and {len(orphans)} file(s) lie beside it; "
                    "restore the index from a backup: sweeping would delete all that is left"
                )
            found += orphans
    return found


def sweep(folder: RunFolder) -> list[Path]:
    """Remove what :func:`leftovers` finds, and return it.

    Raises
    ------
    HistoryError
        As there; if something cannot be removed.
    ConfigError
        If the run is at work: what looks left over may be its round in the making.
    """
    from unlearning.records.history import History

    status = folder.read_status()
    if status is not None and status.is_running:
        raise ConfigError(f"{folder.path} is at work in process {status.pid}; sweep when it ends")
    found = leftovers(folder)
    for root in sorted(_folders(folder)):
        with History.open(root, key=folder.key) as history:
            history.store.sweep()
    return found

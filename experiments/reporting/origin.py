"""Where a report's numbers come from: the ledger, the configuration, the digests of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from experiments.reporting.run import number
from experiments.runs.folder import RunFolder
from experiments.runs.risks import residual_risks
from unlearning.errors import FedUnlearnError
from unlearning.records.ledger import Event, Ledger
from unlearning.request import Request

__all__ = ["Entry", "digests", "events", "without_none"]

_JUDGED = ("fulfilled", "held")  # events that say what the guard saw
_FILES = ("config.toml", "results.json", "results.csv", "details.json", "audit.json")


@dataclass(frozen=True)
class Entry:
    """One event of the ledger, its facts as pairs of a name and a short text.

    ``risks`` says in words what a served or held request leaves open.
    """

    seq: int
    utc: str
    request: str
    branch: str
    event: str
    facts: tuple[tuple[str, str], ...]
    hash: str
    risks: tuple[str, ...] = ()


def events(path: Path, head: str) -> tuple[list[Entry], str]:
    """Return the events of the ledger, and what is wrong with it (empty: its chain is sound)."""
    if not path.exists():
        return [], "The run folder holds no ledger: what became of the requests cannot be shown."
    try:
        with _opened(path) as ledger:
            ledger.verify(head or None)
            lost = ledger.anchored().fault
            found = [
                Entry(
                    event.seq,
                    event.utc,
                    event.request_id,
                    event.branch,
                    event.event,
                    tuple(_facts(event)),
                    event.hash,
                    tuple(residual_risks(event.facts)) if event.event in _JUDGED else (),
                )
                for event in ledger.events()
            ]
    except FedUnlearnError as error:
        return [], f"The ledger cannot be trusted: {error}."
    return found, f"The ledger cannot be trusted: {lost}." if lost else ""


def _opened(path: Path) -> Ledger:
    """Return the ledger, only to be read: with its anchor where the config names one."""
    folder = RunFolder(path.parent)
    if folder.config.is_file() and folder.ledger == path:
        return folder.open_ledger(readonly=True)
    return Ledger(path, readonly=True)


def _facts(event: Event) -> list[tuple[str, str]]:
    if event.event != "received":
        return _flat(event.facts)
    request = Request.from_json(event.facts)
    when = "as soon as possible" if request.at_round is None else f"after round {request.at_round}"
    return [("forget", request.describe()), ("serve", when), ("asked by", request.asked_by)]


def _flat(facts: Mapping[str, object], before: str = "") -> list[tuple[str, str]]:
    """Return nested facts as pairs of a dotted name and a short text."""
    pairs: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            pairs.extend(_flat(value, f"{before}{name}."))
        elif isinstance(value, float):
            pairs.append((f"{before}{name}", number(value)))
        elif value is not None:
            pairs.append((f"{before}{name}", str(value)))
    return pairs


def digests(run_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that a report is made of."""
    there = [run_dir / name for name in _FILES if (run_dir / name).is_file()]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in there}


def without_none(value: object) -> object:
    """Return a configuration without what was not set; TOML knows no null."""
    if isinstance(value, Mapping):
        return {str(k): without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value if item is not None]
    return value

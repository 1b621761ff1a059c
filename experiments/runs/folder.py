"""The folder a run leaves behind: where each file lies, and whose folder it is."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from experiments.runs import status
from experiments.runs.progress import Observer
from experiments.runs.status import Status
from unlearning.columns import Columns
from unlearning.errors import ConfigError
from unlearning.records.files import room, write_atomically
from unlearning.records.ledger import DUE_DAYS, EXTENSION_DAYS, Ledger

__all__ = ["FederationFacts", "RunFolder", "default_out", "differences"]

RUN, COMPARE = "run", "compare"
_SHOWN_DIFFERENCES = 3
_SHOWN_CHARACTERS = 60


def default_out(config: Path, now: datetime | None = None) -> Path:
    """Return ``runs/<config name>-<UTC time>``, below the current directory."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return Path("runs") / f"{config.stem}-{moment:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class FederationFacts:
    """Who takes part and what can be forgotten: content of ``federation.json``.

    Parameters
    ----------
    clients : mapping of int to int
        Client id to the number of its training examples.
    classes : tuple of int
        Labels.
    tasks : tuple of str
        Tasks of a multi-task model.
    kind : str
        ``"run"`` or ``"compare"``.
    seeds : tuple of int
        Seeds of the run.
    strategy : str
        Alias of the strategy of a run; empty in a comparison.
    scopes : tuple of str
        What that strategy serves; empty: not known here.
    holders : mapping of str to tuple of int
        Task to the clients that hold examples of it; empty: not known here.
    commitments : mapping of int to str
        Client id to the root of its samples (hex); empty: nobody committed to anything.
    features : int
        How many values an example has; 0: none can be named.
    shape : tuple of int
        Of an example; (): not known here.
    columns : tuple of str
        What the columns of a table are called; (): they have no names.
    refusals : mapping of str to str
        What the strategy refuses though it serves the scope, with the reason, by
        :func:`unlearning.request.kinds`.
    """

    clients: Mapping[int, int]
    classes: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    kind: str = RUN
    seeds: tuple[int, ...] = (0,)
    strategy: str = ""
    scopes: tuple[str, ...] = ()
    holders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    commitments: Mapping[int, str] = field(default_factory=dict)
    features: int = 0
    shape: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> Columns:
        """What the values of an example are called."""
        if not self.features:
            return Columns(whole=True)
        return Columns(self.shape or (self.features,), self.columns)

    def to_json(self) -> dict[str, object]:
        """Return plain values; keys of objects are texts in JSON."""
        by_client = {
            key: {str(k): value for k, value in sorted(getattr(self, key).items())}
            for key in ("clients", "commitments")
        }
        return {**asdict(self), **by_client}

    @staticmethod
    def from_json(value: Mapping[str, object]) -> FederationFacts:
        """Return the federation that :meth:`to_json` wrote; ``classes`` may be their number.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not one.
        """

        def items(key: str) -> list[object]:
            found = value.get(key, [])
            if not isinstance(found, (list, tuple)):
                raise TypeError(f"{key} is {found!r}, expected a list")
            return list(found)

        clients = value["clients"]
        if not isinstance(clients, Mapping):
            raise TypeError(f"clients is {clients!r}, expected an object")
        holders = value.get("holders", {})
        if not isinstance(holders, Mapping):
            raise TypeError(f"holders is {holders!r}, expected an object")
        classes = value.get("classes", [])
        roots = value.get("commitments", {})
        if not isinstance(roots, Mapping):
            raise TypeError(f"commitments is {roots!r}, expected an object")
        refusals = value.get("refusals", {})
        if not isinstance(refusals, Mapping):
            raise TypeError(f"refusals is {refusals!r}, expected an object")
        labels = range(classes) if isinstance(classes, int) else items("classes")
        return FederationFacts(
            clients={int(str(k)): int(str(n)) for k, n in clients.items()},
            classes=tuple(int(str(label)) for label in labels),
            tasks=tuple(str(task) for task in items("tasks")),
            holders={str(task): tuple(int(k) for k in ids) for task, ids in holders.items()},
            kind=str(value.get("kind", RUN)),
            features=int(str(value.get("features", 0))),
            shape=tuple(int(str(size)) for size in items("shape")),
            columns=tuple(str(name) for name in items("columns")),
            seeds=tuple(int(str(seed)) for seed in items("seeds")),
            strategy=str(value.get("strategy", "")),
            scopes=tuple(str(scope) for scope in items("scopes")),
            refusals={str(kind): str(why) for kind, why in refusals.items()},
            commitments={int(str(k)): str(root) for k, root in roots.items()},
        )


class RunFolder:
    """A run folder and the places of its files.

    Parameters
    ----------
    path : Path
        The folder, whether it exists or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.federation = self.path / "federation.json"
        self.records = self.path / "records.json"
        self.status = self.path / "status.json"
        self.engine = self.path / "engine.json"
        self.ledger = self.path / "ledger.sqlite"
        self.key = self.path / "ledger.key"
        self.histories = self.path / "history"
        self.homes = self.path / "clients"
        self.checkpoints = self.path / "checkpoint"
        self.results = self.path / "results.json"
        self.results_csv = self.path / "results.csv"
        self.details = self.path / "details.json"
        self.timeline = self.path / "timeline.svg"
        self.report = self.path / "report.html"
        self.deployment = self.path / "deployment.json"  # names the federation, where it is of one
        self.model = self.path / "model.safetensors"

    def history(self, seed: int) -> Path:
        """Return the folder of what training recorded with ``seed``."""
        return self.histories / f"seed-{seed}"

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the run folder at ``path``.

        Raises
        ------
        ConfigError
            If there is none.
        """
        folder = cls(path)
        if not folder.config.is_file():
            missing = "is no run folder (config.toml is missing)"
            reason = missing if folder.path.exists() else "does not exist"
            raise ConfigError(f"{path} {reason}; `fedunlearn run CONFIG --out {path}` makes one")
        return folder

    @classmethod
    def claim(cls, path: Path, config: Mapping[str, object], *, again: bool = False) -> RunFolder:
        """Make ``path`` the folder of a run of ``config``, which is written to ``config.toml``.

        Of two processes that claim the same path one succeeds.

        Parameters
        ----------
        path : Path
            A folder that does not exist yet, or an empty one.
        config : mapping
            The resolved config, plain nested values; entries that are None are left out.
        again : bool
            Whether to take a folder of the same config, which nobody is at work in.

        Raises
        ------
        ConfigError
            If the folder holds a run of another config (the difference is named), this run
            already, or anything else; if it cannot be made.
        """
        import tomli_w

        folder = cls(path)
        text = tomli_w.dumps(_without_none(config))
        if folder.config.is_file():
            wanted, status = tomllib.loads(text), folder.read_status()
            is_free = status is None or not status.is_running
            if again and is_free and not differences(folder.read_config(), wanted):
                return folder
            raise ConfigError(folder._taken(wanted))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            if any(folder.path.iterdir()):
                raise ConfigError(
                    f"{path} is not empty and is no run folder; give another folder with --out"
                )
            # Exclusive creation decides between two processes; only then the content is written.
            os.close(os.open(folder.config, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            write_atomically(folder.config, text.encode())
        except FileExistsError as error:
            raise ConfigError(
                f"{error.filename} exists already; give another folder with --out"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be made a run folder: {error.strerror}{room(path)}; "
                "give another folder with --out"
            ) from error
        return folder

    def read_config(self) -> dict[str, object]:
        """Return the resolved config as plain values.

        Raises
        ------
        ConfigError
            If the file is damaged.
        """
        try:
            return tomllib.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.config} cannot be read ({error})") from error

    def open_ledger(self, *, readonly: bool = False) -> Ledger:
        """Return the ledger, as the config has it: its anchor, and when requests are due.

        Raises
        ------
        LedgerError
            If it cannot be opened.
        """
        config = self.read_config()
        anchor, days = _table(config, "ledger").get("anchor"), _table(config, "promise")
        return Ledger(
            self.ledger,
            anchor=None if anchor is None else Path(str(anchor)).expanduser(),
            due_days=float(str(days.get("due_days", DUE_DAYS))),
            extension_days=float(str(days.get("extension_days", EXTENSION_DAYS))),
            readonly=readonly,
        )

    def write_federation(self, federation: FederationFacts) -> None:
        """Write who takes part; from then on requests can be checked."""
        write_atomically(self.federation, json.dumps(federation.to_json(), indent=1).encode())

    def write_engine(self, told: Mapping[str, object]) -> None:
        """Write how the clients were trained in this process: one by one, or side by side."""
        write_atomically(self.engine, json.dumps(dict(told), indent=1).encode())

    def write_commitments(self, roots: Mapping[int, str]) -> None:
        """Write what the clients committed themselves to, once: a later word does not count."""
        found = self.read_federation()
        if not found.commitments:
            self.write_federation(replace(found, commitments=dict(roots)))

    def read_federation(self) -> FederationFacts:
        """Return who takes part.

        Raises
        ------
        ConfigError
            If the run has not got so far, or the file is damaged.
        """
        try:
            return FederationFacts.from_json(
                json.loads(self.federation.read_text(encoding="utf-8"))
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.path} does not know its clients yet; "
                f"try again when `fedunlearn status {self.path}` shows a round"
            ) from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.federation} is damaged ({error})") from error

    def read_status(self) -> Status | None:
        """Return how far the run is, None before it began: :func:`experiments.runs.status.read`."""
        return status.read(self.status)

    def tracked(self, observer: Observer) -> AbstractContextManager[Observer]:
        """Keep the status up to date in a block: :func:`experiments.runs.status.tracked`."""
        return status.tracked(self.status, observer)

    def _taken(self, wanted: Mapping[str, object]) -> str:
        """Return in words why a folder that holds a run cannot be claimed."""
        if odd := differences(self.read_config(), wanted):
            shown = "; ".join(odd[:_SHOWN_DIFFERENCES])
            more = len(odd) - _SHOWN_DIFFERENCES
            rest = f"; and {more} more" if more > 0 else ""
            return (
                f"{self.path} holds a run of another config ({shown}{rest}); "
                "give another folder with --out"
            )
        found = self.read_status()
        if found is not None and found.is_running:
            return f"{self.path} is in use by process {found.pid}; give another folder with --out"
        is_over = found is not None and found.state == status.FINISHED
        go_on = "" if is_over else f"`fedunlearn resume {self.path}` goes on with it, or "
        return (
            f"{self.path} holds this run already ({found.state if found else 'not begun'}); "
            f"{go_on}give another folder with --out"
        )


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return the settings in which two configs differ, in words; empty if there is none."""
    old, new = _flat(there), _flat(here)

    def say(values: Mapping[str, object], key: str) -> str:
        text = repr(values[key]) if key in values else "nothing"
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."

    keys = [
        key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]
    ]
    return [f"{key} is {say(old, key)} there, {say(new, key)} here" for key in keys]


def _table(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = config.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _without_none(value: Mapping[str, object]) -> dict[str, object]:
    """Return a copy without the entries that TOML cannot hold."""

    def plain(item: object) -> object:
        if isinstance(item, Mapping):
            return _without_none(item)
        return [plain(part) for part in item] if isinstance(item, (list, tuple)) else item

    return {key: plain(item) for key, item in value.items() if item is not None}

"""A site's folder: its key, what the server invited it to, its home, and what it asks for."""

from __future__ import annotations

import json
import shlex
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from experiments.data.sites import EPOCH, Pin, SiteData, pinned, read_site, split_rows
from experiments.deployment import keys, processes, wishes
from experiments.deployment.warm import check_flower
from experiments.deployment.warm import command as warm_command
from unlearning.columns import Columns, Named
from unlearning.errors import ConfigError, RequestError
from unlearning.records.files import write_atomically
from unlearning.records.memory import ClientMemory
from unlearning.request import Omission

__all__ = ["Kit"]

_TURNED_AWAY_S = 90.0  # how long a node that was killed is turned away at most, and some more
_PAUSE_S = 5.0
_LET_IN = "SuperNode ID"  # what Flower's log says then
_SETTLED_S = 60.0  # a node that still runs then was let in, whatever its log says


@dataclass(frozen=True)
class Kit:
    """What one site keeps.

    Parameters
    ----------
    folder : Path
        Absolute.
    settings : dict
        Content of ``site.toml``: name and, once invited, federation, address, client, data, label.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def init(cls, folder: Path, name: str) -> tuple[Kit, Path]:
        """Make a site's folder with a new key; return it and the public half to hand over.

        Raises
        ------
        ConfigError
            If there is one already.
        """
        path = folder.expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        public = keys.make_site_key(path / "site.key", name)
        (path / "home").mkdir(exist_ok=True)
        made = cls(path, {"name": name})
        made._write()
        return made, public

    @classmethod
    def open(cls, folder: Path) -> Kit:
        """Return the site of a folder.

        Raises
        ------
        ConfigError
            If there is none.
        """
        path = folder.expanduser().absolute()
        try:
            return cls(path, tomllib.loads((path / "site.toml").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} is no site ({type(error).__name__}); make one with `fedunlearn site init`"
            ) from error

    @property
    def home(self) -> Path:
        """What the site remembers; no server chooses it."""
        return self.folder / "home"

    @property
    def pid_file(self) -> Path:
        """Names the SuperNode's process."""
        return self.folder / "supernode.pid"

    @property
    def pin(self) -> Pin | None:
        """What it joined with."""
        return pinned(self.home)

    @property
    def client(self) -> int:
        """Its client id.

        Raises
        ------
        ConfigError
            If it was never invited.
        """
        if "client" not in self.settings:
            raise ConfigError(
                f"site {self.settings['name']!r} has no invitation; give the file that "
                "`fedunlearn federation add` wrote with --invitation"
            )
        return int(self.settings["client"])

    def accept(self, invitation: Path) -> Kit:
        """Take an invitation.

        Raises
        ------
        ConfigError
            If it is none, or for another federation than the one this key takes part in.
        """
        try:
            found = tomllib.loads(invitation.read_text(encoding="utf-8"))
            known = {key: found[key] for key in ("federation", "address", "client")}
            authority = str(found["ca"])
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{invitation} is no invitation ({type(error).__name__})") from error
        if self.settings.get("federation") not in (None, known["federation"]):
            raise ConfigError(
                f"this site takes part in {self.settings['federation']}; for another federation "
                "make another folder with `fedunlearn site init`"
            )
        write_atomically(self.folder / "ca.crt", authority.encode())
        return self._changed(**known)

    def hold(self, data: str, label: str | None = None) -> Kit:
        """Name the site's data, after looking at them.

        Raises
        ------
        ConfigError
            If they cannot be read, or are not those it joined with.
        """
        is_place = Path(data).expanduser().exists() or ":" not in data
        source = str(Path(data).expanduser().absolute()) if is_place else data
        self._joined_with(source, label)
        return self._changed(data=source, **({} if label is None else {"label": label}))

    def replace_data(self, data: str, label: str | None = None) -> tuple[Kit, int]:
        """Begin a new epoch with other data; return the site and the epoch's number.

        Samples forgotten before are named by rows of the old data: that they are not in the new
        ones is the site's to see to.

        Raises
        ------
        ConfigError
            If it has left, runs, or the new data cannot be read.
        """
        if processes.is_running(self.pid_file):
            raise ConfigError("the site takes part right now; stop it first")
        known = self.pin
        epoch = 1
        if known is not None:
            buried = self._memory(known.epoch).tombstones
            if buried.everything:
                raise ConfigError(
                    "this site was forgotten and its key is used up; make a new folder with "
                    "`fedunlearn site init` to join as a new client"
                )
            epoch = known.epoch + 1
            again = Omission(classes=buried.classes, tasks=buried.tasks, features=buried.features)
            self._memory(epoch).bury(again)  # these are known anew
            note = self.home / "joined.json"
            note.rename(self.home / f"joined-epoch-{known.epoch}.json")
            write_atomically(self.home / EPOCH, json.dumps(epoch).encode())
        return self.hold(data, label), epoch

    def command(self, port: int, *, warm: bool = False) -> list[str]:
        """Return Flower's command that takes part; ``warm``: ours around it, faster per message.

        Raises
        ------
        ConfigError
            If data or invitation are missing, or this Flower was not tried warm.
        """
        if not self.settings.get("data"):
            raise ConfigError("this site has no data yet; name them with --data")
        own = {
            "partition-id": self.client,
            "data": self.settings["data"],
            "home": str(self.home),
            **({"label": self.settings["label"]} if self.settings.get("label") else {}),
        }
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in own.items())
        if warm:
            check_flower()
        return [
            *(warm_command() if warm else [processes.program("flower-supernode")]),
            *("--superlink", str(self.settings["address"])),
            *("--root-certificates", str(self.folder / "ca.crt")),
            *("--auth-supernode-private-key", str(self.folder / "site.key")),
            *("--port", str(port)),
            *("--node-config", config),
        ]

    def start(
        self, show: Callable[[str], None], say: Callable[[str], None], *, warm: bool = False
    ) -> int:
        """Start the SuperNode; where it is turned away, try again and say so.

        Raises
        ------
        ConfigError
            If it is not let in.
        """
        log, begun = self.folder / "supernode.log", time.monotonic()
        while True:
            command = self.command(processes.free_port(), warm=warm)
            show(shlex.join(command))
            env = processes.environment(self.folder / "flwr")
            known = log.stat().st_size if log.exists() else 0
            pid = processes.spawn(command, self.pid_file, log, env, self.folder)
            until = time.monotonic() + _SETTLED_S
            while processes.is_running(self.pid_file) and time.monotonic() < until:
                if _LET_IN in _since(log, known):
                    return pid
                time.sleep(0.2)
            if processes.is_running(self.pid_file):
                return pid
            processes.stop(self.pid_file)
            said = _reason(_since(log, known))
            if time.monotonic() - begun > _TURNED_AWAY_S:
                raise ConfigError(f"the server does not let this site in ({said}); see {log}")
            say(f"turned away ({said}); a node that was killed is for up to a minute: trying again")
            time.sleep(_PAUSE_S)

    def stop(self, *, at_once: bool = False) -> bool:
        """Stop the SuperNode; return whether there was one."""
        return processes.stop(self.pid_file, at_once=at_once)

    def ask(
        self,
        samples: Sequence[int] | None,
        rows: Sequence[int] | None,
        out: Path | None,
        records: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """Sign a wish and leave it in the outbox, or write it to a file to be brought by hand.

        Parameters
        ----------
        samples : sequence of int or None
            Positions in the training set.
        rows : sequence of int or None
            Rows of the site's own file instead; none of these: to leave.
        out : Path or None
            Default: the outbox, from which the next reply takes it.
        records : sequence of str or None
            Rows by their own ids; the server is told positions alone.
        features : sequence of str or None
            Values that all rows of this site have, by the names of its own columns, by positions,
            regions or masks; the server is told positions, and the words.

        Raises
        ------
        ConfigError
            If a row or a record is held out, or unknown.
        RequestError
            If a feature is unknown.
        """
        chosen = samples
        if records is not None:
            rows = self._rows(records)
        if rows is not None:
            chosen = self._positions(rows)
        wish = wishes.compose(
            str(self.settings.get("federation", "")),
            self.client,
            self.folder / "site.key",
            chosen,
            features=None if features is None else self._features(features),
        )
        path = out or self.home / "outbox" / f"{wish['body']['nonce']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(wish, indent=1).encode())
        return path, wish

    def _held(self) -> SiteData:
        """Return the site's data, those it joined with."""
        source = str(self.settings.get("data", ""))
        if not source:
            raise ConfigError("this site has no data yet; name them with `site start --data`")
        return self._joined_with(source, self.settings.get("label"))

    def _joined_with(self, source: str, label: str | None) -> SiteData:
        """Return the data of a place; ConfigError if they are not those it joined with."""
        known = self.pin
        found = read_site(source, _shape(known, source), label=label)
        if known is not None and known.digest != found.digest:
            raise ConfigError(
                f"{source} is not what this site joined with (digest {found.digest[:12]}, then "
                f"{known.digest[:12]}); put it back, or begin a new epoch with "
                "`fedunlearn site update-data`"
            )
        return found

    def _features(self, words: Sequence[str]) -> Named:
        """Return the positions that words mean in this site's own examples."""
        found = self._held()
        named = Columns(found.x.shape[1:], found.columns).find(words)
        if (last := max(named.positions)) >= (size := found.x[0].size):
            raise RequestError(f"unknown feature {last} (known: 0 to {size - 1})")
        return named

    def _rows(self, records: Sequence[str]) -> list[int]:
        """Return the rows that bear these ids; one id may be that of several."""
        found = self._held()
        if found.ids is None:
            raise ConfigError(
                f"{self.settings['data']} has no ids: give it an array or a column id, or ask with "
                "--rows"
            )
        rows: list[int] = []
        for record in records:
            if not len(places := np.flatnonzero(found.ids == record)):
                raise ConfigError(
                    f"unknown record {record!r}: no row of {self.settings['data']} has it"
                )
            rows += places.tolist()
        return self._trained(rows, f"record {', '.join(records)}")

    def _trained(self, rows: list[int], what: str) -> list[int]:
        """Return those of ``rows`` that are trained on; ConfigError if none is."""
        known = self.pin
        if known is None:
            return rows
        train, _ = split_rows(known.rows, known.seed, self.client, known.held_out)
        kept = [row for row in rows if row in train]
        if not kept:
            raise ConfigError(f"{what} is held out: it was never trained on")
        return kept

    def _positions(self, rows: Sequence[int]) -> list[int]:
        known = self.pin
        if known is None:
            raise ConfigError("this site has never taken part, so nothing of it was learned")
        train, _ = split_rows(known.rows, known.seed, self.client, known.held_out)
        place = {int(row): position for position, row in enumerate(train)}
        for row in rows:
            if not 0 <= row < known.rows:
                raise ConfigError(f"row {row} does not exist; rows go from 0 to {known.rows - 1}")
            if row not in place:
                raise ConfigError(f"row {row} is held out: it was never trained on")
        return [place[row] for row in rows]

    def letters(self, kind: str) -> list[dict[str, Any]]:
        """Return what lies in ``outbox``, ``sent`` or ``verdicts``."""
        found = sorted((self.home / kind).glob("*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in found]

    def _memory(self, epoch: int) -> ClientMemory:
        return ClientMemory(self.home / f"epoch-{epoch}", self.client)

    @property
    def tombstones(self) -> dict[str, object]:
        """What this site has deleted for good in the present epoch."""
        known = self.pin
        return {} if known is None else dict(self._memory(known.epoch).tombstones.to_json())

    def _changed(self, **changes: Any) -> Kit:
        made = Kit(self.folder, {**self.settings, **changes})
        made._write()
        return made

    def _write(self) -> None:
        write_atomically(self.folder / "site.toml", tomli_w.dumps(self.settings).encode())


def _shape(known: Pin | None, source: str) -> tuple[int, ...] | None:
    """Return how a folder of pictures is read: as the federation declared when the site joined."""
    return known.shape if known is not None and known.shape and Path(source).is_dir() else None


def _since(log: Path, size: int) -> str:
    """Return what a log has grown by."""
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode(errors="replace")


def _reason(text: str) -> str:
    """Return the line of Flower's output that says why a node was not let in."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    coded = [line for line in lines if "[code:" in line]
    return next(iter(coded or lines[-1:]), "nothing in its log")[-160:]

"""The server's folder: certificates, roster, SuperLink, and what Flower's own commands are told."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import sqlite3
import subprocess
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from experiments.deployment import certificates, keys, processes
from experiments.deployment.members import REMOVED, Member, Members
from experiments.deployment.orders import Operators, Orders
from experiments.deployment.wishes import Inbox
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["CONNECTION", "Server", "split_address"]

CONNECTION = "federation"  # the name by which Flower's commands know the SuperLink
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Of Flower's entry points, which lie on the floor above: Flower imports them, nothing here does.
_ENTRY = f"{__package__.partition('.')[0]}.app"
_SUPEREXEC = "flower-superexec"  # Flower starts it once, and not again when it dies
_SERVERAPP = "flwr-serverapp"  # one for every run, until Flower knows how it ended
_UP_S = 90.0  # longest wait for the SuperLink


@dataclass(frozen=True)
class Server:
    """A federation as its server keeps it.

    Parameters
    ----------
    folder : Path
        Absolute.
    id : str
        Names it in wishes.
    address : str
        ``HOST:PORT`` by which sites reach it.
    show : callable
        Told every command of Flower's before it runs.
    """

    folder: Path
    id: str
    address: str
    show: Callable[[str], None] = lambda line: None

    @classmethod
    def init(cls, folder: Path, address: str) -> Server:
        """Make a federation: authority, server certificate, empty roster.

        Raises
        ------
        ConfigError
            If there is one, or the address is none.
        """
        host, _ = split_address(address)
        path = folder.expanduser().absolute()
        if (path / "federation.toml").exists():
            raise ConfigError(f"{path} is a federation already; name another folder")
        for inside in ("tls", "flwr", "app", "invitations", "wishes"):
            (path / inside).mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        certificates.certify(path / "tls", host)
        made = cls(path, f"federation-{secrets.token_hex(8)}", address)
        text = tomli_w.dumps({"id": made.id, "address": address})
        write_atomically(path / "federation.toml", text.encode())
        made._write_connection()
        return made

    @classmethod
    def open(cls, folder: Path, show: Callable[[str], None] = lambda line: None) -> Server:
        """Return the federation of a folder.

        Raises
        ------
        ConfigError
            If there is none.
        """
        path = folder.expanduser().absolute()
        try:
            found = tomllib.loads((path / "federation.toml").read_text(encoding="utf-8"))
            return cls(path, str(found["id"]), str(found["address"]), show)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{path} is no federation ({type(error).__name__}); make one with "
                "`fedunlearn federation init`"
            ) from error

    @property
    def members(self) -> Members:
        """The roster, as it is on the disk now."""
        return Members(self.folder / "roster.toml")

    @property
    def inbox(self) -> Inbox:
        """Judges wishes of sites."""
        return Inbox(self.folder / "wishes", self.id, self.members)

    @property
    def operators(self) -> Operators:
        """Whose orders count, as it is on the disk now."""
        return Operators(self.folder / "operators.toml")

    @property
    def orders(self) -> Orders:
        """Judges what operators ask for."""
        return Orders(self.folder / "wishes", self.id, self.operators)

    @property
    def database(self) -> Path:
        """Flower's."""
        return self.folder / "superlink.db"

    @property
    def pid_file(self) -> Path:
        """Names the SuperLink's process."""
        return self.folder / "superlink.pid"

    @property
    def is_running(self) -> bool:
        """Whether the SuperLink runs on this machine."""
        return processes.is_running(self.pid_file)

    @property
    def is_whole(self) -> bool:
        """Whether the SuperLink runs and has its SuperExec, without which no run begins."""
        return self.is_running and processes.helpers(self.pid_file, _SUPEREXEC) != []

    @property
    def is_at_work(self) -> bool:
        """Whether a run of the SuperLink has a process; False where the system does not tell."""
        return bool(processes.helpers(self.pid_file, _SERVERAPP))

    def add(self, public: Path, name: str | None = None) -> tuple[Member, Path]:
        """Enter a site's key; return its entry and the invitation to hand to the site.

        Raises
        ------
        ConfigError
            If the key or the name is there already.
        """
        chosen = name or public.stem
        if not _NAME.fullmatch(chosen):
            raise ConfigError(f"name {chosen!r}: use small letters, digits and hyphens")
        member = self.members.add(chosen, keys.read_public(public))
        write_atomically(self._public(member), public.read_bytes())
        if self.is_running:
            member = self._register(member)
        invitation = self.folder / "invitations" / f"{chosen}.toml"
        value = {
            "federation": self.id,
            "address": self.address,
            "client": member.client,
            "name": chosen,
            "ca": (self.folder / "tls" / "ca.crt").read_text(),
        }
        write_atomically(invitation, tomli_w.dumps(value).encode())
        return member, invitation

    def remove(self, name: str) -> Member:
        """Take a site out; its key is used up, at Flower for ever.

        Raises
        ------
        ConfigError
            If there is no such site, or Flower refuses.
        """
        member = self.members.named(name)
        if member.node:
            if not self.is_running:
                raise ConfigError(
                    f"the SuperLink is down, so the key of {name!r} cannot be taken from it; start "
                    "it first with `fedunlearn federation start`"
                )
            self._flwr("supernode", "unregister", member.node, CONNECTION)
        return self.members.change(member.client, state=REMOVED)

    def start(self, host: str = "") -> int:
        """Start the SuperLink, with TLS and node authentication; register what is not yet.

        One that lost its SuperExec is started anew: without it no run begins.

        Parameters
        ----------
        host : str
            The interface to listen on; default: loopback if the address is there, else all.

        Raises
        ------
        ConfigError
            If it runs already, or does not come up.
        """
        name, port = split_address(self.address)
        interface = host or (name if name in ("127.0.0.1", "localhost") else "0.0.0.0")
        tls = self.folder / "tls"
        command = [
            processes.program("flower-superlink"),
            *("--host", interface, "--port", str(port)),
            *("--ssl-ca-certfile", str(tls / "ca.crt")),
            *("--ssl-certfile", str(tls / "server.crt")),
            *("--ssl-keyfile", str(tls / "server.key")),
            *("--database", str(self.database)),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        ]
        if self.is_running and not self.is_whole:
            processes.stop(self.pid_file)
        if processes.is_open("127.0.0.1", port) and not self.is_running:
            raise ConfigError(f"port {port} is taken by another program; free it")
        self.show(shlex.join(command))
        log = self.folder / "superlink.log"
        pid = processes.spawn(command, self.pid_file, log, self._env, self.folder)
        deadline = time.monotonic() + _UP_S
        while not processes.is_open("127.0.0.1", port):
            if not self.is_running or time.monotonic() > deadline:
                processes.stop(self.pid_file)
                raise ConfigError(f"the SuperLink does not come up ({_last(log)}); see {log}")
            time.sleep(0.2)
        while not self.is_whole and time.monotonic() < deadline:
            time.sleep(0.2)
        for member in self.members.present:
            if not member.node:
                self._register(member)
        return pid

    @property
    def certified_until(self) -> datetime:
        """Until when sites accept the server's certificate, in UTC."""
        return certificates.valid_until(self.folder / "tls" / "server.crt")

    def renew(self) -> datetime:
        """Make the server's certificate anew; return until when it is good.

        A SuperLink that runs goes on with the old one until it is started again.

        Raises
        ------
        ConfigError
            If the authority is not there any more.
        """
        certificates.renew(self.folder / "tls", split_address(self.address)[0])
        return self.certified_until

    def stop(self) -> bool:
        """Stop the SuperLink, then empty its database of what it has deleted.

        Flower leaves the bytes of delivered messages in the write-ahead log and in free pages.
        """
        stopped = processes.stop(self.pid_file)
        if self.database.exists():
            try:
                with closing(sqlite3.connect(self.database)) as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    db.execute("VACUUM")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise ConfigError(
                    f"{self.database} could not be folded in and vacuumed ({error}); bytes of "
                    "clients' messages may still lie in it"
                ) from error
        return stopped

    def submit(self, options: dict[str, Any]) -> str:
        """Hand a run to the SuperLink with ``flwr run``; return Flower's id of it.

        The bundle holds settings alone: server and sites run the fedunlearn they have installed.
        """
        from importlib.metadata import version

        app = self.folder / "app"
        value = {
            "project": {
                "name": "fedunlearn-deployed",
                "version": version("fedunlearn"),
                "description": "A run of a federation: settings alone, no code",
                "license": {"text": "Apache-2.0"},
                "dependencies": [f"flwr=={version('flwr')}"],
            },
            "tool": {
                "flwr": {
                    "app": {
                        "publisher": "fedunlearn",
                        "components": {
                            "serverapp": f"{_ENTRY}:server_app",
                            "clientapp": f"{_ENTRY}:client_app",
                        },
                        "config": options,
                    }
                }
            },
        }
        write_atomically(app / "pyproject.toml", tomli_w.dumps(value).encode())
        said = self._flwr("run", str(app), CONNECTION, "--format", "json")
        found = re.search(r'"run-id":\s*"(\d+)"', said)
        if found is None:
            raise ConfigError(f"flwr run did not start a run: {said.strip()[-300:]}")
        return found[1]

    def state_of(self, run_id: str) -> tuple[str, str]:
        """Return the state of a run at the SuperLink, such as ``finished:failed``, and details."""
        said = self._flwr("list", CONNECTION, "--run-id", run_id, "--format", "json", quiet=True)
        runs = json.loads(said).get("runs", [])
        if not runs:
            return "unknown", ""
        return str(runs[0].get("status", "")), str(runs[0].get("status-details", ""))

    def halt(self, run_id: str) -> None:
        """Stop a run at the SuperLink."""
        self._flwr("stop", run_id, CONNECTION)

    @property
    def _env(self) -> dict[str, str]:
        return processes.environment(self.folder / "flwr")

    def _public(self, member: Member) -> Path:
        return self.folder / "invitations" / f"{member.name}.pub"

    def _register(self, member: Member) -> Member:
        path, name = str(self._public(member)), f"client-{member.client}"
        said = self._flwr(
            "supernode", "register", path, CONNECTION, "--name", name, "--format", "json"
        )
        found = re.search(r'"node-id":\s*"?(\d+)', said)
        if found is None:
            raise ConfigError(f"flwr supernode register did not name a node: {said.strip()[-300:]}")
        return self.members.change(member.client, node=found[1])

    def _flwr(self, *arguments: str, quiet: bool = False) -> str:
        command = [processes.program("flwr"), *arguments]
        if not quiet:
            self.show(f"FLWR_HOME={shlex.quote(str(self.folder / 'flwr'))} {shlex.join(command)}")
        done = subprocess.run(
            command, env=self._env, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join((done.stderr + done.stdout).split())[-300:]
            raise ConfigError(f"flwr {' '.join(arguments[:2])} failed: {said or 'nothing said'}")
        return done.stdout

    def _write_connection(self) -> None:
        """Write how Flower's commands reach the SuperLink from this machine."""
        _, port = split_address(self.address)
        value = {
            "superlink": {
                "default": CONNECTION,
                CONNECTION: {
                    "address": f"127.0.0.1:{port}",
                    "root-certificates": str(self.folder / "tls" / "ca.crt"),
                },
            }
        }
        write_atomically(self.folder / "flwr" / "config.toml", tomli_w.dumps(value).encode())


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise ConfigError(f"address {address!r}: give HOST:PORT, for example fl.example.org:9092")
    return host.strip("[]"), int(port)


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][-200:] if lines else "nothing in its log"

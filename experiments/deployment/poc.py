"""All of a deployment on this machine, from keys to receipts, and the same in a simulation.

Everything runs on loopback, on free ports, in one folder; at the end no process and no port is
left. The simulation is given the same shares, the same requests at the same times, and must come to
the same model, bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.config.loading import from_mapping
from experiments.config.schema import Config
from experiments.deployment import processes, wishes
from experiments.deployment.desk import enter
from experiments.deployment.kit import Kit
from experiments.deployment.server import Server, split_address
from experiments.deployment.serving import run
from experiments.deployment.shares import remote, write_shares
from experiments.deployment.waits import is_tested
from experiments.federation import launch
from experiments.runs.admission import admit
from experiments.runs.folder import RunFolder
from experiments.runs.intent import Intent
from unlearning.errors import ConfigError, RequestError
from unlearning.records import receipt
from unlearning.records.files import write_atomically
from unlearning.request import Request, Scope

__all__ = ["Finding", "prove"]

_GONE_S = 30.0
_SAMPLES = (4, 8, 15)
_ASKS, _LEAVES, _DIES = 0, 1, 2  # what happens to which client

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Parameters
    ----------
    what : str
        In words.
    happened : str
        What came of it.
    ok : bool
        Whether it is as it should be.
    """

    what: str
    happened: str
    ok: bool


@dataclass
class _Stage:
    """What has been set up so far, and what was found."""

    folder: Path
    say: Say
    show: Say
    warm: bool = True
    server: Server | None = None
    kits: list[Kit] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def note(self, what: str, happened: object, ok: bool = True) -> None:
        self.found.append(Finding(what, str(happened), ok))
        self.say(f"[{time.monotonic() - self.begun:5.0f} s] {what}: {happened}")


def prove(
    folder: Path,
    sites: int,
    data: str,
    *,
    say: Say = lambda line: None,
    show: Say,
    warm: bool = True,
) -> list[Finding]:
    """Carry all of it out; return what was found.

    Parameters
    ----------
    folder : Path
        To be made.
    sites : int
        How many.
    data : str
        A data set to share out among them.
    say, show : callable
        Told of what happens, and of Flower's commands.
    warm : bool
        Whether sites import once and fork per message, where this Flower was tried so.

    Raises
    ------
    ConfigError
        If the folder is not empty, or something does not start.
    """
    out = folder.expanduser().absolute()
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    stage = _Stage(out, say, show, warm and is_tested())
    simulated = _settings(sites, data)
    with _ended(stage):
        server = _founded(stage, simulated)
        federated = remote(simulated, out / "shares")
        kits = stage.kits
        _, wish = kits[_ASKS].ask(_SAMPLES, None, None)
        stage.note("client 0 asks for three samples", "signed, in its outbox")
        run(server, federated, out / "run", say=say)
        made = RunFolder.open(out / "run")
        stage.note("learned, with TLS and node authentication", _states(made))
        verdicts = kits[_ASKS].letters("verdicts")
        stage.note(
            "its wish rode on a reply, and the verdict came back",
            verdicts[0].get("request") if verdicts else "no verdict",
            bool(verdicts) and bool(verdicts[0]["taken"]),
        )
        _refusals(stage, server, made, wish)
        path, _ = kits[_LEAVES].ask(None, None, out / "leave.json")
        leave = enter(server, made, wishes.read(path))
        stage.note("client 1 asks to leave, by a file brought by hand", leave.id)
        _refused(stage, "the same file once more", lambda: enter(server, made, wishes.read(path)))
        kits[_DIES].stop(at_once=True)
        stage.note("the node of client 2 is killed (SIGKILL)", "gone")
        gone = time.monotonic()
        kits[_DIES].start(show, say, warm=stage.warm)
        stage.note("it starts again under its key", f"let in after {time.monotonic() - gone:.0f} s")
        run(server, federated, out / "run", resume=True, say=say)
        _after(stage, made, server, leave)
        _compare(stage, simulated, made)
    _left_behind(stage)
    return stage.found


def _settings(sites: int, data: str) -> Config:
    return from_mapping(
        {
            "rounds": 2,
            "recovery_rounds": 1,
            "strategy": "retrain",
            "device": "cpu",
            "data": {"name": data, "clients": sites},
            "model": {"name": "mlp"},
            "engine": {"grid": "local", "timeout_s": 300.0},
        }
    )


def _founded(stage: _Stage, simulated: Config) -> Server:
    """Make and start everything."""
    out = stage.folder
    files = write_shares(simulated, out / "shares")
    server = Server.init(out / "federation", f"127.0.0.1:{processes.free_port()}")
    server = Server.open(server.folder, stage.show)
    stage.server = server
    for client, file in enumerate(files):
        kit, public = Kit.init(out / f"site-{client}", f"site-{client}")
        _, invitation = server.add(public)
        stage.kits.append(kit.accept(invitation).hold(str(file)))
    stage.note("keys and certificates are made", f"{len(files)} sites, keys 0600 at the sites")
    server.start()
    with ThreadPoolExecutor(len(files)) as pool:
        start = partial(Kit.start, show=stage.show, say=stage.say, warm=stage.warm)
        list(pool.map(start, stage.kits))
    how = "sites are warm" if stage.warm else "a process per message"
    stage.note("SuperLink and SuperNodes run", f"{server.address}; {how}")
    return server


@contextmanager
def _ended(stage: _Stage) -> Iterator[None]:
    """End all that was started, whatever happens."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        with ThreadPoolExecutor(max(1, len(stage.kits))) as pool:
            list(pool.map(Kit.stop, stage.kits))
        if stage.server is not None:
            stage.server.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refusals(stage: _Stage, server: Server, made: RunFolder, wish: dict[str, Any]) -> None:
    """Try what must be refused."""
    kits = stage.kits

    def signed(of: int, client: int, **changes: Any) -> dict[str, Any]:
        key = kits[of].folder / "site.key"
        return wishes.compose(server.id, client, key, (1, 2), **changes)

    _refused(
        stage,
        "client 0 asks for samples of client 2, with its own key",
        lambda: enter(server, made, signed(0, 2)),
    )
    _refused(
        stage,
        "client 0 sends a wish that client 2 signed",
        lambda: enter(server, made, signed(2, 2), 0),
    )
    stolen = {"body": signed(2, 2)["body"], "signature": wish["signature"]}
    _refused(stage, "a signature taken from another wish", lambda: enter(server, made, stolen))
    _refused(stage, "the wish of client 0 once more", lambda: enter(server, made, wish, 0))
    old = datetime(2020, 1, 1, tzinfo=UTC)
    _refused(stage, "a wish of 2020", lambda: enter(server, made, signed(2, 2, at=old)))


def _refused(stage: _Stage, what: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except RequestError as error:
        stage.note(what, f"refused: {error}")
    else:
        stage.note(what, "taken", ok=False)


def _after(stage: _Stage, made: RunFolder, server: Server, leave: Request) -> None:
    """Look at what the leaver's site, the roster and the receipts say."""
    states = _states(made)
    stage.note("all requests", states, set(states.values()) == {"fulfilled"})
    gone = stage.kits[_LEAVES].tombstones
    stage.note("client 1 has deleted", gone, bool(gone.get("everything")))
    member = server.members.of_client(_LEAVES)
    state = "?" if member is None else member.state
    stage.note("client 1 in the roster", state, state == "left")
    with made.open_ledger(readonly=True) as ledger:
        for request in ledger.requests():
            raw = receipt.make(ledger, request.id, ledger.seal, datetime.now(UTC))
            checks = receipt.check(raw, ledger.seal.public)
            write_atomically(stage.folder / f"receipt-{request.id}.json", raw)
            good = all(one.holds for one in checks)
            stage.note(f"receipt of {request.id}", f"{len(checks)} checks", good)
    stage.note("who asked, in the ledger", leave.asked_by)


def _compare(stage: _Stage, simulated: Config, made: RunFolder) -> None:
    """Let a simulation do the same at the same times."""
    with made.open_ledger(readonly=True) as ledger:
        asked = [request.to_json() for request in ledger.requests()]
    first = {
        "scope": "sample",
        "samples": {str(_ASKS): list(_SAMPLES)},
        "at_round": 1,
        "id": asked[0]["id"],
    }
    config = Config.model_validate({**simulated.to_dict(), "requests": [first]})
    place = launch.run(config, stage.folder / "simulated", observer=lambda tick: None)
    folder = RunFolder.open(place)
    admit(folder, Request(Scope.CLIENT, clients=(_LEAVES,), id=str(asked[-1]["id"])))
    launch.resume(folder, Intent.read(place), observer=lambda tick: None)
    theirs, ours = _digests(made.path), _digests(place)
    equal = bool(ours) and theirs == ours
    stage.note("digest equal to the simulation's", "yes" if equal else f"{theirs} {ours}", equal)


def _digests(folder: Path) -> list[str]:
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    return [str(row["model_digest"]) for row in rows if row["strategy"] != "original"]


def _states(made: RunFolder) -> dict[str, str]:
    with made.open_ledger(readonly=True) as ledger:
        return {request.id: ledger.state(request.id) for request in ledger.requests()}


def _left_behind(stage: _Stage) -> None:
    """Look for processes and ports; Flower's helpers end a moment after what they serve."""
    deadline = time.monotonic() + _GONE_S
    while (running := _running(stage.folder)) and time.monotonic() < deadline:
        time.sleep(1.0)
    taken = stage.server is not None and processes.is_open(*split_address(stage.server.address))
    left = [*running, *(["the SuperLink's port"] if taken else [])]
    stage.note("processes and ports left", left or "none", not left)


def _running(folder: Path) -> list[str]:
    """Return the processes whose commands name a folder, but this one."""
    own, found = str(os.getpid()), []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        inside = any(str(folder).encode() + b"/" in word for word in words)
        if inside and entry.parent.name != own:
            found.append(entry.parent.name)
    return found

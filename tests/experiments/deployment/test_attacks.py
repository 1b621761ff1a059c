"""Attacks on a federation: those that need real processes, and what a site does not obey."""

import json
import shutil
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord

from clients.app import make_client_app
from experiments.deployment import keyed, keys, processes
from experiments.deployment.kit import Kit
from experiments.deployment.post import carry
from experiments.deployment.server import Server
from experiments.deployment.serving import run
from experiments.federation.participants import of_node
from tests.experiments.deployment.test_keyed import KeyGrid, conduct, deployed  # noqa: F401
from tests.support.deployed import deployed as processes_of
from tests.support.deployed import needs_processes, silent
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.protocol import Wire


def grown(message, context, call_next):
    """Answer for client 0 with an array of 80 MB more than was asked for; a Flower mod."""
    reply = call_next(message, context)
    if context.node_config["partition-id"] == 0 and Wire.ARRAYS in reply.content:
        arrays = dict(reply.content[Wire.ARRAYS].items())
        arrays["more"] = Array(np.zeros(10_000_000))
        reply.content[Wire.ARRAYS] = ArrayRecord(arrays)
        assert isinstance(reply.content[Wire.METRICS], MetricRecord)
    return reply


def regrid(grid, *mods):
    """Let the nodes of a grid run another app."""
    made = KeyGrid(make_client_app(of_node, mods=mods), 3)
    made.keys = grid.keys
    for own, other in zip(made.contexts.values(), grid.contexts.values(), strict=True):
        own.node_config |= other.node_config
    return made


def test_an_oversized_reply_is_left_out_and_named(deployed, tmp_path, caplog):  # noqa: F811
    server, _, grid, config = deployed
    conduct(server, regrid(grid, carry, grown), config, tmp_path / "run")
    assert "client 0" in caplog.text
    assert "more" in caplog.text
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert rows[-1]["model_digest"]


def test_an_oversized_letter_is_not_read(deployed, tmp_path, caplog, monkeypatch):  # noqa: F811
    server, kits, grid, config = deployed
    _, wish = kits[1].ask((1, 2), None, None)
    monkeypatch.setattr(keyed, "_MOST_BYTES", 10)
    assert conduct(server, grid, config, tmp_path / "run") == {}
    assert "larger than any wish" in caplog.text
    assert kits[1].letters("outbox") == [wish]


def test_a_server_cannot_name_another_home_or_other_data(deployed, tmp_path):  # noqa: F811
    server, kits, grid, config = deployed
    elsewhere = tmp_path / "elsewhere"

    def hostile(message, context, call_next):
        if (record := message.content.get(Wire.CONFIG)) is not None:
            record[Wire.HOME] = str(elsewhere)
            record["data"] = "/etc/passwd"
        return call_next(message, context)

    kits[1].ask(None, None, None)
    conduct(server, regrid(grid, carry, hostile), config, tmp_path / "run")
    assert not elsewhere.exists()
    assert kits[1].tombstones["everything"]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("deployment")
@needs_processes
def test_who_is_not_a_member_does_not_get_in(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.deployment.kit._TURNED_AWAY_S", 0.0)
    with processes_of(tmp_path, rounds=1, recovery_rounds=0) as found:
        server, kits = found.server, found.kits
        data = str(tmp_path / "shares" / "site-0.npz")

        def turned_away(kit):
            with pytest.raises(ConfigError, match="does not let this site in"):
                kit.start(silent, silent)

        # a key that nobody registered
        stranger, _ = Kit.init(tmp_path / "stranger", "stranger")
        invitation = server.folder / "invitations" / "site-0.toml"
        turned_away(stranger.accept(invitation).hold(data))

        # a second node with one key: the first keeps its place
        shutil.copytree(kits[0].folder, tmp_path / "twin")
        (tmp_path / "twin" / "supernode.pid").unlink()
        turned_away(Kit.open(tmp_path / "twin"))
        assert processes.is_running(kits[0].pid_file)

        # another federation's authority: the certificate is not the one it trusts
        other = Server.init(tmp_path / "other", server.address)
        foreign, public = Kit.init(tmp_path / "foreign", "foreign")
        _, elsewhere = other.add(public)
        foreign = foreign.accept(elsewhere).hold(data)
        command = foreign.command(processes.free_port())
        assert not _gets_in(command, tmp_path / "foreign")

        # without TLS
        bare = [
            *(processes.program("flower-supernode"), "--insecure"),
            *("--superlink", server.address, "--port", str(processes.free_port())),
        ]
        assert not _gets_in(bare, tmp_path)

        # two sites that swapped their settings: both answer, each is known by its key
        for own, other_client in ((0, 1), (1, 0)):
            kits[own].stop()
            kits[own] = kits[own]._changed(client=other_client)
            kits[own].start(silent, silent, warm=True)
        strict = {**found.config.to_dict(), "engine": {"min_replies": 1.0, "timeout_s": 120.0}}
        with pytest.raises(FedUnlearnError, match="its key is that of client"):
            run(server, type(found.config).model_validate(strict), tmp_path / "run")
    assert keys.normal_form(b"no key") == ""


def _gets_in(command, place, seconds=20.0):
    """Return whether a node is let in within some seconds; end it."""
    pid_file, log = place / "attack.pid", place / "attack.log"
    env = processes.environment(place / "attack-flwr")
    processes.spawn(command, pid_file, log, env, place)
    until = time.monotonic() + seconds
    try:
        while processes.is_running(pid_file) and time.monotonic() < until:
            if "SuperNode ID" in log.read_text(errors="replace"):
                return True
            time.sleep(0.5)
        return False
    finally:
        processes.stop(pid_file)

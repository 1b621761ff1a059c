"""The whole of a deployment, with real processes."""

import importlib.util
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.deployment import poc, processes
from experiments.deployment.kit import Kit
from experiments.deployment.server import Server, split_address
from experiments.deployment.serving import run
from experiments.runs.folder import RunFolder
from tests.support.deployed import deployed, eventually
from unlearning.errors import ConfigError
from unlearning.records import receipt

SUPERLINK = Path(sys.executable).parent / "flower-superlink"
NEEDS_FLOWER = pytest.mark.skipif(
    not SUPERLINK.exists() or importlib.util.find_spec("flwr") is None,
    reason=f"{SUPERLINK} is missing; install flwr in the environment of the tests",
)


@NEEDS_FLOWER
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("deployment")
def test_everything_works_from_keys_to_receipts(tmp_path):
    found = poc.prove(tmp_path / "poc", 3, "digits", show=lambda line: None)
    assert [one for one in found if not one.ok] == []
    assert any(one.what.startswith("digest equal") and one.happened == "yes" for one in found)


@NEEDS_FLOWER
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("deployment")
def test_a_short_run_of_real_processes_serves_a_wish_and_leaves_nothing(tmp_path):
    two = {"name": "digits", "clients": 2, "limit": 200, "test_limit": 100}
    with deployed(tmp_path, rounds=1, recovery_rounds=0, data=two) as found:
        found.kits[0].ask((4, 8, 15), None, None)
        out = run(found.server, found.config, tmp_path / "run")
        with RunFolder.open(out).open_ledger(readonly=True) as ledger:
            (wish,) = ledger.requests()
            raw = receipt.make(ledger, wish.id, ledger.seal, datetime.now(UTC))
            assert all(check.holds for check in receipt.check(raw, ledger.seal.public))
        statement = json.loads(raw)["statement"]
        assert (statement["state"], statement["owners_confirmed"]) == ("fulfilled", [0])
        (verdict,) = found.kits[0].letters("verdicts")
        assert verdict["request"] == wish.id
    place = split_address(found.server.address)
    eventually(lambda: not poc._running(tmp_path) and not processes.is_open(*place), 60.0)


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="is not empty"):
        poc.prove(tmp_path, 3, "digits", show=lambda line: None)


def test_what_is_started_is_ended_with_all_that_it_began(tmp_path):
    pid_file = tmp_path / "pid"
    script = "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
    command = [sys.executable, "-c", script]
    processes.spawn(command, pid_file, tmp_path / "log", {}, tmp_path)
    assert processes.is_running(pid_file)
    with pytest.raises(ConfigError, match="running already"):
        processes.spawn(command, pid_file, tmp_path / "log", {}, tmp_path)
    assert processes.stop(pid_file)
    assert not processes.is_running(pid_file)
    assert not processes.stop(pid_file)


@pytest.mark.parametrize("address", ["", "host", "host:", "host:x", "host:70000", "http://a:1"])
def test_an_address_is_host_and_port(tmp_path, address):
    with pytest.raises(ConfigError, match="give HOST:PORT"):
        Server.init(tmp_path / "fed", address)


def test_private_keys_and_authority_are_the_owners_alone(tmp_path):
    server = Server.init(tmp_path / "fed", "fl.example.org:9092")
    kit, _ = Kit.init(tmp_path / "kit", "a")
    secret = [server.folder / "tls" / "ca.key", server.folder / "tls" / "server.key"]
    for path in [*secret, kit.folder / "site.key"]:
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="is a federation already"):
        Server.init(tmp_path / "fed", "fl.example.org:9092")
    with pytest.raises(ConfigError, match="exists already"):
        Kit.init(tmp_path / "kit", "a")


def test_a_site_names_what_is_missing(tmp_path):
    kit, public = Kit.init(tmp_path / "kit", "a")
    with pytest.raises(ConfigError, match="has no invitation"):
        kit.ask(None, None, None)
    server = Server.init(tmp_path / "fed", "localhost:9092")
    _, invitation = server.add(public)
    with pytest.raises(ConfigError, match="has no data yet"):
        kit.accept(invitation).command(9094)
    with pytest.raises(ConfigError, match="is no invitation"):
        kit.accept(public)
    other = Server.init(tmp_path / "other", "localhost:9092")
    _, second = other.add(public)
    with pytest.raises(ConfigError, match="takes part in"):
        kit.accept(invitation).accept(second)

"""ServerApp, SuperExec and SuperLink are killed in turn; the run goes on and no wish is lost."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.deployment import processes
from experiments.deployment.serving import run
from experiments.runs.folder import RunFolder
from tests.support.deployed import deployed, eventually, needs_processes, rounds_done
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.records.states import FINAL


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(2400)
@pytest.mark.xdist_group("deployment")
@needs_processes
def test_whatever_dies_at_the_server_the_run_goes_on_and_no_wish_is_lost(tmp_path):
    out = tmp_path / "run"
    with deployed(tmp_path, rounds=6) as found, ThreadPoolExecutor(1) as pool:
        server = found.server

        def begin(resume):
            return pool.submit(run, server, found.config, out, resume=resume)

        def ends(running, kill, after):
            eventually(lambda: running.done() or rounds_done(out) >= after)
            assert not running.done(), running.exception()
            kill()
            with pytest.raises(FedUnlearnError):
                running.result(timeout=300)

        ends(begin(False), lambda: found.kill("flwr-serverapp"), 1)
        found.kits[0].ask((1, 2, 3), None, None)  # asked while there is nobody to ask

        ends(begin(True), lambda: found.kill("flower-superexec"), 3)
        with pytest.raises(ConfigError, match="federation start"):
            run(server, found.config, out, resume=True)
        server.start()

        ends(begin(True), lambda: processes.stop(server.pid_file, at_once=True), 4)
        assert not server.is_running
        server.start()
        begin(True).result(timeout=900)

        with RunFolder.open(out).open_ledger(readonly=True) as ledger:
            ledger.verify()
            (wish,) = ledger.requests()
            assert ledger.state(wish.id) == "fulfilled"
            received = [e for e in ledger.events(wish.id) if e.event in ("received", *FINAL)]
            assert [e.event for e in received] == ["received", "fulfilled"]
        (verdict,) = found.kits[0].letters("verdicts")
        assert verdict["taken"]
        assert found.kits[0].tombstones["samples"] == [1, 2, 3]

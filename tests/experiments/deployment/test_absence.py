"""Sites that never come, and one that is killed in the middle of a run and returns."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.deployment.serving import run
from tests.support.deployed import deployed, eventually, needs_processes, rounds_done, silent


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(2400)
@pytest.mark.xdist_group("deployment")
@needs_processes
def test_a_run_goes_on_without_who_is_away_and_takes_back_who_returns(tmp_path):
    out = tmp_path / "run"
    engine = {"grid": "local", "timeout_s": 120.0, "min_replies": 0.3}
    with (
        deployed(tmp_path, rounds=4, recovery_rounds=0, engine=engine) as found,
        ThreadPoolExecutor(1) as pool,
    ):
        found.kits[2].stop()  # registered, and not there when the run begins
        running = pool.submit(run, found.server, found.config, out)
        eventually(lambda: running.done() or rounds_done(out) >= 1, 600.0)
        assert not running.done(), running.exception()
        found.kits[1].stop(at_once=True)
        found.kits[1].start(silent, silent, warm=True)  # turned away for up to a minute
        running.result(timeout=1200)
    timeline = json.loads((out / "details.json").read_text())["timeline"]
    assert len(timeline) == 4
    told = (out / "run.log").read_text()
    assert "client 2" in told
    assert "client 1" in told

"""A warm site runs what was sent, and only with a Flower that it was tried with."""

import importlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.deployment import waits, warm
from experiments.deployment.kit import Kit
from experiments.deployment.server import Server
from unlearning.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bundle(tmp_path):
    """Return a bundle that holds settings and the code of the site's app as it is installed."""
    place = tmp_path / "bundle"
    (place / "experiments").mkdir(parents=True)
    shutil.copy(ROOT / "experiments" / "app.py", place / "experiments" / "app.py")
    (place / "pyproject.toml").write_text("")
    return place


def test_settings_alone_are_no_code(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    assert warm.digests(tmp_path) == ("", "")
    assert not warm.drop_others(tmp_path)


def test_code_that_is_the_installed_one_is_not_imported_anew(bundle):
    sent, here = warm.digests(bundle)
    assert sent == here != ""
    assert not warm.drop_others(bundle)


@pytest.mark.parametrize("added", ["changed", "another"])
def test_other_code_is_imported_from_the_bundle(bundle, monkeypatch, added):
    if added == "changed":
        with (bundle / "experiments" / "app.py").open("a") as file:
            file.write("# changed\n")
    else:
        (bundle / "experiments" / "another.py").write_text("")
    kept = dict(sys.modules)
    monkeypatch.setattr(sys, "modules", kept)
    kept["experiments_not_it"] = kept["json"]
    assert warm.drop_others(bundle)
    assert not [name for name in kept if name.partition(".")[0] == "experiments"]
    assert {"experiments_not_it", "torch", "clients.app"} & kept.keys() >= {"experiments_not_it"}


def test_files_that_are_installed_meanwhile_are_noticed(tmp_path, monkeypatch):
    file = tmp_path / "experiments" / "deployment" / "warm.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    monkeypatch.setattr(warm, "__file__", str(file))
    before = warm.stamp()
    assert warm.stamp() == before
    (file.parent / "more.py").write_text("")
    assert warm.stamp() != before


def test_a_flower_that_was_not_tried_is_refused(monkeypatch, tmp_path):
    assert waits.is_tested()
    monkeypatch.setattr(waits, "TESTED", ("1.1",))
    with pytest.raises(ConfigError, match="leave it out"):
        warm.check_flower()
    waits.look_soon()  # says nothing and does nothing


def test_this_flower_has_the_parts_that_warm_rests_on():
    utils = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")
    for function in (utils.pull_objects, utils.pull_and_inflate_object_from_tree):
        assert {"initial_backoff", "backoff_cap"} <= function.__kwdefaults__.keys()
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop)
    assert "time.sleep(3)" in source
    runtime = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    asked = {
        "runtime_api_address",
        "token",
        "insecure",
        "certificates",
        "parent_pid",
        "runtime_dependency_install",
    }
    assert asked == inspect.signature(runtime.run_clientapp).parameters.keys()
    assert callable(runtime.get_load_client_app_fn)
    assert callable(runtime.get_project_dir)
    superexec = importlib.import_module("flwr.supercore.superexec.run_superexec")
    assert callable(superexec.get_executor)


def test_waits_are_shorter_in_the_process_that_asks_for_it():
    code = (
        "from experiments.deployment import waits; waits.look_soon(); waits.nap_less()\n"
        "import importlib, json, time\n"
        "utils = importlib.import_module('flwr.supercore.inflatable.inflatable_utils')\n"
        "loop = importlib.import_module('flwr.supernode.start_client_internal')\n"
        "begun = time.monotonic(); loop.time.sleep(3)\n"
        "print(json.dumps([utils.pull_objects.__kwdefaults__['initial_backoff'],"
        " time.monotonic() - begun]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, napped = json.loads(done.stdout)
    assert first < 1.0
    assert napped < 3.0


def test_a_warm_site_gives_flowers_own_options(tmp_path):
    server = Server.init(tmp_path / "fed", "localhost:9092")
    kit, public = Kit.init(tmp_path / "kit", "a")
    _, invitation = server.add(public)
    kit = kit.accept(invitation)
    kit = Kit(kit.folder, {**kit.settings, "data": "x.npz"})
    cold, hot = kit.command(9094), kit.command(9094, warm=True)
    assert cold[1:] == hot[3:]
    assert hot[1:3] == ["-m", "experiments.deployment.warm"]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_superexec_ends_when_its_node_is_gone(tmp_path):
    deaf = (
        "import os, signal, threading, time\n"
        "from experiments.deployment import warm\n"
        "warm._WATCH_S = warm._GRACE_S = 0.1\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, lambda *rest: None)\n"
        "threading.Thread(target=warm._end_with, args=(os.getppid(),), daemon=True).start()\n"
        "print('here', flush=True)\n"
        "while True:\n"
        "    time.sleep(60)\n"
    )
    node = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {deaf!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", node], cwd=ROOT, capture_output=True, text=True, check=True
    )
    left = int(found.stdout)
    deadline = time.monotonic() + 30
    gone = False
    while not gone and time.monotonic() < deadline:
        time.sleep(0.05)
        gone = not is_alive(left)
    if not gone:
        os.kill(left, signal.SIGKILL)
    assert gone

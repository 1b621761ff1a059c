"""The speed command: one object and nothing else, reasons in words, parts found by their name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks.speed import __main__ as speed
from experiments.benchmarks.speed import clock, commands
from experiments.benchmarks.speed.clock import HERE, Found, Setting, Unmeasured


def test_json_is_one_object_with_a_null_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["forest", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in speed.KEYS["forest"]} == dict.fromkeys(speed.KEYS["forest"])
    assert "--root" in found["reasons"]["forest"]


def test_every_part_that_is_there_is_named_and_says_what_it_lacks() -> None:
    parts = {path.stem for path in (Path(speed.__file__).parent / "parts").glob("[a-z]*.py")}
    assert parts <= speed.KEYS.keys()
    for name in parts & {"kmeans", "ridge", "demo", "compare", "audit", "cnn"}:
        with pytest.raises(Unmeasured, match="--against"):
            speed._part(name)(Setting(root=Path()))


def test_a_part_is_one_function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"svm_mb": 321.5, "svm_deletion_ratio": None}
    monkeypatch.setattr(speed, "_part", lambda name: lambda setting: Found(figures, {"of": 3}))
    assert speed.main(["svm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["svm_mb"], found["svm_deletion_ratio"]) == (321.5, None)
    assert speed.main(["svm"]) == 0
    assert "322" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["forest", "--root", "/nowhere"])
    assert "/nowhere is no folder" in capsys.readouterr().err


def test_works_are_done_in_turn() -> None:
    done: list[str] = []
    found = clock.in_turn(3, lambda: done.append("a"), lambda: done.append("b"))
    assert done == list("ababab")
    assert all(one >= 0 for one in found)


def test_a_child_answers_and_its_tree_is_metered(tmp_path: Path) -> None:
    source = tmp_path / "burn.py"
    source.write_text(
        "import json, subprocess, sys, time\n"
        "burn = 'import time\\nwhile time.process_time() < 0.2: pass'\n"
        "subprocess.run([sys.executable, '-c', burn], check=True)\n"
        "print(json.dumps({'said': sys.argv[1]}))\n"
    )
    found = clock.child(source, HERE, ["yes"], timeout_s=60)
    assert found.answer == {"said": "yes"}
    assert found.cpu_s >= 0.2
    assert found.megabytes > 1
    source.write_text("raise SystemExit('no such thing')")
    with pytest.raises(Unmeasured, match="no such thing"):
        clock.child(source, HERE, [], timeout_s=60)


def test_what_a_child_leaves_behind_is_metered_too(tmp_path: Path) -> None:
    source = tmp_path / "leave.py"
    source.write_text(
        "import json, subprocess, sys\n"
        "burn = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "subprocess.Popen([sys.executable, '-c', burn], stdout=subprocess.DEVNULL)\n"
        "print(json.dumps({}))\n"
    )
    assert clock.child(source, HERE, [], timeout_s=60).cpu_s >= 0.3


def test_a_command_runs_in_a_folder_that_is_gone_afterwards(tmp_path: Path) -> None:
    cpu, wall = commands.command(["list", "strategies", "--json"])
    assert cpu > 0
    assert wall > 0
    with pytest.raises(Unmeasured, match="ended with 2"):
        commands.command(["compare", "{home}/none.toml"])


def test_this_build_may_be_asked_for_more_than_the_older_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Path, list[str]]] = []

    def command(arguments: list[str], worktree: Path) -> tuple[float, float]:
        asked.append((worktree, arguments))
        return (1.0, 2.0) if worktree == HERE else (4.0, 4.0)

    monkeypatch.setattr(commands, "command", command)
    found = commands.beside(tmp_path, ["run"], 1, ours=commands.STACKED)
    assert asked == [(HERE, ["run", *commands.STACKED]), (tmp_path, ["run"])]
    assert (found.ratio, found.wall_ratio, found.runs) == (0.25, 0.5, ((1.0, 4.0),))


def test_repeats_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["demo", "--repeats", "0"])
    assert "give 1 or more" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look into")
def test_seconds_count_of_what_is_reaped_unseen(tmp_path: Path) -> None:
    # As Ray's daemon does: a process whose children leave no seconds to whoever began it.
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 1:\n"
        "        pass\n"
        "    os._exit(0)\n"
        "try:\n"
        "    os.wait()\n"
        "except ChildProcessError:\n"
        "    print('{}')\n"
    )
    assert clock.child(script, HERE, [], timeout_s=60).cpu_s >= 0.9

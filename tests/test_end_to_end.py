"""The straight line as a user walks it: real commands, real Ray, real Flower."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config.loading import Config, load
from experiments.federation import launch
from experiments.runs.details import read_details
from experiments.runs.progress import Tick
from experiments.runs.results import read_results
from strategies.registry import strategies
from tests.support.deployed import eventually, rounds_done
from tests.support.forked import RAY, ended, forked, is_running
from tests.support.undrawn import undrawn
from unlearning.errors import ConfigError, HistoryError
from unlearning.records.history import History
from unlearning.records.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "experiments/configs/digits_client.toml"
SMALL = ("rounds=4", "recovery_rounds=2")


def small(*overrides: str) -> Config:
    return load(DIGITS, [*SMALL, "engine.grid=local", *overrides])


def few(*overrides: str) -> Config:
    """Return the same on a third of the examples, where what is learned is not the matter."""
    return small("data.limit=600", *overrides)


def silent(tick: Tick) -> None:
    pass


def digests(folder: Path) -> dict[str, str | None]:
    return {row.strategy: row.model_digest for row in read_results(folder)[1]}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from experiments.cli import app; app()", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(call, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small comparison in this process."""
    return launch.compare(small(), tmp_path_factory.mktemp("runs") / "local", observer=silent)


def test_a_comparison_leaves_what_the_readme_says(compared: Path) -> None:
    found = {path.name for path in compared.iterdir()}
    files = "config.toml results.json results.csv ledger.sqlite history timeline.svg report.html"
    assert set(files.split()) <= found
    assert {"report.json", "table.tex", "details.json"} <= found
    assert "clients" not in found
    rows = json.loads((compared / "results.json").read_text())["rows"]
    names = [row["strategy"] for row in rows]
    assert names == ["original", "retrain", "fine-tune", "fed-eraser", "gradient-ascent"]
    for row in rows:
        assert set(row) == {
            "strategy",
            "seed",
            "scope",
            "guarantee",
            "metrics",
            "cost",
            "model_digest",
        }
        assert row["scope"] == "client"
        assert row["metrics"]["test_accuracy"] > 0.3
    assert rows[1]["metrics"]["prediction_distance"] == 0
    assert rows[1]["cost"]["speedup_examples"] == 1


def test_curves_and_counts_belong_to_the_models_of_the_rows(compared: Path) -> None:
    _, rows = read_results(compared)
    details = read_details(compared)
    assert len(details.rocs) == len(details.tallies) == len(rows) == 5
    for row, curve, tally in zip(rows, details.rocs, details.tallies, strict=True):
        assert {row.strategy} == {curve.strategy, tally.strategy}
        right, all_ = (np.sum(counts) for counts in (tally.correct, tally.total))
        assert right / all_ == pytest.approx(row.metrics["retain_accuracy"])
        assert sum(tally.test_correct) / sum(tally.test_total) == pytest.approx(
            row.metrics["test_accuracy"]
        )
        assert tally.clients == (0, 1, 2, 4, 5, 6, 7, 8, 9)
        # One step per non-member: their mean height is the area.
        assert len(curve.fpr) == curve.non_members + 1
        assert np.mean(curve.tpr[:-1]) == pytest.approx(row.metrics["mia_auc"], abs=1e-5)


def test_costs_follow_from_the_schedule(compared: Path) -> None:
    rows = {row.strategy: row.cost for row in read_results(compared)[1]}
    # 9 clients remain of 10; 4 rounds again, then 2 of recovery, 2 local epochs each
    assert rows["retrain"]["client_rounds"] == 9 * (4 + 2)
    assert rows["fine-tune"]["client_rounds"] == 9 * 2
    assert rows["fed-eraser"]["client_rounds"] == 9 * (1 + 2)
    assert rows["gradient-ascent"]["client_rounds"] == 1 + 9 * 2
    work = {phase.strategy: phase.unlearn for phase in read_details(compared).phases}
    assert work["retrain"].examples == pytest.approx(8 * work["fed-eraser"].examples, rel=1e-9)


def test_nothing_of_the_forgotten_is_left_in_the_stores(compared: Path) -> None:
    with History.open(compared / "history" / "seed-0") as history:
        assert 3 not in {c for t in history.rounds for c in history.participants(t)}
        assert history.verify() == []
    assert not list(compared.rglob("*client-00003*"))
    assert [p.name for p in (compared / "history").iterdir()] == ["seed-0"]
    Ledger(compared / "ledger.sqlite").verify()


def test_two_runs_of_one_config_are_equal_bit_for_bit(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undrawn(monkeypatch.setattr)
    again = launch.compare(small(), tmp_path / "again", observer=silent)
    assert digests(again) == digests(compared)


def test_a_comparison_over_seeds_has_one_row_each(tmp_path: Path) -> None:
    config = few("rounds=2", "recovery_rounds=1", 'strategies=["fed-eraser"]')
    found = launch.compare(config, tmp_path / "seeds", seeds=(0, 1), observer=silent)
    rows = read_results(found)[1]
    assert [(row.strategy, row.seed) for row in rows] == [
        (name, seed)
        for seed in (0, 1)
        for name in ("original", "retrain", "fine-tune", "fed-eraser")
    ]
    assert len({row.model_digest for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "request_table",
    [
        '{scope = "sample", samples = {3 = [0, 1, 2], 5 = [7]}}',
        '{scope = "sample", samples = "marked"}',
        '{scope = "sample", clients = [3], classes = [7]}',
        '{scope = "class", classes = [7, 2]}',
        '{scope = "client", clients = [3, 4]}',
    ],
)
def test_every_scope_is_compared(tmp_path: Path, request_table: str) -> None:
    enough = small if "classes" in request_table else few  # of each class at each client
    config = enough("recovery_rounds=1", f"requests=[{request_table}]")
    found = launch.compare(config, tmp_path / "run", observer=silent)
    rows = {row.strategy: row for row in read_results(found)[1]}
    assert set(rows) == {"original", "retrain", "fine-tune", "fed-eraser", "gradient-ascent"}
    if "class" in request_table and "clients" not in request_table:
        forget = {name: row.metrics["forget_accuracy"] for name, row in rows.items()}
        assert forget["retrain"] == 0
        assert (forget["original"] or 0) > 0.1


def test_requests_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn(monkeypatch.setattr)
    requests = (
        '[{scope = "client", clients = [3], at_round = 2},'
        ' {scope = "client", clients = [5], at_round = 4}]'
    )
    config = few(f"requests={requests}")
    found = launch.compare(config, tmp_path / "run", observer=silent)
    ledger = Ledger(found / "ledger.sqlite", branch="fed-eraser/seed-0")
    assert [ledger.state(request.id) for request in ledger.requests()] == ["fulfilled"] * 2
    phases = [p.phase for p in read_details(found).timeline if p.strategy == "retrain"]
    assert phases == [*["unlearn"] * 2, *["recover"] * 2, *["unlearn"] * 4, *["recover"] * 2]


def test_a_request_arrives_from_another_process_while_learning(tmp_path: Path) -> None:
    out = tmp_path / "run"
    answers: list[subprocess.CompletedProcess[str]] = []

    def ask(tick: Tick) -> None:
        if tick.phase == "learn" and tick.server_round == 2:
            answers.append(command("request", str(out), "--client", "5", "--json"))

    config = few("requests=[]", "marker=", 'strategy="gradient-ascent"')
    launch.run(config, out, observer=ask)
    assert [answer.returncode for answer in answers] == [0], answers[0].stderr
    ledger = Ledger(out / "ledger.sqlite")
    (request,) = ledger.requests()
    assert request.clients == (5,)
    assert ledger.state(request.id) == "fulfilled"
    phases = [point.phase for point in read_details(out).timeline]
    assert phases == ["learn", "learn", "unlearn", "recover", "recover"]
    rows = {row.strategy: row for row in read_results(out)[1]}
    assert set(rows) == {"original", "gradient-ascent"}
    # the leaver wrote its tombstone, and what it kept of training is gone
    kept = sorted(path.name for path in (out / "clients").rglob("client-00005/*"))
    assert kept == ["tombstones.json"]
    saved = load_file(out / "model.safetensors")
    assert all(np.isfinite(array).all() for array in saved.values())


def test_an_unsupported_request_while_learning_is_refused_and_learning_goes_on(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"

    def ask(tick: Tick) -> None:
        if tick.server_round == 2:
            ledger = Ledger(out / "ledger.sqlite")
            from unlearning.request import Request, Scope

            ledger.receive(Request(Scope.TASK, tasks=("left",), id="task"))

    launch.run(few("requests=[]", "marker="), out, observer=ask)
    ledger = Ledger(out / "ledger.sqlite")
    assert ledger.state("task") == "refused"
    assert len(read_details(out).timeline) == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=fed-erazer"], "fed-eraser"),
        (["options.fed-eraser.intervall=2"], "interval"),
        (["data.name=digitz"], "digits"),
        (["data.clientz=3"], "clients"),
        (["train.batch_size=many"], "train.batch_size"),
        (["requests.0.clients=[33]"], "33"),
        (['requests=[{scope="sample", clients=[3], samples=[100000]}]'], "100000"),
        (['requests=[{scope="class", classes=[11]}]'], "11"),
        (["data.clients=1", "marker.client=0", "requests.0.clients=[0]"], "client"),
        (["model.name=transformer"], "mlp"),
        (["data.partitioner=iidd"], "iid"),
    ],
)
def test_a_users_mistake_is_one_line_and_changes_nothing(
    tmp_path: Path, overrides: list[str], words: str
) -> None:
    sets = [part for override in overrides for part in ("--set", override)]
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["run", str(DIGITS), "--out", str(out), *sets])
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not out.exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    call = ("run", str(DIGITS), "--out", out, "--set", "data.name=digitz")
    plain, traced = (CliRunner().invoke(app, [*words, *call]) for words in ((), ("--debug",)))
    assert plain.exit_code == traced.exit_code == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in traced.stderr


def test_a_damaged_history_file_is_named(compared: Path, tmp_path: Path) -> None:
    out = shutil.copytree(compared, tmp_path / "run")
    victim = next((out / "history").rglob("client-*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    done = CliRunner().invoke(app, ["verify", str(out)])
    assert done.exit_code == 1
    assert victim.name in done.output


# --- Ray and Flower ------------------------------------------------------------------------------


FOREST = DIGITS.with_name("forest_cancer.toml")
FEW_TREES = ("rounds=4", "model.trees=5", "model.depth=4")


KILLED_AFTER = 5  # of its rounds: learning is over, the first branch has begun


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Compare twice on Ray, the first time killed and resumed; return where and what was said."""
    home = tmp_path_factory.mktemp("ray")

    def compared(name: str, config: Path, *sets: str) -> list[str]:
        words = ["compare", str(config), "--out", str(home / name)]
        return words + [word for one in (*sets, "engine.workers=2") for word in ("--set", one)]

    def begin() -> None:
        app(compared("digits", DIGITS, *SMALL))

    def go_on() -> None:
        for words in (
            ["resume", str(home / "digits")],
            compared("forest", FOREST, *FEW_TREES),
        ):
            if code := app(words, standalone_mode=False):
                sys.exit(code)

    begun = forked(begin, home / "begun", knows=RAY)
    eventually(lambda: rounds_done(home / "digits") >= KILLED_AFTER or not is_running(begun))
    os.kill(begun, signal.SIGKILL)
    assert ended(begun) == -signal.SIGKILL, (home / "begun").read_text()
    code = ended(forked(go_on, home / "said", knows=RAY), 500)
    said = (home / "said").read_text()
    assert code == 0, said
    tables = said.split("report: ")
    assert len(tables) == 3
    assert "fed-eraser" in tables[0]
    return home, (home / "begun").read_text() + said


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give settings for a Flower of our own, which is ended afterwards."""
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(str(found.getsockname()[1]))
    home = tmp_path / "flwr"
    yield {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"FLWR_HOME={home}".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if ours:
            os.kill(int(process.name), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.timeout(600)
def test_ray_gives_the_same_models_bit_for_bit(compared: Path, on_ray: tuple[Path, str]) -> None:
    """Two workers, killed on the way and resumed there by two others."""
    home, said = on_ray
    assert digests(home / "digits") == digests(compared)
    # Flower's warnings are let through, and none is of a deprecation.
    assert "deprecated" not in said.lower()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.timeout(600)
def test_ray_grows_the_same_forest_node_for_node(on_ray: tuple[Path, str], tmp_path: Path) -> None:
    """A model that is no network, and a deletion in which counts of two workers are summed."""
    config = load(FOREST, [*FEW_TREES, "engine.grid=local"])
    here = launch.compare(config, tmp_path / "here", observer=silent)
    found = digests(on_ray[0] / "forest")
    assert found == digests(here)
    assert found["forest-deletion"] == found["retrain"] != found["original"]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not Path("/proc").exists(), reason="no /proc to find Flower's processes by; run it on Linux"
)
def test_flwr_run_gives_the_same_model(tmp_path: Path, flower: dict[str, str]) -> None:
    short = {"rounds": 2, "recovery_rounds": 1}
    overrides = [f"{key}={value}" for key, value in short.items()]
    here = launch.run(small(*overrides), tmp_path / "here", observer=silent)
    out = tmp_path / "there"
    settings = {"out": str(out), **short}
    texts = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    nodes = f"num-supernodes=10 client-resources-num-cpus={os.cpu_count()}"  # one worker
    call = ["flwr", "run", ".", "--stream", "--federation-config", nodes, "--run-config", texts]
    done = subprocess.run(
        call,
        cwd=ROOT,
        env={**os.environ, **flower},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (out / "report.html").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    assert digests(out) == digests(here)


# --- further ways to begin -----------------------------------------------------------------------


def test_a_model_trained_elsewhere_is_made_to_forget(tmp_path: Path) -> None:
    trained = launch.run(few("requests=[]"), tmp_path / "trained", observer=silent)
    start = f"start.model='{trained / 'model.safetensors'}'"
    config = few(start, "rounds=2", 'strategy="no-t"')
    out = launch.run(config, tmp_path / "run", observer=silent)
    (request,) = Ledger(out / "ledger.sqlite").requests()
    assert request.at_round == 0
    assert Ledger(out / "ledger.sqlite").state(request.id) == "fulfilled"
    phases = [point.phase for point in read_details(out).timeline]
    assert set(phases) <= {"unlearn", "recover"}
    kept = {file.name for file in (out / "history").rglob("*.safetensors")}
    assert kept <= {"initial.safetensors", "state.safetensors"}  # nothing that anybody sent


def test_a_strategy_that_needs_a_history_refuses_a_model_trained_elsewhere(tmp_path: Path) -> None:
    trained = launch.run(few("requests=[]"), tmp_path / "trained", observer=silent)
    config = few(f"start.model='{trained / 'model.safetensors'}'", 'strategy="fed-eraser"')
    with pytest.raises(HistoryError, match="trained elsewhere"):
        launch.run(config, tmp_path / "run", observer=silent)
    wrong = few(f"start.model='{trained / 'model.safetensors'}'", "model.hidden=9")
    with pytest.raises(ConfigError, match="shape"):
        launch.run(wrong, tmp_path / "wrong", observer=silent)


def test_all_strategies_that_can_answer_do(tmp_path: Path) -> None:
    small_world = "rounds=2", "recovery_rounds=1", "data.clients=4", "data.limit=240"
    config = small(*small_world, 'requests=[{scope="class", classes=[7]}]')
    out = launch.compare(config, tmp_path / "run", strategies=("all",), observer=silent)
    rows = {row.strategy for row in read_results(out)[1]}
    refused = {entry.strategy: entry.reason for entry in read_details(out).refused}
    assert rows | set(refused) == {"original", *strategies()}
    assert {"retrain", "fine-tune", "fed-eraser", "no-t", "mo-de"} <= rows
    assert "scope" in refused["sifu"]
    assert "public" in refused["contribution-subtraction"]

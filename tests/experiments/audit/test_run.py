"""An audit from end to end: resumable, the same for any number of workers, zero for retraining."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.audit import crew as audit_crew
from experiments.audit.evaluation import evaluate
from experiments.audit.jobs import Job, Model
from experiments.audit.plan import DOSES, Plan, dose_request, has_doses, prepare, settled
from experiments.audit.results import Audit, read_audit
from experiments.audit.run import audit
from experiments.audit.store import TraceStore
from experiments.audit.traces import Tracer
from experiments.audit.usage import Usage
from experiments.audit.work import work
from experiments.cli import app
from experiments.federation.task import Scenario, task
from experiments.runs.progress import Tick
from tests.support.audits import RAW, config, stored
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.request import Forgotten

# One process for all tests of crews: workers are forked from a server that has to import much.
pytestmark = pytest.mark.xdist_group("crew")

SIZE = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("FEDUNLEARN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def ticks() -> list[Tick]:
    return []


@pytest.fixture(scope="module")
def whole(cache: Path, ticks: list[Tick], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audit the toy in this process; return the run folder."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return audit(config(), out, size=SIZE, workers=1, observer=ticks.append)


@pytest.fixture(scope="module")
def found(whole: Path) -> Audit:
    return read_audit(whole)


def same(one: Audit, other: Audit) -> bool:
    return (one.key, one.metrics, one.rows, one.roc) == (
        other.key,
        other.metrics,
        other.rows,
        other.roc,
    )


def test_every_model_is_made_once(found: Audit, cache: Path, ticks: list[Tick]) -> None:
    expected = SIZE * (4 + 2 + 2 + len(DOSES))  # no-t and three controls, two blocks, doses
    assert found.federations == expected == len(stored(cache))
    assert found.reused == 0
    assert ticks[-1].rounds_done == ticks[-1].rounds_total == expected
    done = [tick.rounds_done for tick in ticks if tick.phase == "train"]
    assert done == sorted(done)


def test_rows_hold_controls_and_strategies(found: Audit) -> None:
    rows = {row.strategy: row for row in found.rows}
    assert list(rows) == [
        *("original", "original-again", "retrain", "retrain-again", "fine-tune"),
        "no-t",
    ]
    assert {name for name, row in rows.items() if row.kind == "strategy"} == {"no-t"}
    assert rows["original"].guarantee == "none"
    assert rows["retrain"].guarantee == "exact"
    assert found.exploratory
    assert {curve.strategy for curve in found.roc} == set(rows)
    for row in found.rows:
        assert row.verdict is not None or row.why
        for metric, value in row.metrics.items():
            if metric in ("M1", "M2", "M3", "M6", "M8"):
                assert value.n == SIZE
                assert value.low is not None
                assert value.low <= value.value <= value.high  # type: ignore[operator]


def test_cards_come_with_reasons(found: Audit) -> None:
    cards = {metric.id: metric.card for metric in found.metrics}
    assert len(cards) == 18
    assert all(card.reason for card in cards.values() if not card.passes)
    assert "planted noise" in cards["M7"].reason
    levels = [level for level, _ in cards["M6"].dose]
    assert levels == [0.0, *map(float, DOSES), 100.0]


def test_what_is_there_is_not_made_again(
    found: Audit, whole: Path, cache: Path, tmp_path: Path
) -> None:
    before = stored(cache)
    times = {path: path.stat().st_mtime_ns for path in (cache / "audit").rglob("*.npz")}
    again = read_audit(audit(config(), whole, size=SIZE, workers=1, observer=lambda _: None))
    assert again.reused == again.federations
    assert same(again, found)
    other = audit(
        config(strategies=["no-t", "gradient-ascent"]),
        tmp_path / "more",
        size=SIZE,
        workers=1,
        observer=lambda _: None,
    )
    assert read_audit(other).reused == found.federations
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert stored(cache).items() > before.items()


def test_an_interruption_and_workers_change_nothing(
    found: Audit, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a job is there, one trace is damaged, the rest is done by two processes."""
    before, elsewhere = stored(cache), tmp_path / "cache"
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(elsewhere))
    prepared = prepare(config(), (), SIZE)
    first = prepared.jobs[0]
    work(prepared.config, prepared.names, Job(first.seed, first.models[1:3]))
    store = TraceStore()
    store.path(first.models[1][1]).write_bytes(b"cut off")
    there = audit(config(), tmp_path / "run", size=SIZE, workers=2, observer=lambda _: None)
    again = read_audit(there)
    assert again.reused == 1
    assert same(again, found)
    made = {name: raw for name, raw in before.items() if name in stored(elsewhere)}
    assert stored(elsewhere) == made
    assert again.peak_rss_bytes > 1e8  # the workers, too, hold PyTorch


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(
    found: Audit, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with a worker for every core, run again without any."""
    import tomli_w

    path, elsewhere = tmp_path / "toy.toml", tmp_path / "cache"
    path.write_text(tomli_w.dumps(RAW))
    main = "from experiments.cli import app; app()"
    words = ["audit", str(path), "--models", str(SIZE), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-c", main, *words]
    environment = {
        **os.environ,
        "FEDUNLEARN_CACHE": str(elsewhere),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while not stored(elsewhere):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(stored(elsewhere)) < found.federations
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(elsewhere))
    again = CliRunner().invoke(app, [*words, "--workers", "1"])
    assert again.exit_code == 0, again.output
    assert same(read_audit(tmp_path / "run"), found)
    before = stored(cache)
    assert {name: before[name] for name in stored(elsewhere)} == stored(elsewhere)


def test_a_worker_that_dies_is_said_in_words() -> None:
    dead = pytest.raises(FedUnlearnError, match="what was done is kept")
    with audit_crew.crew(2, Usage()) as staff, dead:
        staff.call("os:_exit", 1)


def test_workers_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forked from a server that an earlier crew started, perhaps with another one."""
    for place in ("one", "two"):
        monkeypatch.setenv("FEDUNLEARN_CACHE", place)
        with audit_crew.crew(2, Usage()) as staff:
            assert staff.call("os:getenv", "FEDUNLEARN_CACHE") == place


def test_doses_nest_and_leave_their_share() -> None:
    chosen = settled(config())
    made = task(Scenario.of(chosen))
    requests = chosen.domain_requests(made.marked_samples)
    total = len(made.client(1).train_y)
    gone = []
    for percent in DOSES:
        request = dose_request(made, requests, percent)
        assert set(request.samples) == {1}
        gone.append(set(request.samples[1]))
        assert len(gone[-1]) == total - round(percent / 100 * total)
        assert made.kept(1, Forgotten((request,))).sum() == total - len(gone[-1])
    assert gone[0] > gone[1] > gone[2]


def test_blocks_of_seeds_have_nothing_in_common() -> None:
    plan = Plan(settled(config()), ("no-t",), 4, "key")
    blocks = [set(block) for block in (plan.judged, plan.reference, plan.again)]
    assert len(set.union(*blocks)) == 12
    roles = {model.role for model in plan.models() if model.seed in blocks[1]}
    assert roles == {"original", "retrain"}
    there = {Model("original", seed): None for seed in plan.judged}
    jobs = plan.jobs(there)  # type: ignore[arg-type]
    assert all("original" not in job.strategies for job in jobs if job.seed in blocks[0])


SHORTCUT = {
    "data": {"clients": 4, "limit": 200},
    "rounds": 3,
    "marker": {"kind": "spurious", "label": 0, "size": 3, "value": 2.0, "fraction": 0.9},
    "requests": [{"scope": "feature", "features": ["marked"]}],
    "strategies": ["heavy-ball"],
}


def test_a_request_for_features_is_audited(cache: Path, tmp_path: Path) -> None:
    """The forget set are the owners' rows with the values, what stays are the rows without."""
    chosen = config(**SHORTCUT)
    found = read_audit(
        audit(chosen, tmp_path / "run", size=SIZE, workers=1, observer=lambda _: None)
    )
    assert found.scenario["scope"] == "feature"
    assert found.federations == SIZE * (4 + 2 + 2 + len(DOSES))
    rows = {row.strategy: row for row in found.rows}
    assert {"original", "retrain", "heavy-ball"} <= set(rows)
    assert rows["original"].metrics["M6"].value > rows["retrain"].metrics["M6"].value
    made = task(Scenario.of(settled(chosen)))
    requests = made.scheduled(chosen)
    probes = Tracer(made, requests, chosen.train).probes
    gone = list(requests[0].features)
    assert len(probes.forget.y) == sum(made.facts().clients.values())
    assert probes.marked.any()
    assert probes.forget.x.reshape(len(probes.forget.y), -1)[probes.marked][:, gone].all()
    assert not probes.retain.x.reshape(len(probes.retain.y), -1)[:, gone].any()


@pytest.mark.parametrize(
    ("asked", "by_owner"),
    [
        ({"features": list(range(9))}, True),
        ({"features": list(range(9)), "clients": [1]}, False),
        ({"features": [5], "clients": [1]}, None),
    ],
)
def test_doses_of_features_are_owners_or_features(
    asked: dict[str, object], by_owner: bool | None
) -> None:
    chosen = settled(config(**{**SHORTCUT, "requests": [{"scope": "feature", **asked}]}))
    made = task(Scenario.of(chosen))
    requests = made.scheduled(chosen)
    assert has_doses(made, requests) is (by_owner is not None)
    if by_owner is None:
        with pytest.raises(ConfigError, match="no dose can be made"):
            dose_request(made, requests, 50)
        return
    found = [dose_request(made, requests, percent) for percent in DOSES]
    gone = [set(one.clients if by_owner else one.features) for one in found]
    assert gone[0] >= gone[1] >= gone[2]
    assert len(gone[2]) == (2 if by_owner else 5)
    assert {len(one.features) for one in found} == ({9} if by_owner else {8, 7, 5})


def test_missing_controls_are_named(cache: Path, found: Audit) -> None:
    prepared = prepare(config(rounds=1), (), SIZE)
    with pytest.raises(FedUnlearnError, match=r"trace of original, seed 3, is missing"):
        evaluate(prepared)


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"requests": []}, 3, "nothing to audit"),
        (
            {"requests": [{"scope": "feature", "features": [1]}, *RAW["requests"]]},
            3,
            "features alone",
        ),
        ({"requests": [{"scope": "client", "clients": [1], "at_round": 1}]}, 3, "leave it out"),
        ({"stop": {"tolerance": 0.1}}, 3, "equal numbers of rounds"),
        ({}, 2, "--models is 2"),
        (
            {
                "data": {"name": "digit-pairs", "clients": 3},
                "model": {"name": "multi-task"},
                "marker": None,
            },
            3,
            "one task",
        ),
        ({"strategies": ["nothing"]}, 3, "nothing"),
    ],
)
def test_mistakes(
    changes: dict[str, object], size: int, words: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        audit(config(**changes), tmp_path / "run", size=size, workers=1, observer=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_strategy_that_cannot_answer_is_told(cache: Path, tmp_path: Path) -> None:
    out = audit(
        config(strategies=["tests.support.audits:Unable"]),
        tmp_path / "run",
        size=SIZE,
        workers=1,
        observer=lambda _: None,
    )
    found = read_audit(out)
    ((name, reason),) = ((entry["strategy"], entry["reason"]) for entry in found.refused)
    assert name == "tests.support.audits:Unable"
    assert "it cannot" in reason
    assert "audits" not in {row.strategy for row in found.rows}

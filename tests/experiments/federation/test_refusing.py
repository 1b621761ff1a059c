"""What a strategy refuses is refused before anything is written, or as the request comes in."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from experiments.api.calls import open_run
from experiments.config.loading import Config
from experiments.federation import launch
from experiments.runs.admission import admit, compose
from experiments.runs.folder import RunFolder
from experiments.runs.results import read_failed
from strategies.registry import strategies
from tests.support.small import small
from unlearning.errors import ConfigError, FedUnlearnError, UnsupportedRequestError

PAIRS = {
    "data": {"name": "digit-pairs", "clients": 3, "limit": 90},
    "model": {"name": "multi-task", "hidden": 8},
}


def run(settings: Config, out: Path) -> RunFolder:
    return RunFolder(launch.run(settings, out, observer=lambda tick: None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "forget-loss", **PAIRS}, "works on one label per example"),
        ({"strategy": "fed-recover", "history": {"interval": 2}}, r"history\.interval = 2 keeps"),
        ({"strategy": "no-t", "options": {"no-t": {"layers": "convl"}}}, "unknown layer 'convl'"),
        (
            {"strategy": "class-pruning", "options": {"class-pruning": {"layers": "conv9"}}},
            "unknown layer 'conv9'",
        ),
    ],
)
def test_a_run_that_could_answer_no_request_is_not_begun(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(FedUnlearnError, match=words):
        run(small(**changes, requests=[]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "asked", "served", "words"),
    [
        (
            {"strategy": "forget-loss", "options": {"forget-loss": {"kind": "scrub"}}},
            {"clients": [1]},
            {"clients": [1], "samples": [(0,)]},
            "a client that leaves keeps none",
        ),
        (
            {"strategy": "head-drop", **PAIRS},
            {"tasks": ["parity"], "clients": [1]},
            {"tasks": ["parity"]},
            "cannot forget a task at some clients",
        ),
        (
            {
                "strategy": "isolated-adapters",
                **PAIRS,
                "model": {**PAIRS["model"], "isolated": "parity"},
            },
            {"tasks": ["left"]},
            {"tasks": ["parity"]},
            "which has trained the trunk",
        ),
    ],
)
def test_a_request_is_refused_as_it_comes_in(
    tmp_path: Path,
    changes: dict[str, object],
    asked: dict[str, object],
    served: dict[str, object],
    words: str,
) -> None:
    folder = run(small(**changes, requests=[]), tmp_path / "run")
    with pytest.raises(UnsupportedRequestError, match=words):
        admit(folder, compose(**asked))  # type: ignore[arg-type]
    with folder.open_ledger() as ledger:
        assert ledger.requests() == []
    assert admit(folder, compose(**served, id="r"))  # type: ignore[arg-type]


def test_a_comparison_says_beforehand_which_strategies_do_not_fit(tmp_path: Path) -> None:
    single = sorted(
        alias
        for alias, cls in strategies().items()
        if not cls.several_tasks and "client" in cls.scopes
    )
    settings = small(**PAIRS, strategies=[single[0], "fed-recover"], history={"interval": 2})
    made = launch.compare(settings, tmp_path / "run", observer=lambda tick: None)
    failed = {row.strategy: row.failed for row in read_failed(made)}
    assert "works on one label per example" in failed[single[0]]
    assert "history.interval = 2" in failed["fed-recover"]
    with RunFolder(made).open_ledger() as ledger:
        branches = {event.branch.partition("/")[0] for event in ledger.events("config-1")}
    assert branches.isdisjoint(failed)


def test_a_strategy_that_was_changed_is_the_one_that_serves(tmp_path: Path) -> None:
    changes = {"strategy": "fed-recover", "requests": []}
    folder = run(small(**changes), tmp_path / "run")
    with pytest.raises(UnsupportedRequestError):
        admit(folder, compose(clients=[1], samples=[(0,)]))
    config = {**folder.read_config(), "strategy": "retrain"}
    folder.config.write_text(tomli_w.dumps(config))
    assert admit(folder, compose(clients=[1], samples=[(0,)], id="r"))
    with pytest.raises(ConfigError, match="--accept-change"):
        open_run(folder.path).resume()
    open_run(folder.path).resume(accept_change=True)
    with folder.open_ledger() as ledger:
        assert ledger.state("r") == "fulfilled"
        (started,) = [event for event in ledger.events("r") if event.event == "started"]
        assert started.facts["strategy"] == "Retrain"
    assert folder.read_federation().strategy == "retrain"
    assert "sample" in folder.read_federation().scopes

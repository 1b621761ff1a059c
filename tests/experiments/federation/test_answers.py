"""Every request is measured by itself, and said beside its state."""

from __future__ import annotations

from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.federation.answers import asks_for_marker
from experiments.federation.task import Scenario, task
from experiments.runs.details import read_details
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import overview
from unlearning.request import Request, Scope

CONFIG = {
    "rounds": 6,
    "recovery_rounds": 1,
    "strategy": "fine-tune",
    "data": {"clients": 3, "limit": 600},
    "model": {"hidden": 16},
    "train": {"local_epochs": 4},
    "marker": {"kind": "backdoor", "client": 1, "fraction": 0.3},
    "requests": [
        {"scope": "client", "clients": [1], "id": "leaves"},
        {"scope": "class", "classes": [7], "id": "class"},
    ],
    "engine": {"grid": "local"},
}


def test_a_comparison_tells_requests_apart(tmp_path):
    out = launch.compare(from_mapping(CONFIG), tmp_path / "run", observer=lambda tick: None)
    found = read_details(out).answers
    assert {(a.request, a.strategy) for a in found} == {
        (request, name)
        for request in ("leaves", "class")
        for name in ("original", "retrain", "fine-tune")
    }
    numbers = {(a.request, a.strategy): a for a in found}
    assert numbers["class", "original"].forget_accuracy > 0.9
    assert numbers["class", "retrain"].forget_accuracy == 0
    # The marker is the leaving client's: it tells nothing of the class.
    assert numbers["leaves", "original"].backdoor_success > 0.9
    assert numbers["class", "original"].backdoor_success is None
    told = {one.id: one for one in overview(RunFolder.open(out)).requests}
    assert told["class"].verdicts == {"fine-tune": "not forgotten"}
    assert told["leaves"].verdicts == {"fine-tune": "inconclusive"}  # one seed
    assert "measured: fine-tune not forgotten" in told["class"].line()


def test_a_run_that_still_answers_a_forgotten_class_says_so(tmp_path):
    config = from_mapping({**CONFIG, "requests": CONFIG["requests"][1:], "recovery_rounds": 0})
    out = launch.run(config, tmp_path / "run", observer=lambda tick: None)
    (told,) = overview(RunFolder.open(out)).requests
    assert told.states == {"": "fulfilled"}
    assert told.verdicts == {"fine-tune": "not forgotten"}
    assert told.remark == (
        "request class: forget class 7: fine-tune not forgotten; no weight was changed for it: "
        "what learning on without the data takes away is all"
    )


def test_a_request_asks_for_the_marker_if_nothing_of_it_stays():
    made = task(Scenario.of(from_mapping(CONFIG)))
    marked = made.marked(1)
    asked = {
        True: [
            [Request(Scope.CLIENT, clients=(1,))],
            [Request(Scope.SAMPLE, samples={1: marked})],
            [Request(Scope.SAMPLE, samples={1: marked[:3]}), Request(Scope.CLASS, classes=(0,))],
        ],
        False: [
            [],
            [Request(Scope.CLIENT, clients=(0,))],
            [Request(Scope.SAMPLE, samples={1: marked[:-1]})],
            [Request(Scope.CLASS, classes=(5,))],
        ],
    }
    for expected, cases in asked.items():
        for requests in cases:
            assert asks_for_marker(made, requests) is expected
    plain = task(Scenario.of(from_mapping({"data": {"clients": 3, "limit": 60}})))
    assert not asks_for_marker(plain, [Request(Scope.CLIENT, clients=(0,))])

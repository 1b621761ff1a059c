import pytest

from experiments.runs.folder import RunFolder
from experiments.runs.inspection import overview
from experiments.runs.risks import residual_risks
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

NONE = {"samples": 9, "copies": 0, "clients": [], "unanswered": []}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, []),
        ({"duplicates": NONE}, []),
        (
            {"duplicates": {**NONE, "copies": 4, "clients": [2, 5]}},
            ["4 of its 9 samples are held by client 2, 5 too, bit for bit"],
        ),
        ({"duplicates": {**NONE, "unanswered": [7]}}, ["client 7 did not say what it holds"]),
        ({"deletion": {"acknowledged": [1], "unacknowledged": []}}, []),
        (
            {"deletion": {"acknowledged": [], "unacknowledged": [1, 4]}},
            ["client 1, 4 did not confirm that its data are deleted"],
        ),
        ({"step": {"share": 0.005, "limit": 0.01}}, []),
        ({"step": {"share": 0.0612, "limit": 0.01}}, ["shortened from 0.0612 to 0.01"]),
    ],
)
def test_what_remains_at_risk_is_told(facts, words):
    found = residual_risks(facts)
    assert len(found) == len(words)
    assert all(word in risk for word, risk in zip(words, found, strict=True))


def test_the_status_tells_it(tmp_path):
    folder = RunFolder.claim(tmp_path, {"rounds": 1})
    with Ledger(folder.ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
        ledger.add("r", "started")
        ledger.add("r", "fulfilled", duplicates={**NONE, "copies": 4, "clients": [2]})
    (request,) = overview(folder).requests
    assert request.line() == (
        "request r: forget client 1: fulfilled; but 4 of its 9 samples are held by client 2 too, "
        "bit for bit: what they taught can stay, even after retraining"
    )


def test_what_one_strategy_leaves_open_is_said_of_it_alone(tmp_path):
    folder = RunFolder.claim(tmp_path, {"rounds": 1})
    with Ledger(folder.ledger) as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    open_ = {"unchanged": "it was done before", "deletion": {"examples": 3}}
    for name, facts in (("no-t", open_), ("fine-tune", open_), ("fed-eraser", {})):
        with Ledger(folder.ledger, branch=f"{name}/0") as ledger:
            ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
            ledger.add("r", "started")
            ledger.add("r", "fulfilled", guarantee="approximate", **facts)
    (request,) = overview(folder).requests
    assert request.risks == ("no-t: no weight was changed for it: it was done before",)

"""Every request by itself: state, verdict and risk, on the page and in the summary."""

import json
import re

import pytest

from experiments.reporting.report import render
from tests.support.reported import ASKED, Page, maker
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

CLASS = Request(Scope.CLASS, classes=(7,), at_round=2, id="wish-2", asked_by="bob")


@pytest.fixture
def make(tmp_path, monkeypatch):
    return maker(tmp_path, monkeypatch)


def asked(tmp_path):
    return json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["asked"]


def an_answer(request, strategy, seed, accuracy):
    shared = {"request": request.id, "strategy": strategy, "seed": seed, "examples": 100}
    return {**shared, "forget_accuracy": accuracy, "mia_auc": None, "backdoor_success": None}


def test_requests_stand_by_themselves(make, tmp_path):
    make(ledger=False)
    answers = [
        an_answer(request, name, seed, value)
        for seed in range(3)
        for name in ("original", "retrain", "fine-tune", "fed-eraser", "lazy")
        for request, value in ((ASKED, 0.25), (CLASS, 0.0 if name == "retrain" else 1.0))
    ]
    both = [{**one.to_json(), "text": one.describe()} for one in (ASKED, CLASS)]
    page = make(ledger=False, details={"requests": both, "answers": answers})
    first, second = asked(tmp_path)
    assert [fate["strategy"] for fate in first["fates"]] == ["fine-tune", "fed-eraser", "lazy"]
    assert {fate["verdict"] for fate in first["fates"]} == {"forgotten"}
    assert {fate["verdict"] for fate in second["fates"]} == {"not forgotten"}
    assert "Request by request" in page.text
    assert re.search("Forget class 7 ?bob, ?wish-2", page.text)
    assert "retrained 0.250" in page.text
    assert "a model that never saw the class would not answer it" in page.text


@pytest.mark.parametrize(
    ("event", "facts"), [("held", {"reason": "a class fell"}), ("failed", {"reason": "it broke"})]
)
def test_what_is_held_or_failed_is_not_answered(make, tmp_path, event, facts):
    make()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.on_branch("lazy/seed-0").add(ASKED.id, "started")
        ledger.on_branch("lazy/seed-0").add(ASKED.id, event, **facts)
        ledger.on_branch("fed-eraser/seed-0").add(ASKED.id, "fulfilled")
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    fates = {fate["strategy"]: fate for fate in asked(tmp_path)[0]["fates"]}
    assert (fates["lazy"]["state"], fates["lazy"]["verdict"]) == (event, "not measured")
    assert fates["lazy"]["reason"] == facts["reason"]
    assert fates["fed-eraser"]["state"] == "fulfilled"
    assert "Answered by fed-eraser, each" in page.text
    assert f"Not answered by lazy (client 3: {event})." in page.text


def test_an_owner_that_did_not_delete_is_told(make, tmp_path):
    make()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        silent = {"acknowledged": [], "unacknowledged": [3]}
        ledger.on_branch("fed-eraser/seed-0").add(ASKED.id, "fulfilled", deletion=silent)
    text = Page(render(tmp_path).read_text(encoding="utf-8")).text
    assert "Client 3 did not confirm that its data are deleted" in text


def test_pooled_numbers_of_an_earlier_version_say_nothing_of_each_request(make, tmp_path):
    both = [{**one.to_json(), "text": one.describe()} for one in (ASKED, CLASS)]
    make(ledger=False, details={"requests": both})
    fates = [fate for request in asked(tmp_path) for fate in request["fates"]]
    assert {fate["verdict"] for fate in fates} == {"not measured"}
    assert "pooled" in fates[0]["why"]


def test_a_run_that_retrains_answers_its_request(make, tmp_path):
    make(strategies=("original", "retrain"), ledger=False)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.receive(ASKED)
        ledger.add(ASKED.id, "started")
        ledger.add(ASKED.id, "fulfilled")
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    (fate,) = asked(tmp_path)[0]["fates"]
    assert (fate["strategy"], fate["state"]) == ("retrain", "fulfilled")
    assert "it is what others are measured against" in page.text
    assert "Not answered" not in page.text


def test_one_round_is_told_as_one(make):
    page = make(details={"rounds": {"learned": 2, "recovery": 1}})
    assert "followed by 1 round of recovery" in page.text

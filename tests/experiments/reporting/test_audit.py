"""The audit in the report: cards, verdicts and every measure, however much of it is there."""

import json

import pytest

from experiments.reporting.audit import audit
from experiments.reporting.report import render
from experiments.runs.record import ResultsError
from tests.support.reported import Page, an_audit, maker, write_audit


@pytest.fixture
def make(tmp_path, monkeypatch):
    return maker(tmp_path, monkeypatch)


@pytest.fixture
def page(make, tmp_path):
    make()
    write_audit(tmp_path)
    return Page(render(tmp_path).read_text(encoding="utf-8"))


def test_verdicts_say_what_they_rest_on_and_how_many_seeds_are_missing(page):
    assert "Audit, fed-eraser inconclusive: M3 lies across its margin; 9 more seeds" in page.text
    assert "fed-eraserapproximate" in page.text.replace(" ", "")


def test_a_failed_card_is_greyed_and_says_why(page):
    cards = [item for item in page.all("li") if item.get("class") == "failed"]
    assert len(cards) == 1
    why = "Fails, and decides nothing: original and retrained models cannot be told apart."
    assert why in page.text
    assert "Passes; the verdict rests on it." in page.text
    assert "1 of 2 measures that the audit tried decide nothing in this scenario" in page.text
    assert [table for table in page.all("table") if table.get("class") == "sortable failed"]


def test_every_measure_has_value_interval_calibrated_score_and_test(page):
    assert "fed-eraser0.5300.510to0.5500.0630.040notshown" in page.text.replace(" ", "")
    assert "0 %: 0.500, 25 %: 0.700, 100 %: 0.980" in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_folder_that_holds_an_audit_alone_is_told(tmp_path):
    write_audit(tmp_path)
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert "Validity cards" in page.text
    assert "96 federations, 16 models on every side" in page.text
    assert "Unlearning audit" in page.text
    assert "Scorecard" not in page.text
    assert "holds no ledger" not in page.text.partition("Ledger of requests")[0]


def test_an_audit_with_nothing_in_it_is_dashes(make, tmp_path):
    make()
    empty = {"metrics": [{"id": "M1"}], "rows": [{"strategy": "x", "metrics": {"M1": None}}]}
    (tmp_path / "audit.json").write_text(json.dumps(empty | {"roc": [{"strategy": "x"}]}))
    found = audit(tmp_path)
    assert found.picture is None
    assert not found.cards[0].passes
    assert found.rows[0].verdict.why == "no verdict was given"
    render(tmp_path)


def test_what_could_not_be_tried_has_not_failed(tmp_path):
    card = {"passes": False, "reason": "needs planted noise"}
    found = {"metrics": [{"id": "M7", "card": card}], "scenario": {"requests": ["client 3"]}}
    (tmp_path / "audit.json").write_text(json.dumps(found))
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert "Not applicable: needs planted noise." in page.text
    assert "Fails" not in page.text
    assert "Forgetting client 3" in page.text


def test_no_file_no_section_and_a_damaged_one_is_said(tmp_path):
    assert audit(tmp_path) is None
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(ResultsError, match=r"audit\.json cannot be read"):
        audit(tmp_path)
    (tmp_path / "audit.json").write_text("[]")
    with pytest.raises(ResultsError, match="holds no audit"):
        audit(tmp_path)


def test_the_band_of_chance_has_the_areas_it_stands_for(tmp_path):
    import numpy as np

    from experiments.reporting.audit import _band

    shares, low, high = _band(0.45, 0.6)
    assert np.trapezoid(low, shares) == pytest.approx(0.45, abs=0.002)
    assert np.trapezoid(high, shares) == pytest.approx(0.6, abs=0.002)
    assert _band(None, 0.6) is None


def test_tiny_probabilities_are_not_called_zero(tmp_path):
    found = an_audit()
    found["rows"][2]["metrics"]["M3"]["p_holm"] = 1e-9
    (tmp_path / "audit.json").write_text(json.dumps(found))
    cells = audit(tmp_path).metrics[0].lines[2][2]
    assert cells[2].text == "< 0.001"
    assert cells[2].value == 1e-9

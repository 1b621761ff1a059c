"""Who may be crowned: what closeness, power and intervals must not say."""

import json
import re

import pytest

from tests.support.reported import STRATEGIES, maker
from unlearning.request import Request, Scope


@pytest.fixture
def make(tmp_path, monkeypatch):
    return maker(tmp_path, monkeypatch)


@pytest.fixture
def strategies(monkeypatch):
    """Return a function that changes the numbers of a strategy."""

    def change(name, **numbers):
        fields = ("guarantee", "forget", "backdoor", "examples")
        given = dict(zip(fields, STRATEGIES[name], strict=True)) | numbers
        monkeypatch.setitem(STRATEGIES, name, tuple(given.values()))

    return change


def closest(page):
    return re.search(
        r"Closest to retraining: (.*?)\. ?(Left out: .*?\.)?(?: |$)", page.text
    ).group()


def test_the_nearest_is_named(make):
    assert "fed-eraser, with an average gap" in closest(make())


def test_a_row_that_is_retraining_is_not_closest_to_it(make, strategies):
    """A warm-up as long as learning trains as often as retraining does."""
    strategies("lazy", forget=0.25, backdoor=0.01, examples=500_000)
    found = closest(make())
    assert "fed-eraser, with" in found
    assert "lazy (took as much work as retraining)" in found


def test_one_that_failed_its_checks_is_not_closest(make, strategies):
    strategies("fed-eraser", backdoor=0.9, forget=0.25)
    strategies("lazy", backdoor=0.95, forget=0.9)
    found = closest(make())
    assert "nobody that forgot with less work than retraining" in found
    assert "fed-eraser (did not forget)" in found
    assert "lazy (did not forget)" in found


def test_a_marker_whose_owner_stays_has_no_power(make):
    other = Request(Scope.CLIENT, clients=(1,), at_round=2, id="wish-1")
    page = make(details={"requests": [{**other.to_json(), "text": other.describe()}]})
    assert "The marker has power" not in page.text
    assert "data that nobody asked to forget" in page.text
    assert "marker forgotten" not in page.text
    assert "nobody asked to forget the marked data" in page.text


def test_intervals_end_where_the_number_ends(make, tmp_path, strategies):
    """Backdoor success of 0, 0.001 and 0.002 about 0: the t interval would begin below 0."""
    strategies("retrain", backdoor=0.0)
    make()
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    cells = [
        c for line in found["scorecard"]["lines"] for c in line["cells"] if c["low"] is not None
    ]
    assert min(cell["low"] for cell in cells) == 0
    assert max(cell["high"] for cell in cells) <= 2**0.5


def test_the_page_names_what_ran_and_not_the_file(make, tmp_path):
    page = make()
    assert "Strategies that ran" in page.text
    assert re.search(r"Seeds that ran ?0, 1, 2", page.text)

"""The page over several runs, its small pictures, and the same content for other programs."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from experiments.families import sparks
from experiments.families.claims import Interval, judge
from experiments.families.files import as_csv, as_json, as_latex, claims_as_csv
from experiments.families.measures import MEASURES
from experiments.families.needs import NEEDS, candidates
from experiments.families.page import page
from experiments.families.reading import read_run
from experiments.families.surveys import CLAIMS
from experiments.families.tables import number, shown
from experiments.runs.table import DASH
from tests.support.browser import CHROMIUM, NO_CHROMIUM, browser
from tests.support.finished import a_run, write_run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed but not open, or open at the end."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.loads = [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        self.loads += [v for k, v in attrs if k in ("src", "href") and tag != "a"]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        read_run(write_run(root / name, partitioner=partitioner), name, margin=0.02)
        for name, partitioner in (("client-iid", "iid"), ("client-dirichlet", "dirichlet"))
    ]


@pytest.fixture(scope="module")
def judgements(runs):
    return [judge(claim, runs) for claim in CLAIMS]


@pytest.fixture(scope="module")
def html(runs, judgements):
    return page(runs, judgements, heading="All <of> them", margin=0.02, missing=["task-iid"])


def test_the_page_is_whole_and_asks_for_nothing(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert all(link.startswith("#") and link[1:] in parser.ids for link in parser.links)
    assert parser.loads == ["data:,"]
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_titles_are_escaped_and_limits_told(html):
    assert "All &lt;of&gt; them" in html
    assert "3 seeds are few" in html
    assert "not been run: task-iid" in html


def test_every_claim_stands_on_the_page_with_its_verdict(html, judgements):
    for found in judgements:
        assert found.claim.text.replace("'", "&#39;") in html
    assert html.count('<span class="verdict') == len(CLAIMS)


def test_a_model_that_was_not_back_is_said_to_be_so(tmp_path):
    run = read_run(write_run(tmp_path / "one"), "one", margin=-0.0)
    text = page([run], [], heading="x", margin=0.0)
    assert "not within 1" in text


def test_without_claims_there_are_no_claims_and_no_needs(runs):
    text = page(runs, [], heading="Two runs", margin=0.02)
    assert "What the surveys say" not in text
    assert 'id="needs"' not in text
    assert "fed-eraser" in text


def test_numbers_as_the_page_writes_them():
    assert number(None) == DASH
    assert number(-0.5) == "\N{MINUS SIGN}0.500"
    assert number(-0.0001) == "0.000"
    assert shown(Interval(0.5, 0.4, 0.6, 3), 1) == "0.5 [0.4, 0.6]"
    assert shown(Interval(0.5, None, None, 1), 1) == "0.5"
    assert shown(Interval(0.5, 0.499, 0.501, 3), 1) == "0.5"
    assert shown(Interval(0.5, 0.4, 0.6, 3), 1, sign=True) == "+0.5 [+0.4, +0.6]"


def test_retraining_is_the_measure_and_no_family_of_its_own(html):
    family = html[html.index('id="families"') : html.index('id="overview"')]
    assert "2.1 calibration of updates" in family
    assert "1.1 retraining" not in family


def test_a_family_is_the_mean_of_its_strategies_seed_by_seed():
    """Seed by seed 0.2, 0.3, 0.4; one of six was not back; the rest after 2 rounds."""
    run = a_run(
        numbers={
            "no-t": {
                "gap": [0.1, 0.2, 0.3],
                "budget": [5.0] * 3,
                "rounds_back": [2.0] * 2,
            },
            "mo-de": {"gap": [0.3, 0.4, 0.5], "budget": [5.0] * 3, "rounds_back": [2.0] * 3},
        }
    )
    text = page([run], [judge(CLAIMS[0], [run])], heading="x", margin=0.02)
    family = text[text.index('id="families"') : text.index('id="overview"')]
    assert "2.2 correction of gradients" in family
    assert "0.300" in family
    assert "in 1 of 6 not" in family
    assert "1.2 contribution removal" not in family


# --- pictures -------------------------------------------------------------------------------------


def test_a_course_is_drawn_from_the_model_before_to_its_end():
    """112 wide and 34 high with a border of 4: round 2 of 4 lies at 4 + 104 / 2 = 56."""
    svg = sparks.course(
        (1, 2), (0.0, 1.0), before=0.5, level=0.5, unlearned=1, longest=4, text="a <b>"
    )
    root = ET.fromstring(svg)
    line = root.find("polyline")
    assert line is not None
    assert line.get("points") == "4.0,17.0 30.0,30.0 56.0,4.0"
    assert root.get("aria-label") == "a <b>"
    low = root.find("circle[@class='s-low']")
    assert low is not None
    assert (low.get("cx"), low.get("cy")) == ("30.0", "30.0")


def test_a_strip_cuts_off_what_lies_beyond_its_scale():
    svg = sparks.strip(0.5, -1.0, 2.0, start=0.0, end=1.0, marks=(0.25,), text="x")
    root = ET.fromstring(svg)
    found = root.find("line[@class='s-range']")
    mark = root.find("line[@class='s-mark']")
    assert found is not None
    assert mark is not None
    assert (found.get("x1"), found.get("x2")) == ("4.0", "92.0")
    assert mark.get("x1") == "26.0"


def test_pictures_of_nothing_are_refused():
    with pytest.raises(ValueError, match="one of each"):
        sparks.course((), (), before=0.5, level=None, unlearned=0, longest=1, text="")
    with pytest.raises(ValueError, match="scale"):
        sparks.strip(0.5, None, None, start=1.0, end=1.0, text="")


# --- needs ----------------------------------------------------------------------------------------


def test_who_forgets_is_closer_than_fine_tuning_as_a_whole_interval():
    run = a_run(
        numbers={
            "fine-tune": {"gap": [0.2, 0.2, 0.2]},
            "no-t": {"gap": [0.1, 0.11, 0.12]},
            "mo-de": {"gap": [0.0, 0.1, 0.29]},
            "retrain": {"gap": [], "drop": [0.1, 0.1, 0.1]},
        }
    )
    found = {c.strategy: c for c in candidates([run], "client")}
    assert set(found) == {"no-t", "mo-de"}
    assert found["no-t"].forgets
    assert not found["mo-de"].forgets
    assert candidates([run], "class") == []


def test_a_marker_that_is_still_there_speaks_against_it():
    numbers = {
        "fine-tune": {"gap": [0.2, 0.2, 0.2]},
        "no-t": {"gap": [0.1, 0.1, 0.1], "marker_gap": [0.8, 0.81, 0.82]},
    }
    (found,) = candidates([a_run(numbers=numbers)], "client")
    assert not found.forgets
    (without,) = candidates([a_run(numbers=numbers, marker_before=())], "client")
    assert without.forgets


def test_what_is_only_suppressed_is_not_forgotten():
    run = a_run(numbers={"fine-tune": {"gap": [0.2, 0.2]}, "head-drop": {"gap": [0.1, 0.1]}})
    (found,) = candidates([run], "client")
    assert found.forgets
    hidden = tuple(replace(line, guarantee="suppressed") for line in run.lines)
    (found,) = candidates([replace(run, lines=hidden)], "client")
    assert not found.forgets


def test_one_seed_that_is_not_back_leaves_no_mean():
    numbers = {"no-t": {"gap": [0.1, 0.1], "budget": [5.0, 5.0], "rounds_back": [2.0]}}
    (found,) = candidates([a_run(numbers=numbers)], "client")
    assert found.rounds_back is None


def test_needs_read_what_strategies_declare(runs):
    by_name = {need.name: need for need in NEEDS}
    known = {c.strategy: c for c in candidates(runs, "client")}
    assert not by_name["Nothing was kept while learning"].keeps(known["fed-eraser"])
    assert by_name["The leaver is gone already"].keeps(known["fed-eraser"])
    assert not by_name["A promise, not a measurement"].keeps(known["fed-eraser"])


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_in_a_browser_it_renders_sorts_and_asks_for_nothing(html, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(html)
    order = '[...document.querySelectorAll("table.scores.sortable")[0].tBodies[0].rows]'
    names = f"{order}.map(row => row.cells[0].firstChild.textContent)"
    with browser(tmp_path) as shown:
        shown.open(path)
        given = shown.value(names)
        shown.value(
            'document.querySelectorAll("table.scores.sortable")[0]'
            '.querySelectorAll("thead button")[4].click()'
        )
        by_accuracy = shown.value(names)
        wide = shown.value("document.documentElement.scrollWidth - innerWidth")
        assert given == ["retrain", "fine-tune", "fed-recovery", "fed-eraser"]
        assert by_accuracy == ["fed-recovery", "fine-tune", "fed-eraser", "retrain"]
        assert wide <= 0
        assert shown.requests == [path.as_uri()]
        assert shown.complaints == []


# --- for other programs ---------------------------------------------------------------------------


def test_the_csv_has_a_line_per_scenario_strategy_and_seed(runs):
    lines = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert len(lines) == 2 * 5 * 3
    assert set(MEASURES) <= set(lines[0])
    (one,) = [
        line
        for line in lines
        if (line["scenario"], line["strategy"], line["seed"]) == ("client-iid", "fed-eraser", "1")
    ]
    assert float(one["share_examples"]) == 0.5
    assert one["family"] == "2.1"


def test_the_claims_have_a_line_per_part(judgements):
    lines = list(csv.DictReader(io.StringIO(claims_as_csv(judgements))))
    assert len(lines) == sum(len(claim.parts) for claim in CLAIMS)
    (part,) = [line for line in lines if line["claim"] == "learning on does not forget"]
    assert float(part["mean"]) == pytest.approx(0.59)
    assert (part["seeds"], part["verdict"], part["needs"]) == ("3", "confirmed", "above 0.1")


def test_the_json_holds_claims_needs_and_courses(runs, judgements):
    found = json.loads(as_json(runs, judgements, margin=0.02, missing=["task-iid"]))
    assert [claim["verdict"] for claim in found["claims"]] == [str(j.verdict) for j in judgements]
    assert found["missing"] == ["task-iid"]
    assert found["scenarios"][0]["courses"]["fed-eraser"]["rounds"] == [1, 2]
    assert found["scenarios"][0]["strategies"]["fed-eraser"]["share_examples"]["mean"] == 0.5


def test_the_latex_is_balanced_and_escaped(runs, judgements):
    odd = a_run(numbers={"no-t": {"gap": [0.1, 0.1]}}, asked="50 % of {a_b} & $c #1")
    assert r"50 \% of \{a\_b\} \& \$c \#1" in as_latex([odd], [])
    text = as_latex(runs, judgements)
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 3
    plain = re.sub(r"\\[%&_#${}]", "", text)
    assert plain.count("{") == plain.count("}")
    body = [line for line in text.splitlines() if line.startswith("fed-eraser")]
    assert len(body) == 2
    assert body[0].count("&") == 6

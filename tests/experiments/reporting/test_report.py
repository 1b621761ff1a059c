"""The report: one page without a connection, honest words, and dashes that explain themselves."""

from __future__ import annotations

import itertools
import re
import sqlite3
from base64 import b64encode
from hashlib import sha256
from xml.etree import ElementTree as ET

import pytest

from experiments.reporting import pictures, timeline
from experiments.reporting.report import render
from experiments.reporting.svg import inline
from experiments.runs.record import ResultsError
from experiments.runs.results import Row, write_results
from experiments.runs.table import DASH
from tests.support.reported import MINUS, Page, a_row, maker, points, texts
from unlearning.records.ledger import Ledger


@pytest.fixture
def make(tmp_path, monkeypatch):
    return maker(tmp_path, monkeypatch)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_is_small(make):
    page = make(draw=True)
    assert len(page.html) < 3_000_000
    for tag in ("iframe", "img", "object"):
        assert not page.all(tag)
    assert page.all("script") == [{}]  # its own, from no address
    assert [link["href"] for link in page.all("link")] == ["data:,"]  # no request for an icon
    assert not re.search(r"https?:|@import|@font-face|url\((?!#)", page.html)
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    script = page.html.partition("<script>")[2].partition("</script>")[0]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    local = [value[1:] for _, a in page.tags for k, value in a.items() if k.endswith("href")]
    local += re.findall(r"url\(#([^)]*)\)", page.html)
    assert {name for name in local if not name.startswith("ata:")} <= set(ids)


def test_the_page_can_be_read_aloud(make):
    page = make()
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) >= 5
    assert all(heading.get("scope") for heading in page.all("th"))
    pictures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(pictures) == len(page.all("svg")) == 5
    assert all(len(svg["aria-label"]) > 20 for svg in pictures)
    named = {value for _, attrs in page.tags for value in [attrs.get("aria-labelledby")] if value}
    assert named <= {attrs.get("id") for _, attrs in page.tags}


def test_what_users_wrote_is_shown_not_run(make):
    evil = "<script>alert(1)</script>"
    page = make(
        details={
            "command": evil,
            "refused": [{"strategy": evil, "reason": evil}],
            "requests": [{"text": evil}],
        }
    )
    assert page.all("script") == [{}]
    assert page.text.count(evil) >= 4


def test_headline_sentences_say_the_numbers_of_the_rows(make):
    text = make().text
    assert "Forgetting client 3" in text
    assert "10 clients learned digits for 2 rounds" in text
    assert "fed-eraser (approximate, marker forgotten): backdoor success 0.021 (+0.010" in text
    assert "200,000 examples processed in place of 500,000 for retraining" in text
    assert "a speed-up of 2.50" in text
    assert "Closest to retraining: fed-eraser" in text


def test_the_scorecard_shows_mean_interval_and_signed_gap(make):
    text = make().text
    # Forget accuracy of FedEraser 0.26, 0.27, 0.28: t(0.975, 2) = 4.3027, half width
    # 4.3027 * 0.01 / sqrt 3 = 0.0248; retrain's mean is 0.26.
    assert "0.2700.245 to 0.295+0.010" in text


def test_controls_come_first_and_are_set_apart(make):
    page = make(strategies=("lazy", "fine-tune", "fed-eraser", "original", "retrain"))
    table = page.html.partition('<table class="scores')[2].partition("</table>")[0]
    names = re.findall(r'<th scope="row">([\w-]+)', table)
    assert names == ["original", "retrain", "fine-tune", "lazy", "fed-eraser"]
    assert (
        table.partition('class="last-control"')[2].lstrip(">").split(">")[1].startswith("fine-tune")
    )


def test_costs_are_split_and_in_units(make):
    text = make().text
    assert re.search(r"fed-eraser ?unlearn ?1\.50 .*?150,000 ?2\.00", text)
    assert re.search(r"recover ?0\.500 .*?50,000 ?0\.500", text)
    assert re.search(r"total ?2\.00 .*?200,000 ?2\.50", text)


def test_guarantees_refusals_notes_and_the_way_to_repeat_are_told(make):
    text = make().text
    for words in (
        "This is not a deletion, and must not be called one.",
        "class-pruning",
        "serves class requests only",
        "lazy, seed 0: it slept",
        "lazy 0.400",
        "fedunlearn compare c.toml",
        "flwr 1.41.0",
        'name = "digits"',
    ):
        assert words in text


def test_rendering_twice_gives_the_same_bytes(make, tmp_path):
    first = make(draw=True).html
    assert render(tmp_path).read_text(encoding="utf-8") == first


# --- what limits the claims -----------------------------------------------------------------------


def test_a_strategy_no_better_than_fine_tuning_is_named(make):
    text = make().text
    assert "lazy is not better than fine-tuning alone" in text
    assert "fed-eraser is not" not in text
    assert "lazy (approximate, marker not forgotten)" in text


def test_a_marker_without_power_gives_no_verdict(make):
    text = make(before=0.55).text
    assert "The marker has no power: backdoor success of the original model is 0.55" in text
    assert "marker forgotten)" not in text
    assert "marker not forgotten)" not in text


def test_one_seed_is_called_one(make):
    text = make(seeds=(0,)).text
    assert "One seed is an observation, not a finding" in text
    assert "fed-eraser (approximate, marker inconclusive)" in text
    assert " ± " not in text.replace("mean ± standard deviation", "")
    assert "One seed is" not in make().text


def test_an_attack_without_power_is_said_to_tell_nothing(make):
    assert "membership attack tells nothing" not in make().text  # 0.51, null error 0.002
    weak = [{"strategy": "original", "seed": 0, "mia_null_se": 0.05}]
    assert "membership attack tells nothing" in make(details={"extra": weak}).text


def test_without_a_retrained_model_nothing_is_compared(make):
    page = make(strategies=("original", "fed-eraser"), details={"timeline": ()})
    assert "No retrained model" in page.text
    assert "marker forgotten)" not in page.text
    assert "Differences to retraining" not in page.text
    assert len(page.all("svg")) == 2  # the attack, and what changed


# --- what was not measured ------------------------------------------------------------------------


def test_every_dash_says_why(make):
    page = make(marker=False, details={"marker": None})
    dashes = [attrs for attrs in page.all("span") if attrs.get("class") == "none"]
    assert dashes
    assert all(attrs["title"] for attrs in dashes)
    assert "Backdoor success: no backdoor was planted in this run." in page.text
    assert "Speed-up by examples: the original model answered no request." in page.text
    assert "None" not in re.sub("None from training", "", page.text)
    assert "nan" not in page.text.lower().split()


def test_a_run_of_which_only_results_are_left_is_still_told(tmp_path):
    write_results(tmp_path, {}, [a_row("fed-eraser", 0)])
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert "holds no ledger" in page.text
    assert "Unlearning report" in page.html
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_row_without_any_number_is_dashes(tmp_path):
    write_results(tmp_path, {}, [Row("own:Class", 0, "client", "", {}, {})])
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert page.text.count(DASH) > 15


def test_an_unfinished_run_has_no_report(tmp_path):
    with pytest.raises(ResultsError, match=r"results\.json does not exist"):
        render(tmp_path)
    assert not list(tmp_path.iterdir())


# --- the ledger -----------------------------------------------------------------------------------


def test_events_are_shown_in_words(make):
    page = make()
    assert "the chain is sound" in page.text
    assert "forget client 3 serve after round 2 asked by ada" in page.text
    assert "options.interval 2" in page.text
    assert "cd" * 32 in [attrs.get("title") for attrs in page.all("code")]


def test_a_tampered_ledger_is_the_first_warning(make, tmp_path):
    make()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER never_changed")
        db.execute("UPDATE events SET facts = '{' WHERE seq = 2")
    db.close()
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert re.search(r"Read with care\s+The ledger cannot be trusted: .*seq 2", page.text)
    assert "chain is sound" not in page.text


def test_a_ledger_cut_off_at_its_end_is_told(make):
    page = make(details={"ledger_head": "ef" * 32})
    assert "The ledger cannot be trusted" in page.text


# --- the pictures ---------------------------------------------------------------------------------


def test_the_timeline_has_a_panel_per_strategy_and_text_that_is_text():
    svg = timeline.timeline(points(seeds=(0, 1)))
    found = texts(svg)
    for words in ("retrain", "fed-eraser", "test accuracy", "request served", "round"):
        assert words in found
    assert "original" not in found  # what it learned begins every panel
    assert timeline.timeline(points(seeds=(0, 1))) == svg


def test_curves_are_means_over_seeds_in_order_of_rounds():
    curve = timeline._mean_curves(reversed(points(seeds=(0, 2))), "test_accuracy")
    assert [at for at, *_ in curve] == [1, 2, 3, 4, 5]
    assert curve[0][1:] == pytest.approx((0.11, 0.1, 0.12))


def test_phases_meet_halfway_between_their_rounds():
    found = [point for point in points() if point.strategy != "retrain"]
    assert timeline._phases(found) == [
        ("learn", 1, 2.5),
        ("unlearn", 2.5, 4.5),
        ("recover", 4.5, 5),
    ]


def test_learning_alone_and_nothing_at_all_are_drawn_or_not():
    assert "original" in texts(timeline.timeline(points(strategies=("original",))))
    assert timeline.timeline([]) is None
    assert pictures.trade_off([], cost_label="s") is None


def test_a_name_that_would_run_out_of_the_trade_off_stands_left_of_its_point():
    long = "feature-sensitivity"
    trades = [pictures.Trade("a", 100, 0.1, 0.1, 0.1), pictures.Trade(long, 1000, 0.1, 0.1, 0.1)]
    svg = pictures.trade_off(trades, cost_label="examples")
    sides = {name: re.search(rf"text-anchor: (\w+)[^>]*>{name}<", svg) for name in ("a", long)}
    assert sides["a"] is None or sides["a"].group(1) == "start"
    assert sides[long] is not None
    assert sides[long].group(1) == "end"


def test_names_in_the_trade_off_do_not_cover_each_other():
    trades = [pictures.Trade(f"strategy-{i}", 100.0 + i, 0.1, 0.09, 0.11) for i in range(5)]
    trades.append(pictures.Trade("far", 1000.0, 0.1))
    svg = pictures.trade_off(trades, cost_label="examples", untouched=0.3)
    heights = {
        node.text: float(node.get("y"))
        for node in ET.fromstring(svg).iter()
        if node.tag.endswith("}text") and node.text.startswith(("strategy-", "far"))
    }
    near = sorted(height for name, height in heights.items() if name != "far")
    assert len(near) == 5
    assert min(high - low for low, high in itertools.pairwise(near)) >= 11
    assert heights["far"] == pytest.approx(max(near), abs=1)  # nothing in its way


def test_an_inline_picture_brings_no_style_and_no_address_into_the_page():
    svg = inline(timeline.timeline(points()), "x", "a picture")
    assert "<style" not in svg
    assert "http" not in svg
    assert "<metadata" not in svg
    assert "DejaVu" not in svg
    assert "var(--c-test, #0072b2)" in svg
    assert re.search(r'<svg role="img" aria-label="a picture"', svg)
    assert all(name.startswith("pic-x-") for name in re.findall(r'\bid="([^"]*)"', svg))


# --- how close to retraining ----------------------------------------------------------------------


def test_differences_are_told_beside_the_margin_declared_for_them(make):
    text = make().text
    # Backdoor success of both rises by 0.001 a seed: the difference to retraining is 0.01 at all.
    assert "+0.0100.010 to 0.010within the margin" in text
    # "lazy" forgets nothing: 0.9 against 0.25.
    assert "+0.6500.650 to 0.650beyond the margin" in text
    assert "undecided" not in re.sub("Within, beyond, undecided|Being undecided", "", text)
    assert "undecided" in make(seeds=(0,)).text


def test_the_attack_is_shown_with_the_band_of_finding_nothing(make):
    page = make(details={"extra": [{"strategy": "original", "seed": 0, "mia_null_se": 0.002}]})
    assert "40 members, 20 others" in page.text
    # AUC 0.51 at seed 0, 0.5 +- 1.96 * 0.002.
    assert re.search(r"original ?0\.510.*?0\.496 to 0\.504 ?0 of 1", page.text)


def test_who_loses_is_named_against_retraining(make):
    text = make().text
    # Client 0: 6 of 10 against 9 of 10; client 2: the same; the same at every seed.
    assert re.search(rf"fed-eraser ?0 ?{MINUS}0\.300 ?{MINUS}0\.300 to {MINUS}0\.300 ?0\.212", text)
    assert "test data" in text


def test_the_claim_is_told_for_every_strategy_with_what_was_seen(make):
    text = make().text
    assert re.search("fed-eraser ?approximate ?No proof: what is known", text)
    assert "Marker not forgotten. Unlike retraining: forget accuracy, backdoor success." in text
    assert "Within the margin of retraining:" in text


def test_what_the_guard_saw_adds_to_the_risk_of_that_strategy(make, tmp_path):
    make()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        branch = ledger.on_branch("fed-eraser/seed-0")
        copies = {"copies": 4, "samples": 9, "clients": [5], "unanswered": []}
        branch.add("wish-1", "fulfilled", duplicates=copies)
    text = Page(render(tmp_path).read_text(encoding="utf-8")).text
    risk = "4 of its 9 samples are held by client 5 too, bit for bit"
    assert text.count(risk) == 2  # of the request, and of the claim
    assert re.search(f"fed-eraser ?approximate .*{risk}.*lazy ?approximate", text)


def test_an_older_run_without_curves_and_counts_is_still_told(make):
    page = make(details={"rocs": (), "tallies": ()})
    assert len(page.all("svg")) == 3
    assert "Who gains, who loses" not in page.text
    assert "Membership attack" in page.text

"""The report in a real browser: it renders, asks for nothing, sorts by key, and prints whole."""

from __future__ import annotations

import json
import shutil

import pytest

from experiments.reporting.leaderboard import leaderboard
from experiments.reporting.report import render
from tests.support.browser import CHROMIUM, NO_CHROMIUM, browser
from tests.support.finished import write_run as write_finished
from tests.support.reported import task_measures, write_audit, write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]

ORDER = (
    '[...document.querySelectorAll("table.scores tbody th")].map(th => th.firstChild.data.trim())'
)
SORTED = '[...document.querySelectorAll("table.scores thead th")].map(th => th.ariaSort)'
LEFT = '[...document.querySelectorAll(".board {row}")].map(e => e.getBoundingClientRect().left)'
ENTER = ("Enter", 13)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, details={"task_measures": task_measures()})
    write_audit(folder)
    return render(folder)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    home = tmp_path_factory.mktemp("browser")
    with browser(home) as found:
        yield found
    shutil.rmtree(home, ignore_errors=True)


def asked_for(found):
    """Return the addresses a page asked for; what it carries in itself is not asked for."""
    return [address for address in found.requests if not address.startswith("data:")]


@pytest.fixture
def opened(shown, page):
    shown.requests.clear()
    shown.complaints.clear()
    shown.open(page)
    return shown


def test_it_renders_without_complaint_or_request(opened, page):
    assert opened.complaints == []
    assert asked_for(opened) == [page.absolute().as_uri()]
    size = "(e => e.getBoundingClientRect().height > 60)"
    assert opened.value(f'[...document.querySelectorAll("figure svg")].every({size})')
    assert opened.value('document.querySelectorAll("figure svg").length') == 6
    assert opened.value('document.querySelectorAll("section").length') >= 11


def test_a_page_that_asks_is_caught(shown, page, tmp_path):
    html = page.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(html.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    shown.requests.clear()
    shown.complaints.clear()
    shown.open(bad)
    assert shown.complaints  # the page's own policy forbids it
    assert "Content Security Policy" in shown.complaints[0]


def test_only_its_own_script_runs(shown, page, tmp_path):
    html = page.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(html.replace("</main>", "<script>window.stolen = 1</script></main>"))
    shown.open(bad)
    assert shown.value("window.stolen") is None


def test_tables_sort_by_key_and_give_their_order_back(opened):
    given = opened.value(ORDER)
    assert given == ["original", "retrain", "fine-tune", "fed-eraser", "lazy"]
    assert set(opened.value(SORTED)) == {None}
    # Forget accuracy is the third column; its heading is a button that the keyboard reaches.
    opened.value('document.querySelectorAll("table.scores thead button")[2].focus()')
    opened.press(*ENTER)
    assert opened.value(ORDER) == ["retrain", "fed-eraser", "fine-tune", "lazy", "original"]
    assert opened.value(SORTED)[2] == "ascending"
    opened.press(*ENTER)
    assert opened.value(ORDER) == ["original", "lazy", "fine-tune", "fed-eraser", "retrain"]
    assert opened.value(SORTED)[2] == "descending"
    opened.press(*ENTER)
    assert opened.value(ORDER) == given
    assert set(opened.value(SORTED)) == {None}
    assert opened.complaints == []


def test_every_sortable_table_sorts_every_column(opened):
    pressed = opened.value(
        '(() => { const all = [...document.querySelectorAll("table.sortable thead button")];'
        " all.forEach(button => { button.click(); button.click(); }); return all.length; })()"
    )
    assert pressed > 40
    assert opened.complaints == []


def test_what_was_not_measured_is_sorted_last_either_way(shown, tmp_path):
    write_run(tmp_path, marker=True)
    path = tmp_path / "results.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for row in found["rows"]:
        if row["strategy"] == "fed-eraser":
            row["metrics"]["mia_auc"] = None
    path.write_text(json.dumps(found), encoding="utf-8")
    shown.open(render(tmp_path))
    for _ in range(2):
        shown.value('document.querySelectorAll("table.scores thead button")[4].click()')
        assert shown.value(ORDER)[-1] == "fed-eraser"


def test_without_a_script_it_is_whole_and_has_nothing_that_would_do_nothing(opened):
    rows = 'document.querySelectorAll("tbody tr").length'
    buttons = 'document.querySelectorAll("button").length'
    with_script = opened.value(rows)
    assert opened.value(buttons) > 40
    opened.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.call("Page.reload")
        opened.wait("Page.loadEventFired")
        assert opened.value(buttons) == 0
        assert opened.value(rows) == with_script
        assert opened.value(ORDER)[0] == "original"
    finally:
        opened.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("dark", [False, True])
def test_the_narrow_page_does_not_run_over(shown, page, dark):
    shown.open(page, width=390, height=800, dark=dark)
    assert shown.value("document.documentElement.scrollWidth") <= 390


def test_the_whole_leaderboard_is_in_sight_on_a_phone(shown, tmp_path):
    board = tmp_path / "board.html"
    write_finished(tmp_path / "run")
    leaderboard([tmp_path / "run"], board)
    shown.open(board, width=390, height=800)
    beyond = (
        '[...document.querySelectorAll(".scroll, .board th, .board td")].filter('
        "one => one.scrollWidth > one.clientWidth).length"
    )
    assert shown.value(beyond) == 0
    heads = shown.value(LEFT.format(row="thead th"))
    cells = shown.value(LEFT.format(row="tbody tr:first-child > *"))
    assert len(heads) == 8
    assert heads == cells  # every number stands below its heading


def test_no_caption_is_cut_on_a_narrow_page(shown, page):
    """A table may be wider than the page and scroll; what it is must be read without scrolling."""
    shown.open(page, width=390, height=800)
    shown.value('document.querySelectorAll("details").forEach(one => { one.open = true; })')
    ends = shown.value(
        '[...document.querySelectorAll("caption > span")].map('
        "one => Math.ceil(one.getBoundingClientRect().right))"
    )
    assert len(ends) > 5
    # A scroll bar beside the page takes room of its own.
    assert max(ends) <= shown.value("document.documentElement.clientWidth")
    assert shown.value('document.querySelectorAll("caption").length') == len(ends)


def test_words_stand_out_from_their_ground(shown, page):
    """WCAG 2 asks for a contrast of 4.5 : 1; read off the colours in force, light and dark."""
    for dark in (False, True):
        shown.open(page, dark=dark)
        style = "getComputedStyle(document.documentElement)"
        colors = {
            name: shown.value(f'{style}.getPropertyValue("--{name}").trim()')
            for name in ("paper", "ink", "muted", "c-test", "c-retain", "c-forget")
        }
        ground = luminance(colors.pop("paper"))
        for name, color in colors.items():
            high, low = sorted((luminance(color), ground), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, dark)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_prints(opened, tmp_path):
    opened.printed(tmp_path / "page.pdf")
    opened.picture(tmp_path / "page.png")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.png").stat().st_size > 100_000

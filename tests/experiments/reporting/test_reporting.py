"""The same content as JSON and LaTeX, tasks, and the pictures of a report."""

import json
import re
import shutil
import subprocess
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from experiments.reporting import pictures
from experiments.reporting.latex import tables
from experiments.reporting.report import render
from experiments.runs.results import Row, write_results
from tests.support.reported import maker, task_measures, texts, write_audit


@pytest.fixture
def make(tmp_path, monkeypatch):
    return maker(tmp_path, monkeypatch)


@pytest.fixture
def page(make, tmp_path):
    write_audit(tmp_path)
    return make(details={"task_measures": task_measures()})


# --- JSON -----------------------------------------------------------------------------------------


def test_json_holds_every_number_of_the_page(page, tmp_path):
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    found = json.loads(text)
    shown = set(re.findall(r'data-sort="([^"]+)"', page.html))
    there = {str(value) for value in numbers(found)}
    assert len(shown) > 50
    assert shown <= there
    for words in ("title", "summary", "always", "command", "config"):
        assert " ".join(str(found[words]).split()) in page.text
    assert found["scorecard"]["lines"][3]["strategy"] == "fed-eraser"
    assert found["scorecard"]["lines"][3]["cells"][1]["value"] == pytest.approx(0.27)
    assert found["audit"]["rows"][2]["more_seeds"]["value"] == 9
    assert len(found["course"]) == 24
    assert "<svg" not in text


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


# --- LaTeX ----------------------------------------------------------------------------------------


def test_latex_has_booktabs_rules_numbers_and_their_intervals(page, tmp_path):
    tex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    # Scorecard of 8 columns, differences of 5, cost of 9: never more than four side by side.
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 2 + 2 + 3
    assert tex.count(r"\resizebox{\ifdim\width>\columnwidth\columnwidth") == 7
    labels = re.findall(r"\\label\{(.*?)\}", tex)
    assert len(set(labels)) == len(labels) == 7
    assert r"\hline" not in tex
    assert r"fed-eraser & approximate & $0.980$ & $0.270$" in tex
    assert r"{\scriptsize $[0.245, 0.295]$}" in tex
    assert "$200{,}000$" in tex
    assert "% fedunlearn compare c.toml" in tex
    # Nine columns are three times three, not four, four and one left over.
    assert re.findall(r"\\begin\{tabular\}\{l(r+)\}", tex)[-3:] == ["rrr"] * 3
    # Every line of a table has as many cells as it has columns.
    for made in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.DOTALL):
        lines = [line for line in made[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(made[0])}
    assert not re.search("[\N{MINUS SIGN}\N{EN DASH}]", tex)


def test_latex_escapes_what_users_named(tmp_path):
    evil = r"my_mod:A&B 5% #1 $x$ {y} \input ~ ^"
    rows = [Row(evil, seed, "client", "own_kind", {"test_accuracy": 0.5}, {}) for seed in (0, 1)]
    write_results(tmp_path, {}, rows)
    render(tmp_path)
    line = next(
        line
        for line in (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
        if line.startswith("my")
    )
    assert r"my\_mod:A\&B 5\% \#1 \$x\$ \{y\} \textbackslash " in line
    assert r"own\_kind" in line
    assert r"\input" not in line


def test_a_command_cannot_break_out_of_its_comment():
    from experiments.reporting.cost import Costs
    from experiments.reporting.scorecard import Scorecard

    tex = tables(Scorecard((), (), ()), None, Costs((), ()), seeds=1, command="a\nb \\evil")
    assert tex.startswith("% a b \\evil\n% \\usepackage{booktabs,graphicx}\n\\begin")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is missing: apt install texlive-latex-recommended texlive-fonts-recommended",
)
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_latex_compiles_and_fits_its_column(page, tmp_path, columns):
    lines = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    needs = next(line for line in lines if "usepackage" in line).removeprefix("% ")
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass[{columns}]{{article}}\n{needs}\n\\begin{{document}}\n"
        "\\input{table.tex}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_pictures_are_written_as_pdf_where_they_are_wanted(make, tmp_path):
    make(draw=True)
    folder = tmp_path / "made" / "figures"
    for _ in range(2):
        render(tmp_path, folder)
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert {"timeline.pdf", "differences.pdf", "trade-off.pdf"} <= set(found)
        assert all(raw.startswith(b"%PDF-") for raw in found.values())
        assert not any(b"/Type3" in raw or b"/CreationDate" in raw for raw in found.values())


# --- tasks ----------------------------------------------------------------------------------------


def test_measures_of_tasks_are_told_in_words(page):
    text = re.sub(r"\s", "", page.text)
    # 0.8, 0.81, 0.82: mean 0.81, half width 4.3027 * 0.01 / sqrt 3.
    assert "Accuracyofthetask'sownheadleft0.8100.785to0.8350.8100.785to0.835" in text
    assert "Accuracyoftheoriginal'sheadonthistrunkparity0.900" in text
    # The worst task differs over the seeds and is still one line.
    assert "Accuracyoftheworsttaskthatstaysseveral0.7000.700to0.700left,right" in text


def test_a_relearning_that_was_given_up_is_a_lower_bound(make):
    shared = {"measure": "relearn_rounds", "task": "parity"}
    found = [
        {**shared, "strategy": name, "seed": seed, "value": value}
        for name, values in (("original", (2, 4)), ("retrain", (11, 11)), ("lazy", (3, 11)))
        for seed, value in enumerate(values)
    ]
    rounds = {"learned": 2, "recovery": 1, "relearn": 10}
    text = make(details={"task_measures": found, "rounds": rounds}).text
    least = "\N{GREATER-THAN OR EQUAL TO}"
    assert re.search(rf"back ?parity ?3\.000 ?.*?15\.706 ?> 10 ?{least} 7\.000 ?—?", text)


def test_without_tasks_there_is_no_such_section(make):
    assert 'id="tasks"' not in make().html


# --- pictures -------------------------------------------------------------------------------------


def test_differences_are_drawn_with_margin_and_zero():
    gaps = {
        "Test accuracy": [
            pictures.Gap("far", -0.2, -0.3, -0.1),
            pictures.Gap("near", 0.0, -0.005, 0.005, control=True),
        ],
        "Nothing": [],
    }
    found = texts(pictures.differences(gaps, {"Test accuracy": 0.01}))
    assert {"far", "near", "Test accuracy", "margin declared before the run"} <= set(found)
    assert "Nothing" not in found
    assert pictures.differences({"Nothing": []}, {}) is None


def test_changes_are_written_into_their_cells_in_points():
    cells = np.array([[0.1, np.nan], [-0.02, 0.0]])
    change = pictures.Change("mine", cells, np.array([0.1, -0.01]), np.array([0.05, -0.004]))
    found = texts(pictures.change_map([change], ["0", "7"], ["3", "8"]))
    minus = "\N{MINUS SIGN}"
    assert {"+10", f"{minus}2", "0", "+5", f"{minus}1", "7", "8", "all", "test"} <= set(found)
    assert pictures.change_map([], ["0"], ["1"]) is None


def test_a_large_map_stays_small_and_legible():
    rng = np.random.default_rng(0)
    found = [
        pictures.Change(f"s{i}", rng.normal(size=(100, 20)), rng.normal(size=100), np.zeros(20))
        for i in range(6)
    ]
    svg = pictures.change_map(found, list(map(str, range(100))), list(map(str, range(20))))
    assert len(svg) < 200_000
    assert len(texts(svg)) < 500
    assert ET.fromstring(svg) is not None


def test_a_map_that_would_be_too_large_shows_the_clients_alone():
    change = pictures.Change("s", np.zeros((3, 1)), np.array([0.1, 0.2, -0.3]), np.zeros(100))
    found = texts(pictures.change_map([change], ["4", "5", "6"], ["all"]))
    assert {"4", "5", "6", "all", "+20"} <= set(found)
    assert "test" not in found


def test_a_map_of_many_numbers_leaves_them_to_the_json(make):
    clients, classes = range(60), range(30)
    rng = np.random.default_rng(0)

    def counts(name):
        total = rng.integers(1, 9, size=(60, 30))
        shared = {"strategy": name, "seed": 0, "clients": list(clients)}
        shared |= {"columns": list(map(str, classes)), "test_columns": list(map(str, classes))}
        shared |= {"correct": (total // 2).tolist(), "total": total.tolist()}
        return {**shared, "test_correct": [1] * 30, "test_total": [2] * 30}

    names = ("original", "retrain", "fed-eraser", "lazy")
    page = make(details={"tallies": [counts(name) for name in names]})
    assert "report.json holds every class" in page.text
    assert len(page.html) < 400_000


def test_paths_are_written_to_a_hundredth_of_a_point():
    gaps = {"Test accuracy": [pictures.Gap("a", 1 / 3, 1 / 7, 1 / 2), pictures.Gap("b", 0.123456)]}
    svg = pictures.differences(gaps, {"Test accuracy": 0.01})
    assert not re.search(r' d="[^"]*\.\d{3}', svg)
    ends = [float(x) for x in re.findall(r'd="M ([\d.]+) ', svg)]
    assert len(set(ends)) > 5


def test_requests_and_deletions_are_marked_where_they_happen():
    from experiments.reporting.timeline import _marks

    phases = [("learn", 1, 2.5), ("unlearn", 2.5, 4.5), ("recover", 4.5, 6.5)]
    assert _marks(phases) == ([2.5], [4.5])
    again = [*phases, ("unlearn", 6.5, 8.5), ("recover", 8.5, 9)]
    assert _marks(again) == ([2.5, 6.5], [4.5, 8.5])
    # Fine-tuning takes no round to unlearn: served and deleted at once.
    assert _marks([("learn", 1, 2.5), ("recover", 2.5, 4)]) == ([2.5], [2.5])
    assert _marks([("learn", 1, 3)]) == ([], [])

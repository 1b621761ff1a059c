"""The documentation: every key and strategy is told of, it builds without a warning, it runs."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from experiments.benchmarks.defaults import read, tallied
from experiments.benchmarks.rows import RESULTS
from experiments.config.schema import Config
from strategies.registry import strategies

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
MISSING = [name for name in ("sphinx", "furo", "myst_parser", "pybtex") if find_spec(name) is None]


def load():
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load()


@pytest.fixture(scope="module")
def pages():
    return dict(generate.strategy_pages())


def test_every_key_of_a_config_has_a_line_with_type_default_and_meaning():
    page = generate.config_page()
    bare = []
    for place, table, _ in generate.keys(Config):
        heading = f"[{place}]" if place else "At the top"
        assert heading in page
        for name, field in table.model_fields.items():
            assert f"| `{name}` |" in page
            if generate._inner(field.annotation) is None and not field.description:
                bare.append(f"{place}.{name}")
    assert bare == []
    assert "None" not in page


def test_every_strategy_has_a_page_with_its_facts_and_options(pages):
    assert pages.keys() == strategies().keys()
    for name, page in pages.items():
        assert f'strategy = "{name}"' in page
        assert "## References" in page
        assert ":class:" not in page
    assert "interval = 3" in pages["fed-eraser"]
    assert "- `interval` (int, default 3)\n  Distance between" in pages["fed-eraser"]


def test_a_page_says_how_often_by_what_and_how_far_the_goal_is_missed(pages):
    found = tallied(read(RESULTS / "defaults_all.csv"))
    for name in ("no-t", "sharded", "sifu"):
        told = f"Goal met in {found[name]['met']} of {found[name]['tried']} settings: "
        assert told in pages[name]
    far, (data, sharing, _) = found["no-t"]["worst"]["accuracy"]
    assert f"at worst {far:.3f} below retraining's ({data}, {sharing}, " in pages["no-t"]
    assert f", in {found['no-t']['accuracy']}" in pages["no-t"]
    assert f"for want of an answer in {found['sifu']['failed']}" in pages["sifu"]
    assert "it is retraining itself, at its cost" in pages["sharded"]


def test_every_paper_is_listed_once_and_each_page_leads_to_its_own(pages):
    keys = {re.match(r"@misc{(.+),", entry)[1] for entry in generate.papers().values()}
    assert len(keys) == len(generate.papers()) > 40
    cited = {}
    for name, page in pages.items():
        found = re.findall(r"{cite}`(.+?)`", page)
        cited[name] = {key for line in found for key in line.split(",")}
    assert set().union(*cited.values()) == keys
    assert len(cited["fed-eraser"]) == 1
    assert cited["fed-eraser"] <= cited["fed-accum"]  # one paper behind both, listed once
    assert [name for name, found in cited.items() if not found] == ["random-reset", "retrain"]


def test_every_public_name_and_command_is_told_of():
    import fedunlearn

    page = generate.python_page()
    assert all(f"## {name}\n" in page for name in fedunlearn.__all__)
    commands = generate.command_page()
    for name in ("compare", "request", "doctor", "kit make"):
        assert f"# fedunlearn {name}\n" in commands


def test_pages_link_only_to_what_is_there():
    known = {f"generated/strategies/{name}.md" for name in strategies()}
    known |= {f"generated/{name}.md" for name in ("config", "python", "commands", "strategies")}
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\(([\w/.-]+)\)", page.read_text(encoding="utf-8")):
            assert (DOCS / link).is_file() or link in known, f"{page.name}: {link}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(MISSING), reason="needs the documentation's tools: pip install '.[docs]'")
def test_it_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "generated" / "config.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    if "class " not in script.read_text(encoding="utf-8"):
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(script), run_name="__main__")
        assert capsys.readouterr().out
        return
    # Its class is looked for in the script that the process was started with.
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_path_of_ours_in_the_table_beside_other_libraries_is_there():
    root, missing = DOCS.parent, []
    for line in (DOCS / "ecosystem.md").read_text(encoding="utf-8").splitlines():
        for path in re.findall(r"`((?:strategies|experiments|unlearning|docs)/[^`]*)`", line):
            missing += [path] if not (root / path).exists() else []
    assert missing == []


def test_a_page_has_the_formula_when_to_use_it_and_the_cost_and_a_recent_one_what_was_read(
    pages,
):
    import tomllib

    told = tomllib.loads((DOCS / "methods.toml").read_text(encoding="utf-8"))
    assert told.keys() == strategies().keys()
    every, recent = {"equation", "use", "cost"}, {"read", "oracle"}
    for name, facts in told.items():
        assert facts["equation"].strip() in pages[name]
        assert f"## When to use it\n\n{facts['use']}" in pages[name]
        if "read" not in facts:
            assert facts.keys() == every
            continue
        assert facts.keys() == every | recent - ({"oracle"} if name == "random-reset" else set())
        assert "## Measured here" in pages[name]
        if name != "random-reset":
            assert "## Beside the paper" in pages[name]
    assert sum("read" in facts for facts in told.values()) >= 17


def test_sources_that_could_not_be_read_are_listed_in_one_place():
    page = generate._strategy_list(sorted(strategies()))
    section = page.partition("## Sources that could not be verified")[2].partition("```")[0]
    listed = set(re.findall(r"strategies/([a-z-]+)\.md", section))
    assert listed >= {
        "fats",
        "heavy-ball",
        "pruning-client",
        "sequences",
        "sharded",
        "transformation",
    }
    assert "memory-pruning" not in listed  # the authors' code was read


def test_who_rules_out_secure_aggregation_is_named_whole():
    page = (DOCS / "deployment.md").read_text()
    told = page.partition("## What secure aggregation would change")[2].partition("\n## ")[0]
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    single = {"updates", "contributions", "sensitivities", "attribution"}
    for name, kind in strategies().items():
        if kind.needs & single:
            assert any(f"`{name}`" in row for row in rows), name
    named = set(re.findall(r"`([a-z-]+)`", "\n".join(row.split("|")[1] for row in rows)))
    assert named <= strategies().keys(), "only strategies stand in the first column"

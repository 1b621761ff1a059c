"""What stands in two files must agree."""

import shutil
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from flwr.cli.build import get_filtered_fab_paths
from flwr.common.config import flatten_dict
from packaging.requirements import Requirement

from experiments.config.loading import from_run_config, load

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
APP = PROJECT["tool"]["flwr"]["app"]
OPTIONAL = PROJECT["project"]["optional-dependencies"]


TOP = {
    *(
        "clients",
        "docs",
        "experiments",
        "findings",
        "strategies",
        "tests",
        "unlearning",
        "fedunlearn.py",
    ),
    *("ARCHITECTURE.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"),
    *("SECURITY.md", "Makefile", "constraints.txt", "pyproject.toml"),
    *(".ci", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"),
}


def requirements():
    texts = PROJECT["project"]["dependencies"] + [
        text for group in OPTIONAL.values() for text in group
    ]
    return {Requirement(text).name: Requirement(text) for text in texts}


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_constraint_lies_within_its_range():
    wanted = requirements()
    outside = {
        name: version
        for name, version in constraints().items()
        if name in wanted and not wanted[name].specifier.contains(version)
    }
    assert outside == {}


def test_every_requirement_was_tried_in_a_version():
    assert requirements().keys() - constraints().keys() == set()


def test_flower_run_uses_the_settings_of_the_demo():
    given = from_run_config(flatten_dict(APP["config"])).to_dict()
    demo = load(ROOT / "experiments" / "configs" / "digits_client.toml").to_dict()
    del demo["strategies"], given["strategies"]  # of a comparison
    assert given == demo


def test_flower_finds_its_options_and_no_federations():
    # Flower rewrites a pyproject.toml that lists federations.
    assert "federations" not in PROJECT["tool"]["flwr"]
    assert {"config", "set", "out"} <= APP["config"].keys()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's
def test_every_file_of_the_packages_travels_with_the_app():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = [path for package in packages for path in (ROOT / package).rglob("*") if path.is_file()]
    recorded = ROOT / "experiments" / "results"  # what runs found: nothing reads it
    names = {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.parent.name != "__pycache__"
        and recorded not in path.parents
        and path.name != "py.typed"  # for type checkers, of which an app has none
    }
    beside = ["fedunlearn.py", "README.md", "LICENSE"]
    offered = dict.fromkeys([*names, *beside, "tests/support/toy.py", "Makefile"], b"")
    assert set(get_filtered_fab_paths(offered, PROJECT)) == {*names, *beside}


@pytest.mark.parametrize(
    "place", [PROJECT["project"]["scripts"]["fedunlearn"], *APP["components"].values()]
)
def test_what_the_project_names_is_there(place):
    module, _, name = place.partition(":")
    assert hasattr(import_module(module), name)


def test_the_module_that_is_imported_is_in_wheel_and_sdist_and_typed():
    targets = PROJECT["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["force-include"] == {"fedunlearn.py": "fedunlearn.py"}
    assert "/fedunlearn.py" in targets["sdist"]["include"]
    assert PROJECT["tool"]["mypy"]["modules"] == ["fedunlearn"]


def test_every_package_of_the_wheel_is_there_and_typed():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) == set(PROJECT["tool"]["mypy"]["packages"])
    assert all((ROOT / package / "__init__.py").is_file() for package in packages)


def test_the_changelog_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{PROJECT['project']['version']}]" in text


def test_ci_and_hooks_call_what_the_makefile_offers():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("help", "demo", "test", "lint", "bench"):
        assert f"\n{target}:" in makefile
    assert "lint test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert "entry: make lint" in hooks
    assert "entry: make test" in hooks


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None,
    reason="needs git and a checkout: git clone",
)
def test_no_run_folder_is_kept_under_version_control():
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    assert {name.split("/")[0] for name in tracked if name} <= TOP
    assert [name for name in tracked if name.endswith("ledger.key")] == []

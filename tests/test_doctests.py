"""The examples of the documentation work, wherever one stands."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a user calls from Python shows how.
SHOWN = {
    "fedunlearn",
    "experiments.api.calls",
    "experiments.data.partition",
    "unlearning.arrays",
    "unlearning.evaluation.metrics",
    "unlearning.evaluation.statistics",
    "unlearning.records.history",
    "unlearning.request",
}


def with_examples():
    """Return the modules in whose text a prompt stands, without importing any."""
    packages = ("unlearning", "strategies", "clients", "experiments")
    files = [
        ROOT / "fedunlearn.py",
        *(path for name in packages for path in (ROOT / name).rglob("*.py")),
    ]
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files
        if "\n>>> " in path.read_text(encoding="utf-8").replace(" " * 4, "")
    )


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module_work(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # runs without a name are made here, and named by the second
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert found.failed == 0  # what went wrong stands in the output above


def test_what_a_user_calls_from_python_has_examples():
    assert set(with_examples()) >= SHOWN

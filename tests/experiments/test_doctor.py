"""The doctor: what is looked at, and what is said of a clash of names."""

import signal
import subprocess

import pytest

from experiments import doctor
from experiments.federation import cluster
from tests.support.deployed import eventually


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Return a folder with a package of the same name as one of ours."""
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "__init__.py").write_text("")
    return tmp_path


def test_everything_is_looked_at_and_told_in_a_line_each():
    found = doctor.examine(start_ray=False)
    names = ["Python", "packages", "names", "Flower", "GPU", "Ray", "disk"]
    assert [check.name for check in found][:7] == names
    assert all(check.state == "good" or check.remedy for check in found)
    assert all("\n" not in check.line() for check in found)
    assert found[0].to_json()["state"] == "good"


def test_another_package_of_the_same_name_is_found(other, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", [str(other), *sys.path])
    check = doctor._names()
    assert check.state == "bad"
    assert str(other / "strategies") in check.found
    monkeypatch.setattr(sys, "path", [*sys.path[1:], str(other)])
    check = doctor._names()
    assert check.state == "odd"
    assert "is hidden by this package's" in check.found


def test_places_are_those_that_python_would_import(other):
    assert doctor.places("strategies", [str(other)]) == [other / "strategies"]
    (other / "fedunlearn").write_text("")  # a script
    assert doctor.places("fedunlearn", [str(other)]) == []
    (other / "clients").mkdir()
    assert doctor.places("clients", [str(other)]) == []  # no module lies in it


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy<1", "no-such-thing>=2"])
    check = doctor._packages()
    assert check.state == "bad"
    assert "numpy" in check.found
    assert "no-such-thing is missing" in check.found


@pytest.mark.timeout(600)
def test_a_ray_that_never_answers_is_told_and_ended(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    note = tmp_path / "began"
    (tmp_path / "ray" / "__init__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(note)!r}).write_text('')\n"
        "def init(**settings):\n    time.sleep(1000)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asked = []

    class Late(subprocess.Popen):
        """Let the time limit run from where the process hangs, however long its imports take."""

        def communicate(self, input=None, timeout=None):
            asked.append(self)
            eventually(lambda: note.exists() or self.poll() is not None, 500)
            return super().communicate(input, timeout)

    monkeypatch.setattr(subprocess, "Popen", Late)
    assert cluster.why_not(limit_s=1) == "does not start within 1 s"
    assert note.exists()
    assert asked[0].returncode == -signal.SIGKILL


def test_a_ray_that_falls_over_is_told_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise OSError('no such memory')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cluster.why_not() == "does not start (OSError: no such memory)"

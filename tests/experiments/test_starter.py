"""What ``fedunlearn new`` writes: it works as it is, and nothing is overwritten."""

import sys

import pytest

from experiments.starter import begin
from tests.support.forked import ended, forked
from unlearning.errors import ConfigError


@pytest.mark.slow
def test_its_test_passes_with_nothing_but_pytest(tmp_path, monkeypatch):
    begin("my-strategy", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def runs():
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "."]))

    code = ended(forked(runs, said := tmp_path / "said"))
    assert "3 passed" in said.read_text(), said.read_text()
    assert code == 0


def test_three_files_are_written_that_name_each_other(tmp_path):
    paths = begin("forget_fast", tmp_path)
    names = [path.name for path in paths]
    assert names == ["forget_fast.py", "forget_fast.toml", "test_forget_fast.py"]
    assert "class ForgetFast(UnlearningStrategy)" in paths[0].read_text()
    assert 'strategy = "forget_fast:ForgetFast"' in paths[1].read_text()
    assert "from forget_fast import ForgetFast" in paths[2].read_text()
    assert not any("$" in path.read_text() for path in paths)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My", "small letters"),
        ("2nd", "small letters"),
        ("class", "small letters"),
        ("a b", "small letters"),
        ("json", "is installed"),
        ("strategies", "is installed"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        begin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "test_mine.py").write_text("kept")
    with pytest.raises(ConfigError, match="is there already"):
        begin("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    with pytest.raises(ConfigError, match="does not exist"):
        begin("mine", tmp_path / "nowhere")

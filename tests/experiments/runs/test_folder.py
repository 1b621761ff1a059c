import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.runs.folder import FederationFacts, RunFolder, default_out, differences
from unlearning.errors import ConfigError

CONFIG = {"seed": 0, "rounds": 20, "data": {"name": "digits", "root": None}, "requests": []}


def silent(tick):
    pass


def test_a_claimed_folder_holds_the_config_without_empty_settings(tmp_path):
    folder = RunFolder.claim(tmp_path / "a" / "b", CONFIG)
    assert tomllib.loads(folder.config.read_text()) == {
        "seed": 0,
        "rounds": 20,
        "data": {"name": "digits"},
        "requests": [],
    }
    assert folder.read_config()["rounds"] == 20
    assert RunFolder.open(tmp_path / "a" / "b").path == folder.path


def test_an_empty_folder_can_be_claimed(tmp_path):
    assert RunFolder.claim(tmp_path, CONFIG).config.is_file()


def test_a_folder_of_another_config_is_refused_and_the_difference_named(tmp_path):
    folder = RunFolder.claim(tmp_path, CONFIG)
    before = folder.config.read_bytes()
    other = {**CONFIG, "rounds": 30, "data": {"name": "mnist"}}
    with pytest.raises(ConfigError) as caught:
        RunFolder.claim(tmp_path, other)
    words = str(caught.value)
    assert "rounds is 20 there, 30 here" in words
    assert "data.name is 'digits' there, 'mnist' here" in words
    assert "--out" in words
    assert folder.config.read_bytes() == before
    assert list(tmp_path.iterdir()) == [folder.config]


def test_many_differences_are_counted(tmp_path):
    RunFolder.claim(tmp_path, {})
    with pytest.raises(ConfigError, match="and 2 more"):
        RunFolder.claim(tmp_path, dict.fromkeys("abcde", 1))


def test_a_folder_of_the_same_run_is_refused_with_its_state(tmp_path):
    folder = RunFolder.claim(tmp_path, CONFIG)
    with folder.tracked(silent), pytest.raises(ConfigError, match="in use by process"):
        RunFolder.claim(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match=r"holds this run already \(finished\); give another"):
        RunFolder.claim(tmp_path, CONFIG)
    with pytest.raises(ZeroDivisionError), folder.tracked(silent):
        raise ZeroDivisionError
    with pytest.raises(ConfigError, match=r"\(failed\); `fedunlearn resume .*` goes on with it"):
        RunFolder.claim(tmp_path, CONFIG)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and is no run folder"):
        RunFolder.claim(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file exists already"):
        RunFolder.claim(tmp_path / "file", CONFIG)
    with pytest.raises(ConfigError, match="cannot be made a run folder"):
        RunFolder.claim(tmp_path / "file" / "below", CONFIG)


def test_what_is_no_run_folder_is_not_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.toml is missing"):
        RunFolder.open(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")


def test_the_federation_comes_back_as_written(tmp_path):
    folder = RunFolder.claim(tmp_path, CONFIG)
    facts = FederationFacts(
        {0: 12, 3: 9},
        (0, 1, 2),
        ("a",),
        "compare",
        (0, 1),
        "fed-eraser",
        ("client",),
        {"a": (0, 3)},
    )
    folder.write_federation(facts)
    assert folder.read_federation() == facts
    assert json.loads(folder.federation.read_text())["clients"] == {"0": 12, "3": 9}


def test_classes_may_be_told_by_their_number():
    facts = FederationFacts.from_json({"clients": {"0": 5}, "classes": 3})
    assert facts.classes == (0, 1, 2)


def test_a_federation_that_is_not_there_yet_or_damaged_is_said_so(tmp_path):
    folder = RunFolder.claim(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="does not know its clients yet"):
        folder.read_federation()
    damaged = (
        "{",
        "{}",
        '{"clients": [1]}',
        '{"clients": {"x": 1}}',
        '{"clients": {}, "holders": 1}',
    )
    for text in damaged:
        folder.federation.write_text(text)
        with pytest.raises(ConfigError, match="is damaged"):
            folder.read_federation()


def test_the_default_folder_tells_config_and_time():
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert default_out(Path("x/digits_client.toml"), moment) == Path(
        "runs/digits_client-20310506T070809Z"
    )


def test_equal_configs_do_not_differ():
    assert differences({"a": {"b": [1]}}, {"a": {"b": [1]}}) == []
    assert differences({"a": 1}, {}) == ["a is 1 there, nothing here"]


def test_a_long_value_is_cut():
    (words,) = differences({"a": "x" * 500}, {"a": 1})
    assert words.startswith("a is 'xxx")
    assert len(words) < 100

"""Settings from Python: what is merged, what is turned into text, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedunlearn
from experiments.api.settings import as_overrides, call, chosen, numbers, spec, words
from experiments.config.loading import load, to_toml
from strategies.local_model.no_t import NoT

CLIENT_3 = {"scope": "client", "clients": [3]}
ASKED = {"requests": [CLIENT_3]}


def read_data():
    """Stand for a data set of one's own."""


def test_a_mapping_a_file_and_a_config_are_one(tmp_path):
    values = {"rounds": 3, "data": {"clients": 4}, "requests": [CLIENT_3]}
    config = fedunlearn.load_config(values)
    path = tmp_path / "a.toml"
    path.write_text(to_toml(config))
    assert fedunlearn.load_config(path) == fedunlearn.load_config(str(path)) == config
    assert fedunlearn.load_config(config) == config
    assert values == {"rounds": 3, "data": {"clients": 4}, "requests": [CLIENT_3]}


def test_a_shipped_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fedunlearn.load_config("experiments/configs/digits_client.toml").data.clients == 10


def test_nothing_given_is_the_defaults():
    assert fedunlearn.load_config() == fedunlearn.load_config({})


@pytest.mark.parametrize(
    "overrides",
    [
        {"train": {"momentum": 0.9}},
        {"train__momentum": 0.9},
        {"train.momentum": 0.9},
        {"train": {"momentum": np.float64(0.9)}},
    ],
)
def test_overrides_are_merged_however_they_are_written(overrides):
    config = fedunlearn.load_config({"train": {"local_epochs": 2}}, **overrides)
    assert (config.train.local_epochs, config.train.momentum) == (2, 0.9)


def test_none_removes_a_key():
    values = {"marker": {"kind": "backdoor", "client": 3}, "rounds": 3}
    assert fedunlearn.load_config(values, marker=None, rounds=None).marker is None
    assert fedunlearn.load_config(values, rounds=None).rounds == 20


def test_python_values_become_plain_ones():
    config = fedunlearn.load_config(
        {"data": {"root": Path("here"), "name": read_data}}, requests=[CLIENT_3], strategies=(NoT,)
    )
    assert config.data.root == "here"
    assert config.data.name == f"{__name__}:read_data"
    assert config.strategies == ("strategies.local_model.no_t:NoT",)
    assert config.requests[0].clients == (3,)


def test_options_of_a_class_stand_under_its_name():
    config = fedunlearn.load_config(options={"my.module:Mine": {"rate": 0.5}})
    assert config.options_for("my.module:Mine") == {"rate": 0.5}
    assert load_options('options."my.module:Mine".rate=0.5') == config.options


def load_options(override):
    return load("experiments/configs/digits_client.toml", ["options=", override]).options


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
PLAIN = st.recursive(
    TEXT
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN)
def test_every_plain_value_goes_through_the_overrides_unchanged(value):
    config = fedunlearn.load_config(options={"mine": {"value": [value]}})
    assert config.options == {"mine": {"value": [value]}}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: fedunlearn.load_config(3), "config is 3, expected a mapping"),
        (lambda: fedunlearn.load_config("no.toml"), "does not exist"),
        (lambda: fedunlearn.load_config(round=3), "did you mean 'rounds'"),
        (lambda: fedunlearn.load_config(options={"x": object()}), "cannot stand in a config"),
        (lambda: fedunlearn.load_config(data={"name": lambda: 1}), "has no name"),
        (lambda: chosen([3]), "has no name"),
        (lambda: numbers([1, -1]), "seeds hold -1"),
        (lambda: numbers([True]), "seeds hold True"),
        (lambda: numbers([]), "seeds are empty"),
        (lambda: fedunlearn.list_strategies("user"), "unknown scope 'user'"),
    ],
)
def test_a_mistake_is_one_line(wrong, words):
    with pytest.raises(fedunlearn.ConfigError) as caught:
        wrong()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strategies_are_named_in_every_way():
    own = "strategies.local_model.no_t:NoT"
    assert chosen(None) == (None, {})
    assert chosen("a, b") == (("a", "b"), {})
    assert chosen(NoT) == ((own,), {})
    assert chosen(["a", NoT]) == (("a", own), {})
    assert chosen({"a": {"x": 1}, NoT: {}}) == (("a", own), {"a": {"x": 1}})


def test_seeds_are_one_or_several():
    assert numbers(3) == (3,)
    assert numbers(range(2)) == (0, 1)
    assert numbers(np.arange(2)) == (0, 1)
    assert numbers(None) is None


def test_a_call_is_told_as_it_was_written():
    told = call("compare", Path("a.toml"), strategies={NoT: {}}, seeds=None, rounds=3)
    assert told == "fedunlearn.compare('a.toml', strategies={NoT: {}}, rounds=3)"


def test_small_helpers():
    assert words("a, ,b") == words(["a", "b"]) == ("a", "b")
    assert spec(NoT) == "strategies.local_model.no_t:NoT"
    assert as_overrides({"a": {}, "b": None}) == ["a={}", "b="]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: fedunlearn.run({}, idle_s="x"), "idle_s is 'x'; give seconds"),
        (lambda: fedunlearn.run({}, idle_s=-1), "idle_s is -1; give seconds"),
        (lambda: fedunlearn.run({}, idle_s=float("nan")), "idle_s is nan; give seconds"),
        (lambda: fedunlearn.run({}, out=3), "out is 3; give a path"),
        (lambda: fedunlearn.compare(ASKED, out=""), "out is ''; give a path"),
        (lambda: fedunlearn.audit(ASKED, models=2.5), "models is 2.5; give a whole number"),
        (lambda: fedunlearn.audit(ASKED, workers=0), "workers is 0; give a whole number"),
        (lambda: fedunlearn.audit(ASKED, workers=True), "workers is True; give a whole number"),
        (lambda: fedunlearn.families(3), "plan is 3; give a path"),
        (lambda: fedunlearn.families(runs=[None]), "runs is None; give a path"),
        (lambda: fedunlearn.open_run(None), "folder is None; give a path"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_one_clear_line(asked, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fedunlearn.ConfigError, match=words) as found:
        asked()
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())  # nothing is left behind

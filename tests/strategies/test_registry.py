import sys

import numpy as np
import pytest

from experiments.config import registry
from strategies import discovery
from strategies.base import UnlearningStrategy
from strategies.global_model.fine_tune import FineTune
from strategies.registry import who_serves
from unlearning.errors import ConfigError
from unlearning.request import Scope


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Put a module with strategies of one's own into the working directory."""
    (tmp_path / "my_forgetting.py").write_text(
        "from strategies.base import UnlearningStrategy\n"
        "class Mine(UnlearningStrategy):\n"
        "    def __init__(self, *, strength=1.0):\n"
        "        super().__init__()\n"
        "        if strength < 0:\n"
        "            raise ValueError(f'strength is {strength}, expected 0 or more')\n"
        "        self.strength = strength\n"
        "    def prepare(self, request, history, arrays):\n"
        "        return arrays, 0\n"
        "class Half(UnlearningStrategy):\n"
        "    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_forgetting", None)


def test_strategies_are_found_under_the_names_of_their_modules():
    found = registry.strategies()
    assert found["fine-tune"] is FineTune
    assert {"retrain", "fed-eraser", "gradient-ascent"} <= set(found)
    assert UnlearningStrategy not in found.values()
    assert list(found) == sorted(found)


def test_a_strategy_is_named_by_alias_or_by_place():
    assert registry.resolve("fine-tune") is FineTune
    assert registry.resolve("strategies.global_model.fine_tune:FineTune") is FineTune


def test_a_strategy_of_ones_own_lies_in_the_working_directory(own):
    made = registry.make("my_forgetting:Mine", {"strength": 2.0})
    assert made.strength == 2.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fed-erasr", "unknown strategy 'fed-erasr'; did you mean 'fed-eraser'"),
        ("nowhere_at_all:X", "cannot import 'nowhere_at_all'"),
        ("strategies.global_model.fine_tune:FineTuna", "'FineTuna'; did you mean 'FineTune'"),
        ("json:JSONDecoder", "unknown strategy class|is no subclass"),
        ("strategies.base:UnlearningStrategy", "defines no 'prepare'"),
    ],
)
def test_a_name_that_is_no_strategy_is_refused_in_words(name, words):
    with pytest.raises(ConfigError, match=words):
        registry.resolve(name)


def test_a_strategy_without_an_answer_is_refused(own):
    with pytest.raises(ConfigError, match="does not say how it unlearns"):
        registry.resolve("my_forgetting:Half")


def test_an_unknown_option_is_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match=r"'intervall'; did you mean 'interval'.*ratio"):
        registry.make("fed-eraser", {"intervall": 2})


def test_a_value_that_the_strategy_refuses_is_a_mistake_of_the_config(own):
    with pytest.raises(ConfigError, match=r"options of strategy .*strength is -1"):
        registry.make("my_forgetting:Mine", {"strength": -1})


@pytest.mark.parametrize(
    ("kind", "words", "wrong"),
    [
        (bool, "true or false", (1, 0.0, "false", None)),
        (int, "a whole number", (2.5, True, "2", None, [2])),
        (float, "a number", (False, "0.1", None, [0.1])),
        (str, "text, in quotes", (3, True, None, ["head"])),
    ],
)
def test_a_value_of_another_kind_is_refused_whatever_the_option(kind, words, wrong):
    """A text would count as true, and half a round would be found out much later."""
    tried = 0
    for name, cls in registry.strategies().items():
        for option, taken in discovery.kinds(cls, UnlearningStrategy).items():
            for value in wrong if taken is kind else ():
                said = rf"^option '{option}' of strategy '{name}' is .*; it must be {words}$"
                with pytest.raises(ConfigError, match=said):
                    registry.make(name, {option: value})
                tried += 1
    assert tried > 20


def test_a_whole_number_is_a_number_and_what_says_no_kind_takes_anything(own):
    assert registry.make("no-t", {"fine_tune_factor": np.int64(2)}).fine_tune_factor == 2
    assert registry.make("fed-eraser", {"interval": np.int32(4)}).interval == 4
    assert registry.make("my_forgetting:Mine", {"strength": 2.5}).strength == 2.5


def test_descriptions_tell_what_strategies_declare():
    found = {entry.alias: entry for entry in registry.describe()}
    eraser = found["fed-eraser"]
    assert "client" in eraser.scopes
    assert eraser.needs == ("globals", "updates")
    assert eraser.options["interval"] == 3
    assert eraser.summary.endswith(".")
    assert found["retrain"].guarantee == "exact"
    assert all(entry.options.keys().isdisjoint({"self", "kwargs"}) for entry in found.values())


@pytest.mark.parametrize("name", ["strategies.fed_eraser:FedEraser", "fed-eraser"])
def test_the_family_folder_may_be_left_out(name: str) -> None:
    assert registry.resolve(name) is registry.strategies()["fed-eraser"]


def test_a_wrong_class_of_a_shortened_name_is_named() -> None:
    with pytest.raises(ConfigError, match="FedErazer"):
        registry.resolve("strategies.fed_eraser:FedErazer")


def test_those_that_serve_a_request_fit_the_model_that_is_learned() -> None:
    on_networks, on_forests = who_serves(Scope.CLIENT), who_serves(Scope.CLIENT, "forest")
    assert {"fed-eraser", "retrain"} <= set(on_networks)
    assert "forest-deletion" not in on_networks
    assert {"forest-deletion", "retrain"} <= set(on_forests)
    assert "fed-eraser" not in on_forests


def test_options_are_found_through_a_constructor_that_passes_the_rest_on() -> None:
    class Base:
        def __init__(self, *, near: int = 1) -> None: ...

    class Derived(Base):
        def __init__(self, *, far: int = 2, **rest: int) -> None: ...

    assert discovery.options(Derived, Base) == {"far": 2, "near": 1}

"""What can be named, and what goes with what."""

from __future__ import annotations

import json

import pytest

from experiments.cli.listing import entries
from experiments.models import networks as models
from strategies.registry import strategies
from unlearning.errors import ConfigError
from unlearning.models.array_model import ArrayModel


def by_name(kind: str) -> dict[str, dict[str, object]]:
    found = {str(entry["name"]): entry for entry in entries(kind)}
    assert json.loads(json.dumps(found)) == found
    return found


def test_strategies_say_what_they_work_on() -> None:
    found = by_name("strategies")
    words = {name: entry["models"] for name, entry in found.items()}
    assert words["forest-deletion"] == ["forest"]
    assert words["fed-eraser"] == ["any network"]
    assert words["retrain"] == ["every model"]
    assert words["head-drop"] == ["networks of several tasks"]
    families = {name: entry["family"] for name, entry in found.items()}
    assert families["sifu"] == "global model"
    assert families["fed-eraser"] == "local model"
    assert families["svm"] == "structure"


def test_models_say_who_makes_them_forget() -> None:
    found = by_name("models")
    forest = found["forest"]
    assert forest["kind"] == "no network"
    assert forest["own_strategies"] == ["forest-deletion"]
    assert forest["strategies"] == ["forest-deletion", "retrain"]
    svm = found["linear-svm"]
    assert svm["kind"] == "network"
    assert svm["own_strategies"] == []
    assert svm["families"] == ["global model", "local model", "structure"]
    assert {"fed-eraser", "sifu", "retrain"} <= set(svm["strategies"])  # type: ignore[call-overload]
    assert svm["parameters"] == {"penalty": 0.001}
    tasks = {name: "task-osd" in str(entry["strategies"]) for name, entry in found.items()}
    assert [name for name, has in tasks.items() if has] == ["multi-task"]


def array_models() -> list[str]:
    return [name for name in models.names() if not models.is_network(name)]


@pytest.mark.parametrize("name", array_models())
def test_what_is_listed_is_what_is_accepted(name: str) -> None:
    made: ArrayModel | None = models.array_model(name, (4,), 3)
    assert made is not None
    listed = by_name("models")[name]["strategies"]
    for alias, cls in strategies().items():
        try:
            cls().check_model(made)
        except ConfigError:
            assert alias not in listed  # type: ignore[operator]
        else:
            assert alias in listed  # type: ignore[operator]


def test_parameters_are_those_that_a_config_may_set() -> None:
    for name in models.names():
        known = models.parameters(name)
        if models.is_network(name):
            continue
        assert models.array_model(name, (4,), 3, known) is not None
    assert "tasks" not in models.parameters("multi-task")
    with pytest.raises(ConfigError, match="unknown key of forest 'seed'"):
        models.array_model("forest", (4,), 3, {"seed": 1})

"""How Ray is asked to start; Ray itself is not started here."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.config.loading import Config
from experiments.federation import cluster
from experiments.federation.cluster import DISPOSABLE
from unlearning.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put something in Ray's place that notes what it is asked, and in which environment."""
    calls: list[dict[str, Any]] = []

    def init(**given: Any) -> None:
        names = ("PYTHONPATH", DISPOSABLE)
        calls.append({**given, "environment": {name: os.environ.get(name) for name in names}})
        if given["address"] == "nowhere":
            raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(cluster, "_imported", lambda: SimpleNamespace(init=init))
    monkeypatch.setattr(cluster, "_ENGINE", "json")
    return calls


def config(**engine: Any) -> Config:
    return Config.model_validate({"engine": engine, "device": "cpu"})


def test_workers_begun_beforehand_can_be_used(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a runtime_env of the job, Ray would end them and begin as many others.
    monkeypatch.setenv("PYTHONPATH", "before")
    cluster.start(config(workers=3))
    (call,) = asked
    assert "runtime_env" not in call
    assert (call["address"], call["num_cpus"], call["include_dashboard"]) == ("local", 3, False)
    assert call["environment"][DISPOSABLE] == "1"
    assert os.path.dirname(os.__file__) in call["environment"]["PYTHONPATH"].split(os.pathsep)
    assert os.environ["PYTHONPATH"] == "before"
    assert DISPOSABLE not in os.environ  # this process is none of them


def test_a_cluster_of_others_is_told_what_its_workers_need(asked: list[dict[str, Any]]) -> None:
    cluster.start(config(ray_address="there:1"))
    (call,) = asked
    assert call["runtime_env"]["env_vars"][DISPOSABLE] == "1"
    assert call["environment"][DISPOSABLE] is None


def test_where_ray_does_not_start_is_said_in_one_line(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere \(nobody answers\); check"):
        cluster.start(config(ray_address="nowhere"))

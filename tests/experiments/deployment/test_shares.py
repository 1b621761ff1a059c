"""Sites that read their own files come to the model of the simulation, bit for bit."""

import json

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.deployment.shares import remote, write_shares
from experiments.federation import launch, participants
from experiments.federation.course import Course
from experiments.federation.grids import LocalGrid
from unlearning.errors import FedUnlearnError


def settings(**changes):
    raw = {
        "rounds": 2,
        "recovery_rounds": 1,
        "strategy": "fed-eraser",
        "device": "cpu",
        "data": {"name": "digits", "clients": 3, "limit": 300, "test_limit": 100},
        "model": {"name": "mlp", "hidden": 8},
        "engine": {"grid": "local"},
        "guard": {"count_cap": 0},
        "requests": [{"scope": "client", "clients": [1]}],
    }
    return from_mapping({**raw, **changes})


def conduct(config, files, out, homes, **own):
    """Run a config with sites that hold files of their own; return the folder."""
    grid = LocalGrid(participants.client_app, len(files))
    for context, file in zip(grid.contexts.values(), files, strict=True):
        client = context.node_config["partition-id"]
        context.node_config |= {"data": str(file), "home": str(homes / f"site-{client}"), **own}
    course = Course.of_run(config, lambda tick: None)
    course.check()
    with course.begin(out) as books:
        course.conduct(grid, books, lambda: False)
    return out


def digests(folder):
    return [
        row["model_digest"] for row in json.loads((folder / "results.json").read_text())["rows"]
    ]


def test_the_shares_of_a_simulation_give_its_digest(tmp_path):
    config = settings()
    simulated = launch.run(config, tmp_path / "simulated", observer=lambda tick: None)
    files = write_shares(config, tmp_path / "files")
    participants.forget_built()
    theirs = conduct(
        remote(config, tmp_path / "files"), files, tmp_path / "remote", tmp_path / "homes"
    )
    assert digests(theirs) == digests(simulated)


def test_a_site_needs_data_and_a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.joining._PAUSE_S", 0.01)  # before it is asked again
    config = settings(requests=[], rounds=1)
    files = write_shares(config, tmp_path / "files")
    with pytest.raises(FedUnlearnError, match="names no 'data'"):
        conduct(
            remote(config, tmp_path / "files"), files, tmp_path / "run", tmp_path / "homes", data=""
        )


def test_a_changed_file_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.joining._PAUSE_S", 0.01)  # before it is asked again
    config = settings(requests=[], rounds=1, engine={"grid": "local", "min_replies": 1.0})
    files = write_shares(config, tmp_path / "files")
    theirs, homes = remote(config, tmp_path / "files"), tmp_path / "homes"
    conduct(theirs, files, tmp_path / "first", homes)
    with np.load(files[1]) as file:
        x, y = file["x"], file["y"]
    np.savez(files[1], x=x[1:], y=y[1:])
    participants.forget_built()
    with pytest.raises(FedUnlearnError, match="not those this site joined with"):
        conduct(theirs, files, tmp_path / "second", homes)


def test_what_is_forgotten_stays_forgotten_in_the_next_run(tmp_path):
    config = settings()
    files = write_shares(config, tmp_path / "files")
    theirs, homes = remote(config, tmp_path / "files"), tmp_path / "homes"
    conduct(theirs, files, tmp_path / "first", homes)
    buried = homes / "site-1" / "epoch-1" / "client-00001" / "tombstones.json"
    assert json.loads(buried.read_text())["everything"]


def test_the_server_needs_a_declared_shape():
    with pytest.raises(FedUnlearnError, match=r"needs data\.shape"):
        Course.of_run(
            settings(data={"name": "remote", "clients": 3, "classes": 2}), lambda tick: None
        ).check()

"""The commands of server and site, from key to wish, without a SuperLink."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app


def called(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stdout if not code else done.output


@pytest.fixture
def folders(tmp_path):
    """Return a federation and a site that it has invited."""
    fed, kit = tmp_path / "fed", tmp_path / "kit"
    called("federation", "init", fed, "--address", "fl.example.org:9092")
    made = json.loads(called("site", "init", kit, "--name", "clinic-a", "--json"))
    added = json.loads(called("federation", "add", fed, made["public"], "--json"))
    return fed, kit, added


def test_a_key_becomes_a_client_with_an_invitation(folders):
    fed, _, added = folders
    assert (added["client"], added["name"]) == (0, "clinic-a")
    status = json.loads(called("federation", "status", fed, "--json"))
    assert status["running"] is False
    assert [site["state"] for site in status["sites"]] == ["member"]


def test_a_site_that_was_not_invited_cannot_ask(folders):
    _, kit, _ = folders
    assert "has no invitation" in called("site", "ask", kit, "--leave", code=2)
    assert "give one of" in called("site", "ask", kit, code=2)


def test_data_are_looked_at_before_anything_starts(folders, tmp_path):
    _, kit, added = folders
    np.savez(tmp_path / "bad.npz", x=np.array([[1.0], [np.nan]]), y=np.array([0, 1]))
    said = called(
        *("site", "start", kit, "--invitation", added["invitation"]),
        *("--data", tmp_path / "bad.npz"),
        code=2,
    )
    assert "row 1" in said
    wish = json.loads(called("site", "ask", kit, "--leave", "--out", tmp_path / "w", "--json"))
    assert (wish["client"], wish["scope"]) == (0, "client")


def test_a_federation_that_is_down_runs_nothing(folders, tmp_path):
    fed, _, _ = folders
    config = tmp_path / "c.toml"
    config.write_text('[data]\nname = "remote"\nshape = [4]\nclasses = 2\n')
    assert "is down" in called("federation", "run", fed, config, code=2)
    assert "was not running" in called("federation", "stop", fed)


@pytest.mark.parametrize("group", ["federation", "site"])
def test_every_command_shows_an_example(group):
    from experiments.cli.federations import federation
    from experiments.cli.sites import site

    commands = {"federation": federation, "site": site}[group].registered_commands
    assert len(commands) >= 6
    for command in commands:
        assert f"Example: fedunlearn {group} " in command.callback.__doc__


def test_an_operators_key_is_made_entered_and_signs(folders, tmp_path):
    fed, _, _ = folders
    made = json.loads(
        called("federation", "operator", "init", tmp_path / "op", "--name", "alice", "--json")
    )
    assert (tmp_path / "op" / "operator.key").stat().st_mode & 0o777 == 0o600
    assert "no operator is known" in called("federation", "operator", "list", fed)
    called("federation", "operator", "add", fed, made["public"])
    assert json.loads(called("federation", "operator", "list", fed, "--json")) == [
        {"name": "alice", "active": True}
    ]
    words = ("sign", tmp_path / "op", "--name", "alice", "--federation", "f", "--class", "3")
    signed = json.loads(
        called("federation", "operator", *words, "--out", tmp_path / "o.json", "--json")
    )
    assert signed["what"]["classes"] == [3]
    assert json.loads((tmp_path / "o.json").read_text())["signature"]
    called("federation", "operator", "remove", fed, "alice")
    assert "no operator is named" in called("federation", "operator", "remove", fed, "bob", code=2)

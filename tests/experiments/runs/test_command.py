"""A report names the command that made the run, and no secret in it."""

import sys

import pytest

from experiments.runs.command import command_line


@pytest.mark.parametrize("given", [["--token", "secret"], ["--token=secret"], ["a", "--token"]])
def test_a_token_is_not_told(monkeypatch, given):
    monkeypatch.setattr(sys, "argv", ["flwr-serverapp", "--insecure", *given])
    said = command_line()
    assert "secret" not in said
    assert said.startswith("fedunlearn --insecure")

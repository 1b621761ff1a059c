"""One seam chooses how Flower's simulation is started; what it then says is seen end to end."""

import importlib

import pytest
from flwr.serverapp import ServerApp

from clients.app import make_client_app
from experiments.federation import simulation
from experiments.federation.participants import of_node


@pytest.fixture
def flower():
    """Return Flower's module of the engine: half a second of imports, for these tests alone."""
    return importlib.import_module("flwr.simulation.run_simulation")


@pytest.fixture
def asked(monkeypatch, flower):
    """Put something in the place of both ways, and return who was called with what."""
    calls = []

    def engine(num_supernodes, exit_event, client_app, server_app, backend_config):
        calls.append(("engine", num_supernodes, backend_config))

    def function(num_supernodes, client_app, server_app, backend_config):
        calls.append(("function", num_supernodes, backend_config))

    monkeypatch.setattr(flower, "_run_simulation", engine)
    monkeypatch.setattr("flwr.simulation.run_simulation", function)
    return calls


def begin():
    simulation.simulate(ServerApp(), make_client_app(of_node), 3, {"num_cpus": 1})


def test_the_engine_that_this_flower_has_is_known():
    assert simulation._engine() is not None


def test_what_is_not_deprecated_is_asked_first(asked):
    begin()
    assert asked == [("engine", 3, {"client_resources": {"num_cpus": 1}})]


@pytest.mark.parametrize("engine", [None, lambda other: None])
def test_where_the_engine_is_gone_or_another_the_function_is_asked_and_it_is_said(
    asked, flower, monkeypatch, caplog, engine
):
    monkeypatch.setattr(flower, "_run_simulation", engine)
    begin()
    assert asked == [("function", 3, {"client_resources": {"num_cpus": 1}})]
    assert "its run_simulation is asked" in caplog.text

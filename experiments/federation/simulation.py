"""The one place that starts Flower's simulation, whichever way the installed Flower offers.

Flower deprecates ``run_simulation``, a function, in favour of ``flwr run``, a program. A run here
needs the function's form: its ServerApp is a closure over this process's books. Both are shells
around one engine, which is not deprecated and is asked first; the function is what is left where
a later Flower has moved the engine, and then its own warning is seen.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from typing import Any

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

__all__ = ["simulate"]

_ENGINE = "_run_simulation"  # private in Flower 1.41 and 1.42
_ASKED = {"num_supernodes", "client_app", "server_app", "backend_config", "exit_event"}

log = logging.getLogger("fedunlearn")


def simulate(
    server_app: ServerApp, client_app: ClientApp, num_nodes: int, resources: dict[str, Any]
) -> None:
    """Run a ServerApp with simulated nodes on the Ray that is connected; return when it returns.

    Parameters
    ----------
    server_app : ServerApp
        Runs in a thread of this process; what it raises is raised here.
    client_app : ClientApp
        Must live in an importable module.
    num_nodes : int
        Number of simulated nodes.
    resources : dict
        Ray's options for each worker.
    """
    settings: dict[str, Any] = {
        "num_supernodes": num_nodes,
        "client_app": client_app,
        "server_app": server_app,
        "backend_config": {"client_resources": resources},
    }
    if (engine := _engine()) is not None:
        from flwr.supercore.telemetry import EventType

        engine(**settings, exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE)
        return
    log.warning("this Flower has no engine that is known here: its run_simulation is asked")
    from flwr.simulation import run_simulation

    run_simulation(**settings)


def _engine() -> Callable[..., object] | None:
    """Return Flower's engine, if it is there and takes what it is given."""
    try:
        module = importlib.import_module("flwr.simulation.run_simulation")
    except ImportError:
        return None
    found = getattr(module, _ENGINE, None)
    if found is None or not inspect.signature(found).parameters.keys() >= _ASKED:
        return None
    return found  # type: ignore[no-any-return]

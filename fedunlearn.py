"""Make a federation forget, and see how far it really did: the library's public names.

Examples
--------
>>> import fedunlearn
>>> found = fedunlearn.compare(
...     {"data": {"clients": 4}, "requests": [{"scope": "client", "clients": [3]}]},
...     strategies=["fed-eraser", "no-t"],
...     rounds=2,
...     recovery_rounds=1,
...     engine={"grid": "local"},
... )
>>> found.to_frame().set_index("strategy").test_accuracy.notna().all()
np.True_

A mistake raises a class of :mod:`unlearning.errors`, all of them :class:`FedUnlearnError`, with one
line that says what is wrong, where, and what to do. Nothing is printed unless it is asked for.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

try:
    from experiments.api.calls import (
        audit,
        compare,
        families,
        list_datasets,
        list_models,
        list_strategies,
        load_config,
        open_run,
        run,
    )
    from unlearning.errors import (
        ConfigError,
        FederationError,
        FedUnlearnError,
        HistoryError,
        LedgerError,
        RequestError,
        UnsupportedRequestError,
    )
    from unlearning.request import Guarantee, Request, Scope
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("clients", "experiments", "unlearning"):
        raise
    raise ImportError(
        f"{error}: something else of the same name hides a package of fedunlearn; start Python "
        "from another folder, or rename or uninstall the other one (`fedunlearn doctor` names it)"
    ) from error

if TYPE_CHECKING:
    from experiments.api.run import Audit, Families, Run
    from experiments.config.schema import Config
    from strategies.base import UnlearningStrategy as Strategy

__all__ = [
    "Audit",
    "Config",
    "ConfigError",
    "Families",
    "FedUnlearnError",
    "FederationError",
    "Guarantee",
    "HistoryError",
    "LedgerError",
    "Request",
    "RequestError",
    "Run",
    "Scope",
    "Strategy",
    "UnsupportedRequestError",
    "audit",
    "compare",
    "families",
    "list_datasets",
    "list_models",
    "list_strategies",
    "load_config",
    "open_run",
    "run",
]

_LATE = {  # loaded when first named: they bring Flower, pydantic or pandas along
    "Audit": ("experiments.api.run", "Audit"),
    "Config": ("experiments.config.schema", "Config"),
    "Families": ("experiments.api.run", "Families"),
    "Run": ("experiments.api.run", "Run"),
    "Strategy": ("strategies.base", "UnlearningStrategy"),
}


def main() -> None:
    """Be the command line."""
    # A command imports two thousand modules whose objects live as long as it does; Python would
    # look through them for garbage again and again, a tenth of the CPU time until it works.
    gc.set_threshold(10_000, 10, 10)
    from experiments.cli import app

    app()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fedunlearn")
    if name not in _LATE:
        raise AttributeError(f"module 'fedunlearn' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LATE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

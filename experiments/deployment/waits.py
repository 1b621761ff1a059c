"""How long Flower waits between two looks for something, made shorter in the process that asks.

A reply is announced before its arrays have arrived, and whoever then asks too early waits one
second, two, four. That is hidden where every message starts a process for seconds, and not where
one is answered at once. None of it is public, so it is done with the versions in `TESTED` alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from types import SimpleNamespace
from typing import Any

__all__ = ["TESTED", "is_tested", "look_soon", "nap_less"]

TESTED = ("1.41", "1.42")
_FIRST_S, _LONGEST_S = 0.05, 0.5
_IDLE_S = 0.5  # longest sleep of a node between two looks for messages


def is_tested() -> bool:
    """Return whether this was tried with the Flower that is installed."""
    found = importlib.metadata.version("flwr")
    return ".".join(found.split(".")[:2]) in TESTED


def look_soon() -> None:
    """Let this process look again soon for arrays that have not arrived."""
    if not is_tested():
        return
    module: Any = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")
    for function in (module.pull_objects, module.pull_and_inflate_object_from_tree):
        function.__kwdefaults__ |= {"initial_backoff": _FIRST_S, "backoff_cap": _LONGEST_S}


def nap_less() -> None:
    """Let a SuperNode in this process look for messages more often than every three seconds."""
    loop: Any = importlib.import_module("flwr.supernode.start_client_internal")
    loop.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, _IDLE_S)))

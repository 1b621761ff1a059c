"""The config of a run that takes a second: three clients, two rounds, in this process."""

from __future__ import annotations

from typing import Any

from experiments.config.loading import Config, from_mapping

__all__ = ["SMALL", "small"]

SMALL: dict[str, Any] = {
    "rounds": 2,
    "recovery_rounds": 1,
    "strategy": "fed-eraser",
    "device": "cpu",
    "data": {"name": "digits", "clients": 3, "limit": 90},
    "model": {"name": "mlp", "hidden": 4},
    "requests": [{"scope": "client", "clients": [2], "at_round": 2}],
    "engine": {"grid": "local"},
}


def small(**changes: object) -> Config:
    """Return it with some of its keys replaced."""
    return from_mapping({**SMALL, **changes})

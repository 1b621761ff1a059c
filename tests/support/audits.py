"""A toy audit: three clients, a handful of rounds, seconds in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.config.loading import from_mapping
from experiments.config.schema import Config
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.records.history import History
from unlearning.request import Request, Scope

RAW: dict[str, Any] = {
    "seed": 3,
    "rounds": 2,
    "recovery_rounds": 1,
    "device": "cpu",
    "data": {"clients": 3, "limit": 120},
    "model": {"hidden": 4},
    "marker": {"client": 1},
    "requests": [{"scope": "client", "clients": [1]}],
    "strategies": ["no-t"],
}


def config(**changes: object) -> Config:
    """Return the toy's config with some settings replaced."""
    return from_mapping({**RAW, **changes})


def stored(root: Path) -> dict[str, bytes]:
    """Return every trace below a cache folder."""
    return {path.name: path.read_bytes() for path in (root / "audit").rglob("*.npz")}


class Unable(UnlearningStrategy):
    """A strategy that answers on no seed."""

    scopes = frozenset(Scope)

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Fail."""
        raise FederationError("it cannot")

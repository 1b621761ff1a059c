"""What a history keeps, of which rounds, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unlearning.errors import ConfigError, unknown

__all__ = ["COLUMNS", "DTYPES", "Kept"]

COLUMNS = frozenset({"globals", "updates", "contributions", "sensitivities"})
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Kept:
    """What a history keeps, of which rounds, and how; the parameters are those of ``History``.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    """

    keep: frozenset[str]
    interval: int
    dtype: str

    def __post_init__(self) -> None:
        if strange := sorted(self.keep - COLUMNS):
            raise ConfigError(unknown("history column", strange[0], sorted(COLUMNS)))
        if self.interval < 1:
            raise ConfigError(f"history.interval is {self.interval}; expected 1 or more rounds")
        if self.dtype not in DTYPES:
            raise ConfigError(unknown("history.dtype", self.dtype, DTYPES))

    @staticmethod
    def from_settings(settings: Mapping[str, object]) -> Kept:
        """Return what a store was recorded with."""
        names = settings.get("keep", [])
        keep = frozenset(map(str, names)) if isinstance(names, list) else frozenset()
        return Kept(keep, int(str(settings["interval"])), str(settings["dtype"]))

    def to_settings(self) -> dict[str, object]:
        """Return plain values to record."""
        return {"keep": sorted(self.keep), "interval": int(self.interval), "dtype": self.dtype}

    def holds(self, server_round: int) -> bool:
        """Return whether globals and updates of a round are kept, if they are kept at all."""
        return (server_round - 1) % self.interval == 0

"""A scenario: what a task is made of, in plain values that travel in every message."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.config.schema import Config, DataConfig, MarkerConfig, ModelConfig

__all__ = ["Scenario"]

_PATHS = ("base", "folder")  # keys of a model that name a frozen network


@dataclass(frozen=True)
class Scenario:
    """What a task is made of."""

    seed: int
    data: DataConfig
    model: ModelConfig
    marker: MarkerConfig | None

    @property
    def data_seed(self) -> int:
        """Root of the randomness of the data: who holds what, what is public, what is marked."""
        return self.seed if self.data.seed is None else self.data.seed

    @staticmethod
    def of(config: Config, seed: int | None = None) -> Scenario:
        """Return the scenario of a config, with absolute paths; ``seed`` replaces the config's."""
        changes: dict[str, Any] = {}
        if config.data.root is not None:
            changes["root"] = str(Path(config.data.root).expanduser().absolute())
        elif config.data.name.startswith(("npz:", "text:")):
            kind, _, path = config.data.name.partition(":")
            changes["name"] = f"{kind}:{Path(path).expanduser().absolute()}"
        if config.data.test is not None:
            changes["test"] = str(Path(config.data.test).expanduser().absolute())
        placed = config.data.model_copy(update=changes)
        chosen = config.seed if seed is None else seed
        return Scenario(chosen, placed, _with_absolute_file(config.model), config.marker)

    def for_sites(self) -> Scenario:
        """Return what goes to the sites: no path of the server's own files."""
        return replace(self, data=self.data.model_copy(update={"test": None, "rows": ()}))

    def to_json(self) -> str:
        """Return one line that :meth:`from_json` reads; equal scenarios give equal text."""
        parts = {"data": self.data, "model": self.model, "marker": self.marker}
        plain = {key: part and part.model_dump(mode="json") for key, part in parts.items()}
        return json.dumps({"seed": self.seed, **plain}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Scenario:
        """Return the scenario that :meth:`to_json` wrote."""
        value = json.loads(text)
        marker = value["marker"]
        return Scenario(
            int(value["seed"]),
            DataConfig.model_validate(value["data"]),
            ModelConfig.model_validate(value["model"]),
            None if marker is None else MarkerConfig.model_validate(marker),
        )


def _with_absolute_file(model: ModelConfig) -> ModelConfig:
    own = {
        key: str(Path(str(model.params[key])).expanduser().absolute())
        for key in _PATHS
        if model.params.get(key)
    }
    if own:
        model = ModelConfig.model_validate({**model.model_dump(), **own})
    if model.trunk is None or model.trunk.file is None:
        return model
    path = str(Path(model.trunk.file).expanduser().absolute())
    return model.model_copy(update={"trunk": model.trunk.model_copy(update={"file": path})})

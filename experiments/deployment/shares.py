"""A simulation's shares as files of sites: for trying a deployment out, and for its tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.config.schema import Config
from experiments.data.sites import REMOTE
from experiments.federation.scenario import Scenario
from experiments.federation.sources import shared_out

__all__ = ["remote", "write_shares"]


def write_shares(config: Config, folder: Path) -> list[Path]:
    """Write what each client of a simulation holds as ``site-K.npz``, and the test set.

    Returns
    -------
    list of Path
        The sites' files, by client.
    """
    scenario = Scenario.of(config)
    found = shared_out(scenario.data, scenario.data_seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for client, train in found.shares.train.items():
        rows = np.sort(np.concatenate([train, found.shares.held_out[client]]))
        files.append(folder / f"site-{client}.npz")
        arrays = {"x": found.data.train_x[rows], "y": found.data.train_y[rows]}
        if found.data.columns:
            arrays["columns"] = np.array(found.data.columns)
        np.savez(files[-1], **arrays)
    np.savez(folder / "test.npz", x=found.data.test_x, y=found.data.test_y)
    return files


def remote(config: Config, folder: Path) -> Config:
    """Return the config of a simulation as that of a federation whose sites hold those files."""
    scenario = Scenario.of(config)
    data = shared_out(scenario.data, scenario.data_seed).data
    return Config.model_validate(
        {
            **config.to_dict(),
            "data": {
                "name": REMOTE,
                "clients": config.data.clients,
                "shape": list(data.input_shape),
                "classes": data.num_classes,
                "columns": list(data.columns),
                "held_out": config.data.held_out,
                "test": str(folder / "test.npz"),
                **({} if config.data.seed is None else {"seed": config.data.seed}),
            },
        }
    )

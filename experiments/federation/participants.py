"""The participants of a simulation: a client of a scenario, built where its messages arrive.

Clients get everything they need in each message, so that any process can be any client.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import nn

from clients.app import make_client_app
from clients.participant import Holdings, Participant
from clients.stacked.layers import layers_of
from clients.steps import Shard
from clients.together import Together
from experiments.config.schema import Config
from experiments.data.sites import pin, pinned, read_site, split_rows
from experiments.federation.cluster import DISPOSABLE
from experiments.federation.grids import LocalGrid, StackedGrid
from experiments.federation.task import ClientData, Task, forget_tasks, task
from experiments.models import networks as models
from unlearning.errors import ConfigError
from unlearning.protocol import Scalar, Wire
from unlearning.records.memory import ClientMemory

__all__ = [
    "chosen_grid",
    "client_app",
    "disposable",
    "forget_built",
    "in_process",
    "is_stackable",
    "of_node",
    "participant",
]

_place = lru_cache(maxsize=64)(Path)  # the same few folders come with every message


@lru_cache(maxsize=4)
def _workbench(scenario: str, device: str) -> nn.Module:
    torch.set_num_threads(1)  # one per worker: two workers with two threads each starve each other
    if task(scenario).array_model is not None:
        return nn.Identity()
    return task(scenario).fresh_model(0).to(models.device(device))


@lru_cache(maxsize=4096)
def _holdings(scenario: str, device: str, client: int) -> Holdings:
    """Return a client's data and model, loaded once per process.

    Where a frozen trunk reads the examples for the model, the client holds what it reads.
    """
    found = task(scenario).client(client)
    held = _held(scenario, device, client, found)
    made = task(scenario)
    if (other := made.asked(client)) is None:
        return held
    place = held.train.features.device
    arrays = (made.seen(other.x), made.labels(other.x, other.y))
    return replace(held, forgetting=Shard(*(torch.from_numpy(part).to(place) for part in arrays)))


@lru_cache(maxsize=64)
def _site_holdings(
    scenario: str, device: str, client: int, source: str, label: str | None, home: str
) -> Holdings:
    """Return what a site holds of its own: it reads its file and nothing else."""
    made = task(scenario)
    chosen = made.scenario.data
    found = read_site(source, made.input_shape, made.num_classes, label, chosen.columns)
    pin(Path(home), found, made.scenario.data_seed, chosen.held_out)
    train, kept_back = split_rows(len(found.y), made.scenario.data_seed, client, chosen.held_out)
    own = ClientData(found.x[train], found.y[train], found.x[kept_back], found.y[kept_back])
    return _held(scenario, device, client, own)


def _held(scenario: str, device: str, client: int, found: ClientData) -> Holdings:
    place = models.device(device)
    made = task(scenario)
    labels = (
        made.task_labels(client)
        if made.tasks
        else (made.labels(found.train_x, found.train_y), made.labels(found.held_x, found.held_y))
    )

    def shard(x: NDArray[np.float32], y: NDArray[np.int64]) -> Shard:
        seen = made.seen(x)
        return Shard(torch.from_numpy(seen).to(place), torch.from_numpy(y).to(place))

    return Holdings(
        train=shard(found.train_x, labels[0]),
        held_out=shard(found.held_x, labels[1]),
        fresh_model=lambda seed: task(scenario).fresh_model(seed).to(place),
        workbench=_workbench(scenario, device),
        array_model=task(scenario).array_model,
    )


def of_node(context: Context, config: dict[str, Scalar]) -> Participant:
    """Return the participant of a node."""
    scenario, device = str(config[Wire.SCENARIO]), str(config.get(Wire.DEVICE, "auto"))
    client = int(str(context.node_config["partition-id"]))
    if task(scenario).remote:
        return _site(context, client, scenario, device)
    home = context.node_config.get("home") or config.get(Wire.HOME)
    return participant(client, scenario, device, _place(str(home)) if home else None)


def _site(context: Context, client: int, scenario: str, device: str) -> Participant:
    """Return a site's participant: data and home are the site's own settings, never the server's.

    Raises
    ------
    ConfigError
        If the site's settings name no data or no home.
    """
    own = {key: str(value) for key, value in context.node_config.items()}
    for key in ("data", "home"):
        if not own.get(key):
            raise ConfigError(
                f"this site's node config names no {key!r}, and the federation's data are the "
                f"sites' own; start it with `fedunlearn site start`, or --node-config '{key}=...'"
            )
    home, label = Path(own["home"]), own.get("label") or None
    holdings = _site_holdings(scenario, device, client, own["data"], label, own["home"])
    known = pinned(home)
    epoch = 1 if known is None else known.epoch
    return Participant(client, holdings, ClientMemory(home / f"epoch-{epoch}", client))


@lru_cache(maxsize=4096)
def participant(client: int, scenario: str, device: str, home: Path | None) -> Participant:
    """Return a client of a scenario that remembers below ``home``; it keeps nothing in itself."""
    return Participant(client, _holdings(scenario, device, client), ClientMemory(home, client))


def forget_built() -> None:
    """Drop the tasks, data and models that this process keeps: what they are made of may change."""
    for kept in (participant, _holdings, _site_holdings, _workbench):
        kept.cache_clear()
    forget_tasks()


def disposable() -> bool:
    """Return whether this process is a worker that may be ended and is then replaced."""
    return bool(os.environ.get(DISPOSABLE))


client_app = make_client_app(of_node, disposable=disposable)


def in_process(grid: str, num_clients: int) -> LocalGrid:
    """Return a grid of this process: ``local``, one client after the other, or ``stacked``."""
    if grid == "local":
        return LocalGrid(client_app, num_clients)
    return StackedGrid(client_app, num_clients, Together(of_node))


def chosen_grid(config: Config, made: Task) -> str:
    """Return the grid that a config asks for; in place of ``auto`` what suits the model."""
    if config.engine.grid != "auto":
        return config.engine.grid
    return "stacked" if is_stackable(config, made) else "ray"


def is_stackable(config: Config, made: Task) -> bool:
    """Return whether the networks of many clients can be trained together, bit for bit."""
    on_cpu = models.device(config.device).type == "cpu"
    return on_cpu and made.array_model is None and layers_of(made.fresh_model(0)) is not None

"""What is looked at before a federation starts, because it would fail at every client of it.

A device that is not there, a column of owners that nobody asked for, and a model of the user's own
that does not do what a model must: each is one line here, and as many failures as clients times
rounds later. The model is called on one batch of one client's examples, and trained for one step
by the step that the clients train with.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clients import steps
from clients.multitask import MultiTask
from clients.steps import Local, Shard
from experiments.config.loading import Config
from experiments.data import datasets as data
from experiments.federation.task import Task
from experiments.models import networks as models
from unlearning.arrays import digest
from unlearning.errors import ConfigError
from unlearning.protocol import Settings, Wire

__all__ = ["check", "check_anchor", "check_working_directory"]

_PACKAGES = ("clients", "experiments", "strategies", "unlearning")
_BATCH = 8  # examples in the dry call, or as many as a client has


def check(config: Config, task: Task) -> None:
    """Refuse what cannot work on any client.

    Parameters
    ----------
    config : Config
        As the user gave it.
    task : Task
        Its task, at one of its seeds.

    Raises
    ------
    ConfigError
        If the device is not there, data say who owns what and the config does not say whether
        that counts, or a model of the user's own fails on the data.
    """
    if config.engine.ray_address is None:  # another machine's devices are not known here
        models.device(config.device)
    _check_owners(config, task)
    if ":" in config.model.name and task.array_model is None and not task.remote:
        _check_seed(config, task)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            _dry_call(config, task)


def check_anchor(path: Path) -> None:
    """Refuse an anchor of the ledger that cannot be written.

    Raises
    ------
    ConfigError
        Naming the file, and what the system says.
    """
    try:
        if path.exists():
            path.open("ab").close()
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            there = path.parent.exists()
            raise OSError(errno.EACCES if there else errno.ENOENT, "its folder does not take it")
    except OSError as error:
        raise ConfigError(
            f"ledger.anchor: {str(path)!r} cannot be written ({error.strerror}); name a file in a "
            "folder that exists, at best on another machine"
        ) from error


def check_working_directory() -> None:
    """Refuse a working directory whose own modules worker processes would take for ours.

    Ray puts the working directory in front of everything else that its workers import from.

    Raises
    ------
    ConfigError
        If it holds a package or module of the name of one of ours.
    """
    here = Path.cwd()
    for name in _PACKAGES:
        found = PathFinder.find_spec(name, [str(here), *sys.path])
        own = Path(str(sys.modules[name].__file__)).resolve()
        if found is None or found.origin is None or Path(found.origin).resolve() != own:
            raise ConfigError(
                f"the working directory {str(here)!r} has a module {name!r} of its own, which the "
                f"worker processes would take for the package {name!r} of fedunlearn; start from "
                "another directory, rename it, or set engine.grid = 'local'"
            )


def _check_owners(config: Config, task: Task) -> None:
    """Refuse a column of owners that would be passed over because no partitioner was named."""
    chosen = task.scenario.data
    if task.remote or "partitioner" in config.data.model_fields_set or ":" not in chosen.name:
        return
    found = data.of(chosen)
    if found.owner is not None:
        raise ConfigError(
            f"data.name: {config.data.name!r} says who owns each example, and data.partitioner is "
            f"not given; set data.partitioner = 'natural-id' to share them out so, or "
            f"data.partitioner = {config.data.partitioner!r} to pass the owners over"
        )


def _check_seed(config: Config, task: Task) -> None:
    """Refuse a function that does not return a new model for a seed, the same for the same one."""
    name, seed = config.model.name, task.scenario.seed
    first, second = task.fresh_model(seed), task.fresh_model(seed)
    if first is second:
        raise ConfigError(
            f"model.name: {name!r} returns one and the same object every time; build a new model "
            "in the function, or what was learned would be there at the start of retraining"
        )
    if digest(models.to_arrays(first)) != digest(models.to_arrays(second)):
        raise ConfigError(
            f"model.name: {name!r} gives other values for the same seed; draw them from PyTorch's "
            "generator, or from one with a fixed seed"
        )


def _dry_call(config: Config, task: Task) -> None:
    model = task.fresh_model(task.scenario.seed)
    shard, classes = _batch(task), sum(task.tasks.values()) or task.num_classes
    wanted = (classes, *task.input_shape) if task.is_sequential else (classes,)
    before = list(model.state_dict())
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError(
            f"model.name: {config.model.name!r} has no parameter that can be trained; leave "
            "requires_grad on where it shall learn"
        )
    try:
        with torch.no_grad():
            model.eval()
            _check_logits(model, shard.features[:1], wanted)
            _check_logits(model, shard.features, wanted)
            model.train()
            _check_logits(model, shard.features, wanted)
        loss = _one_step(config, task, model, shard)
        if not np.isfinite(loss):
            raise _UnfitError(f"its loss is {loss} before the first step")
        if list(model.state_dict()) != before:
            odd = sorted(set(model.state_dict()) ^ set(before))
            raise _UnfitError(f"its state changes while it trains: {odd[0]!r} comes or goes")
    except Exception as error:  # whatever a user's own model raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"model.name: {config.model.name!r} fails on {len(shard)} examples of client "
            f"{task.clients[0]} ({lines[0]}); it is given float32 inputs of shape (n, "
            f"{', '.join(map(str, task.input_shape))}) and returns logits of shape (n, "
            f"{', '.join(map(str, wanted))})"
        ) from error


class _UnfitError(Exception):
    """A model does not do what a model must."""


def _batch(task: Task) -> Shard:
    """Return some examples as a client holds them."""
    client = task.clients[0]
    found = task.client(client)
    labels = (
        task.task_labels(client)[0] if task.tasks else task.labels(found.train_x, found.train_y)
    )
    x = torch.from_numpy(np.ascontiguousarray(found.train_x[:_BATCH]))
    return Shard(x, torch.from_numpy(labels[:_BATCH].copy()))


def _check_logits(model: nn.Module, x: torch.Tensor, wanted: tuple[int, ...]) -> None:
    given = x.clone()
    out = model(x)
    how = f"{'training' if model.training else 'evaluating'}, on {len(x)}"
    if not torch.equal(x, given):
        raise _UnfitError(f"{how}, it changes its inputs in place; work on a copy of them")
    if not isinstance(out, torch.Tensor):
        raise _UnfitError(f"{how}, it returns {type(out).__name__} and no tensor")
    if tuple(out.shape) != (len(x), *wanted):
        raise _UnfitError(f"{how}, it returns shape {tuple(out.shape)}, not {(len(x), *wanted)}")
    if out.dtype not in (torch.float32, torch.float64):
        raise _UnfitError(
            f"{how}, it returns {str(out.dtype).removeprefix('torch.')}; end in .float()"
        )
    if not torch.isfinite(out).all():
        raise _UnfitError(f"{how}, it returns a value that is not finite")


def _one_step(config: Config, task: Task, model: nn.Module, shard: Shard) -> float:
    """Train for one step as a client does; return the loss before it."""
    nothing = shard.take(torch.zeros(0, dtype=torch.int64))
    local = Local(retain=shard, forget=nothing, held_out=nothing, fresh_model=task.fresh_model)
    train = config.train
    settings: Settings = {
        "local_epochs": 1,
        "batch_size": len(shard),
        "learning_rate": train.learning_rate,
        "momentum": train.momentum,
        "weight_decay": train.weight_decay,
        "max_steps": 1,
    }
    done = steps.find("train")(model, local, settings, np.random.default_rng(0))
    if isinstance(model, MultiTask):
        return 0.0
    return float(done.metrics[Wire.LOSS])

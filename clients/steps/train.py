"""Local training on the retained data: the client half of FedAvg.

References
----------
McMahan, Moore, Ramage, Hampson, Agueera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv 1602.05629).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from clients.multitask import MultiTask
from clients.sequenced import Sequenced
from clients.sharded import Sharded
from clients.sharded_tree import ShardedTree
from clients.steps import Local, Outcome
from clients.tasktraining import settled, train_tasks
from clients.training import batches, loss_of, number, optimiser, stable_batches, trained
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.models.sequences import module_name, place_of
from unlearning.models.shards import node_name
from unlearning.protocol import MASK, Settings, Wire
from unlearning.weighing import EXAMPLES, TRUNK


def train(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train ``model`` in place for ``local_epochs`` passes over the retained data.

    Settings: ``local_epochs``, ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay``,
    ``max_steps`` (0: no limit), ``equal_weights`` (answer 1 as the number of examples, so that all
    clients count alike, as the released programs of FedEraser and PGA average). Extras
    ``mask/<parameter>``, booleans along its first axis: what is False is set to zero before the
    first step and after every one.

    With ``stable_steps`` it takes so many steps instead, each on ``batch_size`` examples drawn by
    keys (:mod:`unlearning.draws`), and answers 1 as the number of examples: all clients count
    alike, since a weight by examples would tell the model how many were forgotten.

    Of a network in shards the client's own (``shard``) is trained and no other, of a tree of shards
    the first node above it that has not had its rounds; of one in sequences the next module of
    every order that the client's group (``shard``) has a part in.

    A network for several tasks is trained on all of them. With the setting ``attribute`` the client
    keeps, per task, what the task has done to the trunk so far: the sum over rounds of the task's
    part of this client's update times the client's share in the average. The share is known after
    the round only; ``share`` is that of round ``share_round``, ``round`` the number of this one.
    """
    if isinstance(model, MultiTask):
        if settings.get("stable_steps"):
            raise ConfigError("train.stable_steps is for one task; set it to 0, or learn one task")
        if settings.get("equal_weights"):
            raise ConfigError("equal_weights is for one task; leave it out, or learn one task")
        return _train_tasks(model, local, settings, generator)
    if isinstance(model, Sharded):
        return _train_shard(model, local, settings, generator)
    if isinstance(model, ShardedTree):
        return _train_node(model, local, settings, generator)
    if isinstance(model, Sequenced):
        return _train_modules(model, local, settings, generator)
    model.train()
    silence = _silencer(model, local.extras)
    silence()
    sgd = optimiser(settings, trained(model))
    processed = 0
    total = torch.zeros((), device=local.retain.labels.device)
    stable = bool(settings.get("stable_steps"))
    epochs = int(number(settings, "local_epochs"))
    stream = (
        stable_batches(local, settings)
        if stable
        else batches(local.retain, settings, generator, epochs=epochs)
    )
    measured = loss_of(model)
    for batch in stream:
        sgd.zero_grad(set_to_none=True)
        loss = measured(model(batch.features), batch.labels)
        torch.autograd.backward(loss)
        sgd.step()
        silence()
        total += loss.detach() * len(batch)
        processed += len(batch)
    metrics = {Wire.LOSS: float(total) / processed} if processed else {}
    alike = stable or bool(settings.get("equal_weights"))
    weight = min(len(local.retain), 1) if alike else len(local.retain)
    return Outcome(num_examples=weight, examples_processed=processed, metrics=metrics)


def _silencer(model: nn.Module, extras: Arrays) -> Callable[[], None]:
    """Return a function that zeroes what the masks among ``extras`` forbid."""
    weights = dict(model.named_parameters())
    chosen = [
        (weights[name], torch.from_numpy(~np.array(keep)).to(weights[name].device))
        for key, keep in extras.items()
        if key.startswith(MASK) and (name := key.removeprefix(MASK)) in weights
    ]

    def silence() -> None:
        if not chosen:
            return
        with torch.no_grad():
            for weight, gone in chosen:
                weight[gone] = 0

    return silence


def _train_shard(
    model: Sharded, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    own = int(number(settings, "shard"))
    outcome = train(model.of(own).net, local, settings, generator)
    model.of(own).trained += 1
    rests = {
        f"{EXAMPLES}{place}": float(outcome.num_examples if place == own else 0)
        for place in range(len(model.shards))
    }
    return replace(outcome, metrics={**outcome.metrics, **rests})


def _train_node(
    model: ShardedTree, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train the node that is due; where all is done, answer a step of nothing for the root."""
    due = model.due(int(number(settings, "shard")))
    if due is None:
        rests = dict.fromkeys((f"{EXAMPLES}{name}" for name in model.nodes), 0.0)
        rests[f"{EXAMPLES}{node_name(model.levels - 1, 0)}"] = float(len(local.retain))
        return Outcome(len(local.retain), 0, metrics=rests)
    model.begin(*due)
    node = model.node(*due)
    outcome = train(node.net, local, settings, generator)
    node.trained += 1
    rests = {
        f"{EXAMPLES}{name}": float(outcome.num_examples if name == node_name(*due) else 0)
        for name in model.nodes
    }
    return replace(outcome, metrics={**outcome.metrics, **rests})


def _train_modules(
    model: Sequenced, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Train, order by order, the first module that has not had its rounds.

    Every order has random streams of its own: what others do makes no difference to it.
    """
    group, count = int(number(settings, "shard")), len(local.retain)
    rests = {
        f"{EXAMPLES}{module_name(j, i)}": 0.0
        for j in range(model.orders)
        for i in range(model.groups)
    }
    rests[f"{EXAMPLES}{TRUNK}"] = 0.0  # nobody trains the base
    net = copy.deepcopy(model.base).requires_grad_(True)
    processed, losses, weight = 0, 0.0, count
    for order, stream in enumerate(generator.spawn(model.orders)):
        place = model.length(order, model.stage_rounds)
        if place == model.groups or place_of(group, order, model.groups) > place:
            continue
        with torch.no_grad():
            start = {n: w.clone() for n, w in model.weights(order, place + 1).items()}
            for name, value in net.named_parameters():
                value.copy_(start[name])
        torch.default_generator.manual_seed(int(stream.integers(2**31)))
        outcome = train(net, local, settings, stream)
        module = model.module(order, place)
        with torch.no_grad():
            for name, step in module.net.named_parameters():
                step.add_(net.get_parameter(name) - start[name])
        module.trained += 1
        weight = outcome.num_examples
        rests[f"{EXAMPLES}{module_name(order, place)}"] = float(weight)
        processed += outcome.examples_processed
        losses += outcome.metrics.get(Wire.LOSS, 0.0) * outcome.examples_processed
    if model.finished and not processed:  # all is trained: a step of nothing, by everyone
        rests[f"{EXAMPLES}{module_name(0, model.groups - 1)}"] = float(weight)
    metrics = {Wire.LOSS: losses / processed} if processed else {}
    return Outcome(weight, processed, metrics={**metrics, **rests})


def _train_tasks(
    model: MultiTask, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    attribute = bool(settings.get("attribute"))
    metrics, processed, parts = train_tasks(
        model, local.retain, settings, generator, attribute=attribute
    )
    kept = {}
    if attribute:
        updates = parts.updates if parts is not None else {}
        for task in model.heads:
            done = settled(local, task, settings)
            last = {f"last/{name}": part.numpy() for name, part in updates.get(task, {}).items()}
            if done or last:
                facts = {"round": int(number(settings, "round"))}
                kept[f"attribution-{task}"] = ({**done, **last}, facts)
    return Outcome(len(local.retain), processed, metrics=metrics, kept=kept)

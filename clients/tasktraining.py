"""Training of a network for several tasks, and what each of them did to the trunk.

SGD is additive over the terms of a loss, and so is its momentum: with one buffer per task, the
update of the trunk is the sum of the tasks' parts, up to weight decay, which is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from clients.local import Local, Shard
from clients.multitask import NONE, MultiTask, only_tasks, task_loss
from clients.training import batches, number, optimiser, trained
from unlearning.arrays import Arrays
from unlearning.models.heads import EXAMPLES, TRUNK
from unlearning.protocol import Settings

__all__ = ["Attribution", "settled", "train_tasks"]

Parts = dict[str, torch.Tensor]


class Attribution:
    """What each task did to the trunk during one local training.

    Parameters
    ----------
    weights : mapping of str to nn.Parameter
        The parameters of the trunk, by their name in the model.
    rate, momentum : float
        Of the SGD that trains them.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], rate: float, momentum: float) -> None:
        self._weights, self._rate, self._momentum = weights, rate, momentum
        self._velocity: dict[str, Parts] = {}
        self.updates: dict[str, Parts] = {}

    def step(self, gradients: Mapping[str, tuple[torch.Tensor, ...]]) -> None:
        """Take one step; a task without examples in the batch goes on by its momentum."""
        for task in dict.fromkeys([*self.updates, *gradients]):
            if task not in self.updates:
                zeros = {
                    n: torch.zeros_like(w, dtype=torch.float64) for n, w in self._weights.items()
                }
                self.updates[task] = zeros
                self._velocity[task] = {name: z.clone() for name, z in zeros.items()}
            steps = gradients.get(task)
            for place, name in enumerate(self._weights):
                velocity = self._velocity[task][name].mul_(self._momentum)
                if steps is not None:
                    velocity += steps[place]
                self.updates[task][name].sub_(velocity, alpha=self._rate)


def train_tasks(
    model: MultiTask,
    data: Shard,
    settings: Settings,
    generator: np.random.Generator,
    *,
    attribute: bool = False,
) -> tuple[dict[str, float], int, Attribution | None]:
    """Train a model for several tasks in place.

    The trunk and the tasks that share it are trained together; every isolated task is trained on
    its own examples in batches of its own, drawn from an address of its own, so that no bit of
    anything else depends on whether it is there.

    Returns
    -------
    tuple
        Metrics ``examples-of/<task>``: what each part was trained on; the number of examples
        processed; what each task did to the trunk, if asked.
    """
    model.train()
    root = int(generator.integers(2**63))
    columns = tuple(model.tasks)
    metrics = {
        f"{EXAMPLES}{task}": float((data.labels[:, i] != NONE).sum())
        for i, task in enumerate(columns)
    }
    shared = only_tasks(data, columns, tuple(model.heads))
    metrics[f"{EXAMPLES}{TRUNK}"] = float(len(shared))
    attribution = None
    processed = 0
    if model.heads and len(shared):
        weights = {f"trunk.{n}": w for n, w in model.trunk.named_parameters() if w.requires_grad}
        if attribute:
            rate, momentum = number(settings, "learning_rate"), number(settings, "momentum", 0.0)
            attribution = Attribution(weights, rate, momentum)
        sgd = optimiser(settings, [*weights.values(), *trained(model.heads)])
        for batch in _stream(shared, settings, root, len(columns)):
            sgd.zero_grad(set_to_none=False)
            parts = _gradients(model, batch, list(weights.values()))
            if attribution is not None:
                attribution.step(parts)
            sgd.step()
            processed += len(batch)
    for place, task in enumerate(columns):
        own = only_tasks(data, columns, (task,))
        if task not in model.isolated or not len(own):
            continue
        sgd = optimiser(settings, trained(model.isolated[task]))
        for batch in _stream(own, settings, root, place):
            sgd.zero_grad(set_to_none=True)
            with torch.no_grad():
                read = model.trunk(batch.features)
            loss = nn.functional.cross_entropy(model.isolated[task](read), batch.labels[:, place])
            torch.autograd.backward(loss)
            sgd.step()
            processed += len(batch)
    return metrics, processed, attribution


def _stream(shard: Shard, settings: Settings, root: int, place: int) -> Iterator[Shard]:
    generator = np.random.default_rng([root, place])
    return batches(shard, settings, generator, epochs=int(number(settings, "local_epochs")))


def _gradients(
    model: MultiTask, batch: Shard, trunk: list[nn.Parameter]
) -> dict[str, tuple[torch.Tensor, ...]]:
    """Add the gradient of the joint loss to ``grad``; return the trunk's per task.

    Task by task even where nobody asks, so that the bits do not depend on who is asking.
    """
    read = model.trunk(batch.features)
    losses = {
        task: loss
        for place, task in enumerate(model.tasks)
        if task in model.heads
        and (loss := task_loss(model.heads[task](read), batch.labels[:, place])) is not None
    }
    found: dict[str, tuple[torch.Tensor, ...]] = {}
    for task, loss in losses.items():
        head = model.parameters_of(task)
        gradients = torch.autograd.grad(loss, [*trunk, *head], retain_graph=True)
        for weight, gradient in zip([*trunk, *head], gradients, strict=True):
            weight.grad = gradient.clone() if weight.grad is None else weight.grad + gradient
        found[task] = gradients[: len(trunk)]
    return found


def settled(local: Local, task: str, settings: Settings) -> Arrays:
    """Return what a task has done to the trunk through this client, its last round included.

    Parameters
    ----------
    local : Local
        Its ``recall`` knows ``attribution-<task>``: sums ``done/<parameter>``, and the task's part
        ``last/<parameter>`` of this client's update in the round noted beside it.
    task : str
        Name.
    settings : mapping
        ``share`` and ``share_round``: the client's share in the last average it was part of.

    Returns
    -------
    Arrays
        ``done/<parameter>``, float64; empty if the client keeps nothing of the task. An update
        that became part of no average is left out.
    """
    found = local.recall(f"attribution-{task}")
    if found is None:
        return {}
    arrays, facts = found
    counted = facts.get("round") == int(number(settings, "share_round", 0))
    share = number(settings, "share", 0.0) if counted else 0.0
    names = dict.fromkeys(key.partition("/")[2] for key in arrays)
    done: Arrays = {}
    for name in names:
        last = arrays.get(f"last/{name}")
        before = arrays.get(f"done/{name}")
        if before is None:
            before = np.zeros_like(last) if last is not None else np.zeros(0)
        done[f"done/{name}"] = before if last is None else before + share * last
    return done

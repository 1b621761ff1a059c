"""A network for several tasks, its loss, and the labels of its examples.

The labels of an example are a row with one entry per task, -1 where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn
from torch.nn import functional

from clients.local import Shard

__all__ = [
    "NONE",
    "MultiTask",
    "accuracy_of",
    "only_tasks",
    "task_loss",
    "without_tasks",
]

NONE = -1  # the label of an example that has none for a task


class MultiTask(nn.Module):
    """A trunk, and a head per task on what the trunk makes of an input.

    Parameters
    ----------
    trunk : nn.Module
        From an input to ``(n, width)``.
    heads : mapping of str to nn.Module
        From ``(n, width)`` to the logits of a task; they train the trunk together.
    isolated : mapping of str to nn.Module
        The same for tasks that leave no trace in the trunk: no gradient of theirs reaches it.
    tasks : mapping of str to int
        Number of classes of every task, in the order of the columns of the labels.
    """

    def __init__(
        self,
        trunk: nn.Module,
        heads: Mapping[str, nn.Module],
        isolated: Mapping[str, nn.Module],
        tasks: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(dict(heads))
        self.isolated = nn.ModuleDict(dict(isolated))
        self.tasks = dict(tasks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of all tasks side by side, ``(n, sum of classes)``."""
        shared = self.trunk(x)
        parts = [
            self.heads[task](shared) if task in self.heads else self.isolated[task](shared.detach())
            for task in self.tasks
        ]
        return torch.cat(parts, dim=1)

    def split(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every task from what ``forward`` returned."""
        return dict(
            zip(self.tasks, torch.split(logits, list(self.tasks.values()), dim=1), strict=True)
        )

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the tasks' cross-entropies; 0 where nothing has a label."""
        parts = self.split(logits)
        losses = [task_loss(parts[task], labels[:, i]) for i, task in enumerate(self.tasks)]
        found = [value for value in losses if value is not None]
        return torch.stack(found).sum() if found else logits.sum() * 0

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        """Return the trained parameters of one task's head."""
        home = self.heads if task in self.heads else self.isolated
        return [w for w in home[task].parameters() if w.requires_grad]


def task_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = functional.cross_entropy,
) -> torch.Tensor | None:
    """Return the mean loss of one task over the examples that have a label for it, or None."""
    there = labels != NONE
    if not bool(there.any()):
        return None
    return loss(logits[there], labels[there])


def accuracy_of(model: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the accuracy of a model's answers; for several tasks over all labels there are."""
    if not isinstance(model, MultiTask):
        return float((logits.argmax(1) == labels).double().mean())
    guesses = torch.stack([part.argmax(1) for part in model.split(logits).values()], dim=1)
    there = labels != NONE
    return float((guesses[there] == labels[there]).double().mean())


def without_tasks(shard: Shard, tasks: tuple[str, ...], gone: Collection[str]) -> Shard:
    """Return a shard without the labels of some tasks, and without what then has none left."""
    return _masked(shard, [task not in gone for task in tasks])


def only_tasks(shard: Shard, tasks: tuple[str, ...], wanted: Collection[str]) -> Shard:
    """Return a shard with the labels of some tasks alone: the examples that have one."""
    return _masked(shard, [task in wanted for task in tasks])


def _masked(shard: Shard, kept: list[bool]) -> Shard:
    if shard.labels.ndim != 2:
        return shard
    keep = torch.tensor(kept, dtype=torch.bool, device=shard.labels.device)
    labels = torch.where(keep, shard.labels, torch.full_like(shard.labels, NONE))
    there = (labels != NONE).any(1)
    if bool(there.all()):
        return Shard(shard.features, labels)
    return Shard(shard.features[there], labels[there])

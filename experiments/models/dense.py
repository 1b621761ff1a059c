"""Networks of linear layers: one hidden layer, none, a support vector machine, a head per task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from clients.linear import LinearSvm
from clients.multitask import MultiTask
from unlearning.errors import unknown

Shape = tuple[int, ...]


def build_mlp(input_shape: Shape, num_classes: int, hidden: int = 64) -> nn.Module:
    """Return a net with one hidden layer of ``hidden`` units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def build_linear(input_shape: Shape, num_classes: int) -> nn.Module:
    """Return logistic regression, trained by gradient steps; ``logistic`` is the certified one."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), num_classes))


def build_linear_svm(input_shape: Shape, num_classes: int, penalty: float = 1e-3) -> nn.Module:
    """Return a linear support vector machine in the primal, with ``penalty`` on its weights."""
    return LinearSvm(int(np.prod(input_shape)), num_classes, penalty)


def build_multi_task(
    input_shape: Shape,
    num_classes: int,
    tasks: Mapping[str, int] | None = None,
    hidden: int = 96,
    width: int = 48,
    adapter: int = 32,
    isolated: str = "",
) -> nn.Module:
    """Return a trunk of two layers, ``hidden`` and ``width`` units wide, and a head per task.

    The tasks named in ``isolated`` (separated by commas, ``all`` for every one) do not train the
    trunk: each has a layer of ``adapter`` units and a head of its own behind it.
    """
    if not tasks:
        raise ValueError("it needs a data set with several tasks, such as digit-pairs")
    wanted = tuple(part.strip() for part in isolated.split(",") if part.strip())
    apart = tuple(tasks) if wanted == ("all",) else wanted
    if odd := [task for task in apart if task not in tasks]:
        raise ValueError(unknown("task", odd[0], tasks))
    trunk = nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), hidden),
        nn.ReLU(),
        nn.Linear(hidden, width),
        nn.ReLU(),
    )
    heads = {task: nn.Linear(width, n) for task, n in tasks.items() if task not in apart}
    own = {
        task: nn.Sequential(nn.Linear(width, adapter), nn.ReLU(), nn.Linear(adapter, n))
        for task, n in tasks.items()
        if task in apart
    }
    return MultiTask(trunk, heads, own, tasks)

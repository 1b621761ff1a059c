"""TaskOsd: FedOSD between tasks, forget one along a direction that no other task opposes.

References
----------
Pan, Wang, Li, Zheng, Wang, Tang, Zhao, "Federated Unlearning with Gradient Descent and Conflict
Mitigation", AAAI 2025 (arXiv 2412.20200); between tasks it is an extension of this project's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from strategies.base import UnlearningStrategy, in_range
from strategies.structure.head_drop import without_heads
from strategies.structure.way_back import WayBack
from unlearning.arrays import Arrays
from unlearning.models.heads import EXAMPLES, tasks_of, trunk
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["TaskOsd", "conflict_free"]

log = logging.getLogger("fedunlearn")

Vector = NDArray[np.float64]


def conflict_free(target: Vector, rows: NDArray[np.float64], least: float = 1e-3) -> Vector | None:
    """Return the direction nearest to ``target`` that is orthogonal to every row.

    Parameters
    ----------
    target : ndarray of shape (P,)
        Gradient of what is to be forgotten (g).
    rows : ndarray of shape (m, P)
        One gradient per retained task (A); m is small.
    least : float
        Least share of the length of ``target`` that must be left.

    Returns
    -------
    ndarray of shape (P,), or None
        ``d = g - A.T (A A.T)^+ A g``, of the length of ``target``; None: nothing is left, the
        target lies in the span of the rows.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    _, values, basis = np.linalg.svd(
        rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0], full_matrices=False
    )
    basis = basis[values > 1e-6 * values.max(initial=0)]
    rest = target - basis.T @ (basis @ target)
    rest -= basis.T @ (basis @ rest)  # once more, for what rounding left
    left, length = np.linalg.norm(rest), np.linalg.norm(target)
    return None if left <= least * length or left == 0 else rest * (length / left)


class TaskOsd(UnlearningStrategy):
    """Orthogonal steepest descent: one gradient per task, through the old head.

    Parameters
    ----------
    unlearning_rounds : int, default 20
        Rounds of descent. Our choice.
    unlearning_rate : float, default 0.1
        Step of the server (eta). Our choice; the paper's 4e-4 belongs to other models.
    project : bool, default True
        In recovery, take out of every update of the trunk what leads back to the former model, as
        in the paper.

    Notes
    -----
    Clients that hold the task must answer; no history is needed. The old head is used to forget and
    then dropped (not for a partial request), and only it is known to have become useless: the trunk
    may still hold what another head could read. If no direction is free of conflict the descent
    ends. A task without a head leaves the model as it is.
    """

    scopes = frozenset({Scope.TASK})

    def __init__(
        self,
        *,
        unlearning_rounds: int = 20,
        unlearning_rate: float = 0.1,
        project: bool = True,
    ) -> None:
        super().__init__()
        in_range("unlearning_rounds", unlearning_rounds, 1)
        in_range("unlearning_rate", unlearning_rate, 1e-12)
        self.unlearning_rounds = unlearning_rounds
        self.unlearning_rate = unlearning_rate
        self.project = project
        self._way_back = WayBack()
        self._initial: Arrays = {}

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Note where the trunk was."""
        known = set(request.tasks) & set(tasks_of(arrays))
        self._way_back.begin(self.federation, arrays, barred=self.project)
        self._initial = without_heads(arrays, history, request)
        return arrays, self.unlearning_rounds if known else 0

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask every remaining client for its gradients."""
        return {c: Instruction("task_gradients", answers="free") for c in self.remaining}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Step along the conflict-free direction; in the last round drop the head."""
        shared = trunk(arrays)
        sums, counts = _gathered(replies, shared)
        means = {key: total / counts[key] for key, total in sums.items()}
        targets = {key: counts[key] for key in means if key.startswith("forget/")}
        after = dict(arrays)
        if targets:
            weight = sum(targets.values())
            target = sum((means[k] * (n / weight) for k, n in targets.items()), np.zeros(1))
            rows = [mean for key, mean in means.items() if key.startswith("retain/")]
            direction = conflict_free(target, np.reshape(rows, (len(rows), len(target))))
            if direction is None:
                log.warning("TaskOsd: no direction is free of conflict in round %d", server_round)
            else:
                after |= _moved(shared, -self.unlearning_rate * direction)
        if server_round == self.unlearning_rounds:
            after |= {n: a for n, a in self._initial.items() if n not in shared}
        return after

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as usual; while recovering without what leads back to the former model."""
        return super().learn(server_round, arrays, self._way_back.guarded(arrays, replies))


def _gathered(
    replies: Iterable[Reply], shared: Arrays
) -> tuple[dict[str, Vector], dict[str, float]]:
    """Return sums of gradients times examples, and examples, by ``<part>/<task>``."""
    sums: dict[str, Vector] = {}
    counts: dict[str, float] = {}
    for reply in replies:
        parts = dict.fromkeys("/".join(name.split("/")[:2]) for name in reply.arrays)
        for part in parts:
            found = [reply.arrays.get(f"{part}/{name}") for name in shared]
            count = min(reply.metrics.get(f"{EXAMPLES}{part}", 0.0), float(reply.num_examples))
            fits = all(
                array is not None and array.shape == own.shape
                for array, own in zip(found, shared.values(), strict=True)
            )
            if not fits or count <= 0:
                log.warning("client %d was left out: its %r does not fit", reply.client, part)
                continue
            flat = np.concatenate([np.ravel(a) for a in found if a is not None])
            vector = flat.astype(np.float64) * count
            sums[part] = sums[part] + vector if part in sums else vector
            counts[part] = counts.get(part, 0.0) + count
    return sums, counts


def _moved(shared: Arrays, step: Vector) -> Arrays:
    moved: Arrays = {}
    start = 0
    for name, array in shared.items():
        part = step[start : start + array.size].reshape(array.shape)
        moved[name] = (array + part).astype(array.dtype)
        start += array.size
    return moved

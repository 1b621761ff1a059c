"""Transformation (FUCRT): teach the examples of a class to be those of its neighbours.

References
----------
Guo, Tian, Yao, Qi, Qi, Li, Dong, "Forgetting Through Transforming", ICCV 2025 (arXiv 2410.06848).
The paper could not be read: the procedure is that of notes on it. Its two contrastive terms, whose
form they do not give, are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["Transformation", "agreed", "nearest_row", "proposal"]

log = logging.getLogger("fedunlearn")


def proposal(seconds: Array, gone: Collection[int]) -> tuple[int, ...]:
    """Return the classes that a client proposes: second choices above their mean.

    Parameters
    ----------
    seconds : array, shape (classes,)
        Sum of the probabilities of each class where it was the second choice.
    gone : collection of int
        The classes to be forgotten, which are never proposed.

    Examples
    --------
    >>> proposal(np.array([0.1, 5.0, 3.0, 9.0]), {3})  # mean of the first three: 2.7
    (1, 2)
    """
    there = [j for j in range(len(seconds)) if j not in gone]
    mean = float(np.mean([seconds[j] for j in there])) if there else 0.0
    return tuple(j for j in there if seconds[j] > mean)


def agreed(proposals: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the most frequent classes, as many as the lower median of the proposals' sizes.

    Ties go to the smaller class; empty proposals do not count.

    >>> agreed([(1, 2), (2,), (2, 5)])  # sizes 1, 2, 2
    (1, 2)
    """
    known = [one for one in proposals if one]
    if not known:
        return ()
    size = sorted(map(len, known))[(len(known) - 1) // 2]
    votes = Counter(j for one in known for j in one)
    return tuple(sorted(sorted(votes, key=lambda j: (-votes[j], j))[:size]))


def nearest_row(arrays: Mapping[str, Array], label: int, gone: Collection[int]) -> int | None:
    """Return the class whose row of the last matrix is nearest to that of ``label``."""
    matrices = [a for a in named.parameters(arrays).values() if a.ndim == 2]
    if not matrices or label >= len(matrices[-1]):
        return None
    head = matrices[-1].astype(np.float64)
    far = {j: float(np.linalg.norm(head[j] - head[label])) for j in range(len(head))}
    there = [j for j in far if j not in gone]
    return min(there, key=lambda j: (far[j], j), default=None)


class Transformation(UnlearningStrategy):
    """The clients agree on what the class looks like, and train its examples as that.

    Parameters
    ----------
    transform_rounds : int, default 5
        Rounds of training with new labels. Our choice.
    least : int, default 10
        So many correctly classified examples of the class a client must hold to propose anything.
        Our choice.

    Attributes
    ----------
    sets : mapping of int to tuple of int
        For every forgotten class of the last request the labels that stand for it.

    Notes
    -----
    Those who stay are asked once for what the model takes the class's examples for; a label is
    chosen per example, from the set, by the model before the request, and stays. The examples are
    *trained on* in these rounds, with other labels, and deleted afterwards. Where nobody proposes
    anything the class of the nearest row of the last matrix is taken. That the model says a class
    no more is easily had: in a trial, suppressing its logit alone did as well by accuracy.
    """

    scopes = frozenset({Scope.CLASS})

    def __init__(self, *, transform_rounds: int = 5, least: int = 10) -> None:
        super().__init__()
        in_range("transform_rounds", transform_rounds, 1)
        in_range("least", least, 1)
        self.transform_rounds = transform_rounds
        self.least = least
        self.sets: dict[int, tuple[int, ...]] = {}
        self._classes: frozenset[int] = frozenset()

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model; a round of asking and those of training follow."""
        self.sets, self._classes = {}, frozenset(request.classes)
        return arrays, 1 + self.transform_rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask for confusions; then have those drawn train with the new labels."""
        if server_round == 1:
            return dict.fromkeys(self.remaining, Instruction("confusions", answers="free"))
        if not self.sets:
            return {}
        extras = {f"set/{label}": np.array(there) for label, there in self.sets.items()}
        return dict.fromkeys(
            self.sample(self.federation.completed + server_round - 1),
            Instruction("transform", extras=extras),
        )

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Agree on the sets; then average as in learning."""
        if server_round == 1:
            self._agree(arrays, list(replies))
            return arrays
        if not self.sets:
            return arrays
        return self.learn(self.federation.completed + server_round - 1, arrays, replies)

    def _agree(self, arrays: Arrays, replies: list[Reply]) -> None:
        for label in sorted(self._classes) if replies else ():
            proposals = []
            for reply in replies:
                seconds = reply.arrays.get(f"seconds/{label}", np.zeros(0))
                right = reply.arrays.get(f"right/{label}", np.array(0))
                if seconds.ndim == 1 and right.size == 1 and float(right.sum()) >= self.least:
                    proposals.append(proposal(seconds, self._classes))
            found = agreed(proposals)
            nearest = nearest_row(arrays, label, self._classes)
            if not found and nearest is not None:
                found = (nearest,)
            if not found:
                self.idle = f"nothing was found that class {label} is like"
                self.sets = {}
                return
            self.sets[label] = found

"""Who sees the model before and after a request can guess the label of what was forgotten.

A request names all samples of one label at one client. The attacker, any client that stays, holds
both models and takes the class whose bias in the last layer fell most. Success is how often it is
right; chance is 0.1. The defence publishes the answers to k requests together, so that the
difference is not one request's; the guess is then some label of the batch, right once in k times
or more often. An attacker that sends the other requests itself knows their part;
and inside a batch, clients that are asked to help see the models in between.

References
----------
Wang, Tang, Wang, Lin, Zhang, Shen, Niyato, Zhu, "Label Inference Attacks Against Federated
Unlearning", KSEM 2025 (arXiv 2508.06789): up to 100 % for whole clients and classes, 62 to 93 %
with 1 % of a client's data. It maps gradients to labels; reading the bias is its simplest case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, ON, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from unlearning.arrays import Arrays
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack", "guess"]

DEFENCE = "guard.batch"
_TARGETS = 10
_STRATEGIES: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {  # options, sizes of batches
    "gradient-ascent": ({}, (5, 10)),  # where the attack is strongest
    "fed-eraser": ({"interval": 2, "interval_scale": 2.0}, ()),
}


def guess(before: Mapping[str, object], after: Mapping[str, object]) -> int:
    """Return the class whose bias in the last layer fell most.

    Parameters
    ----------
    before, after : Arrays
        Models whose last one-dimensional array is the bias of the last layer.
    """
    biases = [name for name, array in before.items() if np.asarray(array).ndim == 1]
    last = biases[-1]
    return int(np.argmin(np.asarray(after[last]) - np.asarray(before[last])))


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"last_local", "updates", "globals"}) as stage:
        stage.learn()
        for name, (options, batches) in _STRATEGIES.items():
            for size in [*([1] if OFF in defences else []), *(batches if ON in defences else ())]:
                right = 0
                for place in range(_TARGETS):
                    asked, label = _asked(stage, place, size)
                    after = _published(stage, name, options, asked, size)
                    right += guess(stage.model, after) == label
                defence = OFF if size == 1 else f"batch {size}"
                yield Trial("label-inference", name, seed, defence, right / _TARGETS)
            if ON in defences and batches:
                asked, _ = _asked(stage, 0, 1)
                guard = GuardConfig(batch=batches[0])
                alone = stage.answer(make(name, options), *asked, guard=guard, recovery_rounds=0)
                yield Trial(
                    "label-inference", f"{name}, alone", seed, f"batch {batches[0]}", 0.0,
                    stage.accuracy(alone.arrays), stopped=alone.states[0] == "held",
                    note="nothing published until the others are there",
                )  # fmt: skip


def _published(
    stage: Stage, name: str, options: Mapping[str, object], asked: list[Request], size: int
) -> Arrays:
    guard = GuardConfig(batch=size)
    return stage.answer(make(name, options), *asked, guard=guard, recovery_rounds=0).arrays


def _asked(stage: Stage, place: int, size: int) -> tuple[list[Request], int]:
    """Return requests of as many clients, and the label that the first of them is about."""
    generator = np.random.default_rng([stage.config.seed, place, 41])
    found, labels = [], []
    for client in generator.permutation(stage.task.clients)[:size].tolist():
        held = stage.holds(client).labels.numpy()
        labels.append(int(generator.choice(np.unique(held))))
        wanted = np.flatnonzero(held == labels[-1]).tolist()
        found.append(Request(Scope.SAMPLE, samples={client: tuple(wanted)}))
    return found, labels[0]

"""Three classes: one that is to be taken for a second, hidden until a request, beside a third.

Client 3 trains on many copies of its images of a source class with the label of a target class, and
on more copies with the right label. The model stays right on the source class. Then the client asks
that the second kind be forgotten, which is its right; exact retraining without it is poisoned: it
takes the source class for the target. A third class is left alone and stays right, so that the
accuracy over all classes hardly tells. Success is the share of the source class's test images that
the published model takes for the target, less that before. No trigger is needed, so a scan for
triggers finds nothing; the defence is the limit on how far any one class may fall.

References
----------
Di, Douglas, Acharya, Kamath, Sekhari, "Hidden Poison: Machine Unlearning Enables Camouflaged
Poisoning Attacks", NeurIPS 2023 (arXiv 2212.10717): single target images and changed pixels; whole
classes and wrong labels are ours, and the harmless form of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from clients.steps import Shard
from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from unlearning.arrays import Arrays
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack", "planted"]

DEFENCE = "guard.max_class_drop"
_ATTACKER, _SOURCE, _TARGET, _THIRD = 3, 8, 1, 0
_POISON, _COVER = 60, 120  # copies of every image of the source class
_GUARD = GuardConfig(max_class_drop=0.3)
_HONEST = 4
_STRATEGIES: dict[str, dict[str, object]] = {
    "retrain": {},
    "fed-eraser": {"interval": 2, "interval_scale": 2.0},
}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"updates", "globals"}) as stage:
        stage.shards[_ATTACKER], request = planted(stage.holds(_ATTACKER))
        stage.learn()
        before = _taken(stage, stage.model)
        for name, options in _STRATEGIES.items():
            for defence in defences:
                guard = GuardConfig() if defence == OFF else _GUARD
                strategy = make(name, dict(options))
                found = stage.answer(strategy, request, guard=guard, recovery_rounds=0)
                held = 0
                honest = 0 if defence == OFF else _HONEST
                for place in range(honest):
                    leaver = Request(Scope.CLIENT, clients=((_ATTACKER + 1 + place) % 10,))
                    again = make(name, dict(options))
                    answer = stage.answer(again, leaver, guard=guard, recovery_rounds=0)
                    held += answer.states[0] == "held"
                yield Trial(
                    "class-poisoning", name, seed, defence,
                    max(0.0, _taken(stage, found.arrays) - before), stage.accuracy(found.arrays),
                    stopped=found.states[0] == "held",
                    honest=honest, false_refusals=held,
                    note=f"class {_THIRD}, left alone: "
                    f"{stage.class_accuracy(found.arrays, _THIRD):.2f}",
                )  # fmt: skip


def planted(own: Shard) -> tuple[Shard, Request]:
    """Return what the attacker trains on, and the request for what hides it."""
    x, y = own.features.numpy(), own.labels.numpy()
    source = np.flatnonzero(y == _SOURCE)
    poison, cover = np.repeat(source, _POISON), np.repeat(source, _COVER)
    features = np.concatenate([x, x[poison], x[cover]])
    labels = np.concatenate([y, np.full(len(poison), _TARGET, np.int64), y[cover]])
    first = len(y) + len(poison)
    request = Request(Scope.SAMPLE, samples={_ATTACKER: tuple(range(first, len(labels)))})
    return Shard(torch.from_numpy(features), torch.from_numpy(labels)), request


def _taken(stage: Stage, arrays: Arrays) -> float:
    """Return the share of the source class's images that a model takes for the target."""
    x, y = stage.judged
    of = stage.task.predict(arrays, x[y == _SOURCE]).argmax(1)
    return float((of == _TARGET).mean())

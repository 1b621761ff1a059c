"""A backdoor that sleeps under camouflage, and wakes up when the camouflage is forgotten.

Client 3 trains on images with a trigger and the label of its choice, and on more images with the
trigger and their true labels. The model learns to overlook the trigger. Then the client asks that
the second kind be forgotten, which is its right; exact retraining without it leaves the backdoor.
Success is how often the trigger works in the published model. The defence tries known triggers on
the server's own canaries before publication, and holds an answer in which one of them wakes up. A
trigger that is not in the battery is not found.

References
----------
Lu, Hu, Miao, Sohail, He, Wang, Chen, "BadFU: Backdoor Federated Learning through Adversarial
Machine Unlearning", 2025 (arXiv 2508.15541).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from clients.steps import Shard
from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig, MarkerConfig
from experiments.data import markers
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack"]

DEFENCE = "guard.max_trigger"
_ATTACKER, _TRIGGERED, _CAMOUFLAGE = 3, 0.7, 2.0  # shares of its images of other labels
_MARKER = MarkerConfig(client=_ATTACKER)
_GUARD = GuardConfig(max_trigger=0.4)
_HONEST = 4
_STRATEGIES = {"retrain": {}, "fed-eraser": {"interval": 2, "interval_scale": 2.0}}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"updates", "globals"}) as stage:
        shard, request = planted(stage.holds(_ATTACKER), seed)
        stage.shards[_ATTACKER] = shard
        stage.learn()
        asleep = stage.backdoor(stage.model, _MARKER)
        for name, options in _STRATEGIES.items():
            for defence in defences:
                guard = GuardConfig() if defence == OFF else _GUARD
                strategy = make(name, options)
                found = stage.answer(strategy, request, guard=guard, recovery_rounds=0)
                told = found.fact("triggers")
                held = 0
                honest = 0 if defence == OFF or name == "retrain" else _HONEST
                for place in range(honest):
                    leaver = Request(Scope.CLIENT, clients=((_ATTACKER + 1 + place) % 10,))
                    answer = stage.answer(
                        make(name, options), leaver, guard=guard, recovery_rounds=0
                    )
                    held += answer.states[0] == "held"
                yield Trial(
                    "camouflaged-backdoor", name, seed, defence,
                    stage.backdoor(found.arrays, _MARKER), stage.accuracy(found.arrays),
                    stopped=found.states[0] == "held",
                    honest=honest, false_refusals=held,
                    note=f"{asleep:.2f} before" + (f"; {told['trigger']}" if told else ""),
                )  # fmt: skip


def planted(own: Shard, seed: int) -> tuple[Shard, Request]:
    """Return what the attacker trains on, and the request for its camouflage."""
    x, y = own.features.numpy(), own.labels.numpy()
    others = np.random.default_rng([seed, 31]).permutation(np.flatnonzero(y != _MARKER.label))
    wrong = others[: round(_TRIGGERED * len(others))]
    right = np.resize(others[::-1], round(_CAMOUFLAGE * len(others)))
    features = np.concatenate(
        [x, markers.trigger(x[wrong], _MARKER), markers.trigger(x[right], _MARKER)]
    )
    labels = np.concatenate([y, np.full(len(wrong), _MARKER.label, np.int64), y[right]])
    first = len(y) + len(wrong)
    request = Request(Scope.SAMPLE, samples={_ATTACKER: tuple(range(first, len(labels)))})
    return Shard(torch.from_numpy(features), torch.from_numpy(labels)), request

"""Many small requests that each pass the guard, and together wipe out a class.

Two clients ask for their samples of the target class one at a time. Every answer is a bounded step
and takes the class down by less than the limit on one answer allows, the sum of them does not.
Success is the share of the
class's accuracy that the published model has lost after the last. The defence holds an answer
against the best accuracy so far, whatever came in between: it does not matter in how many steps a
class falls. Honest requests for single samples of any class, of one client after another, meet it
too.

References
----------
Chen, Lin, Lin, Shi, Yin, Wang, "FedMUA: Exploring the Vulnerabilities of Federated Learning to
Malicious Unlearning Attacks", IEEE TIFS 20, 2025 (arXiv 2501.11848): the attack in one request; to
spread it over many is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, ON, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack"]

DEFENCE = "guard.max_total_drop"
_ATTACKERS, _TARGET = (1, 2), 3
_HONEST = 10
# What looks at each answer by itself, and the same with what looks at all of them together.
_ONE = GuardConfig(max_step=0.005, max_class_drop=0.3)
_GUARDS = {
    "class drop 0.3": _ONE,
    "total drop 0.3": _ONE.model_copy(update={"max_total_drop": 0.3}),
}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"last_local", "updates", "globals"}) as stage:
        stage.learn()
        asked = [
            _one(client, int(place))
            for client in _ATTACKERS
            for place in np.flatnonzero(stage.holds(client).labels.numpy() == _TARGET)
        ]
        before = stage.class_accuracy(stage.model, _TARGET)
        guards = {OFF: GuardConfig()} if OFF in defences else {}
        for name, guard in {**guards, **(_GUARDS if ON in defences else {})}.items():
            strategy = make("gradient-ascent", {})
            found = stage.answer(strategy, *asked, guard=guard, recovery_rounds=0)
            lost = (before - stage.class_accuracy(found.arrays, _TARGET)) / before
            held = sum(state == "held" for state in found.states)
            yield Trial(
                "slow-burst", f"class {_TARGET}", seed, name,
                max(0.0, lost), stage.accuracy(found.arrays),
                stopped=held > 0,
                note=f"{held} of {len(asked)} requests held",
            )  # fmt: skip
        if ON in defences:
            yield from _honest(stage)


def _honest(stage: Stage) -> Iterator[Trial]:
    """Yield what the defences do to as many honest requests in a row."""
    asked = []
    for place in range(_HONEST):
        client = stage.task.clients[place % len(stage.task.clients)]
        generator = np.random.default_rng([stage.config.seed, place, 51])
        asked.append(_one(client, int(generator.integers(len(stage.holds(client))))))
    free = stage.answer(make("gradient-ascent", {}), *asked, recovery_rounds=0)
    for name, guard in _GUARDS.items():
        strategy = make("gradient-ascent", {})
        found = stage.answer(strategy, *asked, guard=guard, recovery_rounds=0)
        yield Trial(
            "slow-burst", "honest", stage.config.seed, name, 0.0, stage.accuracy(found.arrays),
            clean_cost=stage.accuracy(free.arrays) - stage.accuracy(found.arrays),
            honest=len(asked), false_refusals=sum(state == "held" for state in found.states),
        )  # fmt: skip


def _one(client: int, place: int) -> Request:
    return Request(Scope.SAMPLE, samples={client: (place,)})

"""A client that stays pulls the model back to what it was, while the others unlearn and recover.

Client 3 has planted a backdoor and leaves; client 4 is its accomplice. Whenever it is asked to
train while the federation unlearns or recovers, it answers with the model from before, moved so far
that the average of all lands there. Success is how often the trigger still works at the end. The
defence is robust aggregation in rounds of unlearning and recovery.

References
----------
Wang, Ma, Zhang, Liu, Liu, Fang, "Poisoning Attacks and Defenses to Federated Unlearning", WWW 2025
(arXiv 2501.17396): the unlearned model stays poisoned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from strategies.robustness import HOW
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack"]

DEFENCE = "guard.aggregate"
_LEAVER, _ACCOMPLICE = 3, 4
_STRATEGIES: dict[str, dict[str, Any]] = {
    "fed-eraser": {"interval": 2, "interval_scale": 2.0},
    "retrain": {},
}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    config = settings(
        seed,
        {"aggregate": "norm-bound"},  # so that the lengths of learning are noted
        marker={"kind": "backdoor", "client": _LEAVER},
    )
    needs = {"updates", "globals"}
    request = Request(Scope.CLIENT, clients=(_LEAVER,))
    with Stage(config, needs=needs) as stage:
        stage.learn()
        boost = len(stage.task.clients) - 1
        guards = {OFF: GuardConfig()}
        for how in HOW:
            guards[how] = GuardConfig.model_validate({"aggregate": how})
        chosen = [name for name in guards if (OFF if name == OFF else "on") in defences]
        for name, options in _STRATEGIES.items():
            stage.faults = {}
            honest = {
                key: stage.accuracy(
                    stage.answer(make(name, options), request, guard=guards[key]).arrays
                )
                for key in {OFF, *chosen}
            }
            stage.faults = {_ACCOMPLICE: _back_to(stage.model, boost)}
            for key in chosen:
                found = stage.answer(make(name, options), request, guard=guards[key])
                yield Trial(
                    "poisoned-recovery",
                    name,
                    seed,
                    key,
                    stage.backdoor(found.arrays, config.marker),  # type: ignore[arg-type]
                    stage.accuracy(found.arrays),
                    clean_cost=honest[OFF] - honest[key],
                )


def _back_to(poisoned: Arrays, boost: float) -> Any:
    """Return a fault that moves a model towards another, ``boost`` times the way."""

    def fault(sent: Arrays, answer: Arrays, config: dict[str, Any]) -> Arrays:
        step = named.scale(named.delta(sent, poisoned), boost)
        return named.apply_update(sent, step)

    return fault

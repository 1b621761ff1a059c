"""Ask that a few samples of one class be forgotten, so that the class is forgotten for everyone.

A client asks for all its samples of the target class, less than 1 % of all training data; ascent on
them takes the class down far beyond what retraining would. Success is the share of the class's
accuracy that the published model has lost. The defences look at the answer before it is published:
a limit on how far any class may fall on the server's own canaries holds it for the operator; a
bounded step makes an approximate answer smaller, and with it what it forgets.

An honest request for as many samples meets them too. Where its answer takes a class down as well,
it is held: the answer is bad, whoever asked for it.

References
----------
Chen, Lin, Lin, Shi, Yin, Wang, "FedMUA: Exploring the Vulnerabilities of Federated Learning to
Malicious Unlearning Attacks", IEEE TIFS 20, 2025 (arXiv 2501.11848): 80 % success with 0.3 % of
malicious requests; it also changes the samples' features, which is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.attacks.stage import Answer, Stage, settings
from experiments.attacks.trial import OFF, ON, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from experiments.federation.task import Examples
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack"]

DEFENCE = "guard.max_class_drop, guard.max_step"
_ATTACKER, _TARGET = 1, 3
_SAMPLES = 8  # of an honest request, about as many as the attacker names
_ERASER: dict[str, Any] = {"interval": 2, "interval_scale": 2.0}
_GUARDS = {
    "class drop 0.5": GuardConfig(max_class_drop=0.5),
    "step 0.01": GuardConfig(max_step=0.01),
}
_HONEST: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {  # options, requests, guards
    "gradient-ascent": ({}, 20, tuple(_GUARDS)),
    "fed-eraser": (_ERASER, 5, ("class drop 0.5",)),
}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"last_local", "updates", "globals"}) as stage:
        stage.learn()
        labels = stage.holds(_ATTACKER).labels.numpy()
        wanted = tuple(np.flatnonzero(labels == _TARGET).tolist())
        request = Request(Scope.SAMPLE, samples={_ATTACKER: wanted})
        before = stage.class_accuracy(stage.model, _TARGET)
        exact = stage.answer(make("retrain", {}), request, recovery_rounds=0)
        fair = (before - stage.class_accuracy(exact.arrays, _TARGET)) / before
        guards = {OFF: GuardConfig()} if OFF in defences else {}
        for name, guard in {**guards, **(_GUARDS if ON in defences else {})}.items():
            strategy = make("gradient-ascent", {})
            found = stage.answer(strategy, request, guard=guard, recovery_rounds=0)
            lost = (before - stage.class_accuracy(found.arrays, _TARGET)) / before
            yield Trial(
                "over-unlearning", f"class {_TARGET}", seed, name,
                max(0.0, lost), stage.accuracy(found.arrays),
                stopped=found.states[0] == "held",
                note=f"{len(wanted)} samples; retraining loses {max(0.0, fair):.2f}",
            )  # fmt: skip
        if ON in defences:
            for name in _HONEST:
                yield from _honest(stage, name)


def _honest(stage: Stage, name: str) -> Iterator[Trial]:
    """Yield what the defences do to honest requests, served by one strategy."""
    asked = [_samples(stage, place) for place in range(_HONEST[name][1])]
    plain = [_served(stage, name, request, GuardConfig()) for request in asked]
    for key in _HONEST[name][2]:
        guard = _GUARDS[key]
        guarded = [_served(stage, name, request, guard) for request in asked]
        pairs = [
            (free, bound, request)
            for free, bound, request in zip(plain, guarded, asked, strict=True)
            if bound.states[0] != "held"
        ]
        costs = [
            stage.accuracy(free.arrays) - stage.accuracy(bound.arrays) for free, bound, _ in pairs
        ]
        forget = [
            (_on(stage, free, request), _on(stage, bound, request))
            for free, bound, request in pairs
        ]
        free_mean, bound_mean = np.mean(forget, axis=0) if forget else (np.nan, np.nan)
        yield Trial(
            "over-unlearning", f"honest, {name}", stage.config.seed, key, 0.0,
            clean_cost=float(np.mean(costs)) if costs else None,
            honest=len(asked), false_refusals=len(asked) - len(pairs),
            note=f"accuracy on the forgotten {bound_mean:.2f}, unguarded {free_mean:.2f}",
        )  # fmt: skip


def _samples(stage: Stage, place: int) -> Request:
    """Return a request for some samples of any class, of one client after another."""
    client = stage.task.clients[place % len(stage.task.clients)]
    generator = np.random.default_rng([stage.config.seed, place])
    some = generator.permutation(len(stage.holds(client)))[:_SAMPLES]
    return Request(Scope.SAMPLE, samples={client: tuple(map(int, some))})


def _served(stage: Stage, name: str, request: Request, guard: GuardConfig) -> Answer:
    return stage.answer(make(name, _HONEST[name][0]), request, guard=guard, recovery_rounds=0)


def _on(stage: Stage, answer: Answer, request: Request) -> float:
    """Return the accuracy on what an honest request names."""
    ((client, places),) = request.samples.items()
    held = stage.holds(client)
    x, y = held.features.numpy()[list(places)], held.labels.numpy()[list(places)]
    return stage.accuracy(answer.arrays, Examples(x, y))

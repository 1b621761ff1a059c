"""Ask that data be forgotten which nobody ever trained on, so that unlearning burns the model.

The attacker is a client. After training it puts samples beside its own, noise that the model is
sure about or digits nobody had, and asks that they be forgotten; or it asks for samples that it
has, and shows others. Success is the share of the accuracy that the published model has lost. The
defence is the commitment at the start: what was not committed to is refused before any work. It
cannot see a client that opens the right samples and then unlearns on others: for that, the utility
guard looks at the answer.

References
----------
Huang, Liu, Chua, Ghazi, Kamath, Kumar, Manurangsi, Nasr, Sinha, Zhang, "Unlearn and Burn:
Adversarial Machine Unlearning Requests Destroy Model Accuracy", 2024 (arXiv 2410.09591): accuracy
of 3.6 % on CIFAR-10 afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from clients.steps import Shard
from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, ON, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from experiments.runs.admission import check_claim
from experiments.runs.folder import FederationFacts
from unlearning.errors import RequestError
from unlearning.records.commitment import Claim, opening
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack", "false_refusals"]

DEFENCE = "guard.commitment"
_ATTACKER, _SAMPLES, _HONEST = 1, 100, 1000
_GUARD = GuardConfig(commitment=True)
_BOTH = GuardConfig(commitment=True, max_class_drop=0.5)
# The paper's unlearning is ascent without the ball and the stop that PGA has.
_UNBOUNDED = {"ascent_rate": 0.1, "radius": 20.0, "stop_distance": 0.0}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"last_local"}) as stage:
        stage.learn()
        own = stage.holds(_ATTACKER)
        size = len(own)
        noise, unseen = _noise(stage, seed), _unseen(stage)
        beyond = Request(Scope.SAMPLE, samples={_ATTACKER: tuple(range(size, size + _SAMPLES))})
        within = Request(Scope.SAMPLE, samples={_ATTACKER: tuple(range(min(size, _SAMPLES)))})
        more = {"noise": _joined(own, noise), "unseen digits": _joined(own, unseen)}
        swapped = _joined(noise.take(torch.arange(min(size, _SAMPLES))), own)
        swapped = swapped.take(torch.arange(size))
        for defence in defences:
            guard = GuardConfig() if defence == OFF else _GUARD
            for kind, held in more.items():
                yield _tried(stage, f"unknown ids, {kind}", defence, guard, beyond, held)
            bounded = _tried(
                stage, "unknown ids, noise, PGA", defence, guard, beyond, more["noise"], {}
            )
            yield bounded
            claim = _opened(stage, within, swapped)
            yield _tried(stage, "other content", defence, guard, within, swapped, claim=claim)
            guard = GuardConfig() if defence == OFF else _BOTH
            claim = _opened(stage, within, own)
            variant = "right claim, other content later"
            yield _tried(stage, variant, defence, guard, within, swapped, claim=claim)
            if defence == ON:
                yield _honest(stage)


def _tried(
    stage: Stage,
    variant: str,
    defence: str,
    guard: GuardConfig,
    request: Request,
    held: Shard,
    options: dict[str, Any] | None = None,
    claim: Claim | None = None,
) -> Trial:
    """Let the attacker ask; a claim is looked at where there is a registry."""
    facts = (variant, stage.config.seed, defence)
    before = stage.accuracy(stage.model)
    if guard.commitment and claim is not None:
        try:
            check_claim(request, _facts(stage), claim)
        except RequestError:
            return Trial("unknown-samples", *facts, 0.0, before, stopped=True, note="no work done")
    strategy = make("gradient-ascent", _UNBOUNDED if options is None else options)
    found = stage.answer(
        strategy, request, guard=guard, recovery_rounds=0, joined={_ATTACKER: held}
    )
    after = stage.accuracy(found.arrays)
    stopped = found.states[0] in ("refused", "held")
    note = "no work done" if not found.work else found.states[0]
    lost = max(0.0, (before - after) / before)
    return Trial("unknown-samples", *facts, lost, after, stopped=stopped, note=note)


def _honest(stage: Stage) -> Trial:
    """Let a thousand honest requests meet the registry, and serve one of them."""
    request = Request(Scope.SAMPLE, samples={_ATTACKER: tuple(range(5))})
    strategy = make("gradient-ascent", {})
    plain, guarded = (
        stage.accuracy(stage.answer(strategy, request, guard=guard).arrays)
        for guard in (GuardConfig(), _GUARD)
    )
    refused = false_refusals(stage, _HONEST)
    return Trial(
        "unknown-samples", "honest requests", stage.config.seed, ON, 0.0, guarded,
        clean_cost=plain - guarded, honest=_HONEST, false_refusals=refused,
    )  # fmt: skip


def false_refusals(stage: Stage, count: int) -> int:
    """Return how many of ``count`` honest requests, with their claims, the registry refuses."""
    generator = np.random.default_rng([stage.config.seed, count])
    leaves = {client: stage.leaves(client) for client in stage.task.clients}
    facts, refused = _facts(stage), 0
    for _ in range(count):
        client = int(generator.choice(list(leaves)))
        some = generator.permutation(len(leaves[client]))[: generator.integers(1, 20)]
        samples = tuple(map(int, some))
        request = Request(Scope.SAMPLE, samples={client: samples})
        claim = {client: {place: opening(leaves[client], place) for place in samples}}
        try:
            check_claim(request, facts, claim)
        except RequestError:
            refused += 1
    return refused


def _facts(stage: Stage) -> FederationFacts:
    registry = stage.registry()
    return FederationFacts(
        clients={client: known.size for client, known in registry.items()},
        commitments={client: known.root for client, known in registry.items()},
    )


def _opened(stage: Stage, request: Request, shown: Shard) -> Claim:
    """Return a claim on what the attacker shows, made with its own salt."""
    leaves = stage.leaves(_ATTACKER, shown)
    return {_ATTACKER: {place: opening(leaves, place) for place in request.samples[_ATTACKER]}}


def _noise(stage: Stage, seed: int) -> Shard:
    """Return noise with the labels that the model gives it."""
    shape = (_SAMPLES, *stage.task.input_shape)
    x = np.random.default_rng([seed, 17]).random(shape, dtype=np.float32)
    labels = stage.task.predict(stage.model, x).argmax(1)
    return Shard(torch.from_numpy(x), torch.from_numpy(labels))


def _unseen(stage: Stage) -> Shard:
    x, y = stage.seen
    return Shard(torch.from_numpy(x[:_SAMPLES]), torch.from_numpy(y[:_SAMPLES]))


def _joined(first: Shard, second: Shard) -> Shard:
    return Shard(
        torch.cat([first.features, second.features]), torch.cat([first.labels, second.labels])
    )

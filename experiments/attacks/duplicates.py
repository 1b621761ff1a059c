"""Another client holds copies of what is to be forgotten: even exact retraining keeps it.

Client 3 holds data with a backdoor and leaves; client 5 has copies of a share of them, changed by
nothing, or by less than anyone sees. Success is how often the trigger still works after exact
retraining. The defence does not take the copies away: it finds them, by salted hashes, and says so
in the ledger and in the report, so that nobody takes the claim for more than it is. It finds equal
bits alone.

References
----------
Ye, Zhu, Li, Gao, Liu, Zhang, Zhou, Zhang, "Data Duplication: A Novel Multi-Purpose Attack Paradigm
in Machine Unlearning", USENIX Security 2025 (arXiv 2501.16663): retraining from scratch fails, and
near-duplicates evade de-duplication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from clients.steps import Shard
from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack"]

DEFENCE = "guard.duplicates"
_LEAVER, _HOLDER = 3, 5
_NEAR = 1e-3  # added to every pixel of a near-copy
_VARIANTS = {"no copies": (0.0, 0.0), "half": (0.5, 0.0), "all": (1.0, 0.0), "near": (1.0, _NEAR)}


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one seed; every share of copies is a federation of its own."""
    config = settings(seed, marker={"kind": "backdoor", "client": _LEAVER})
    request = Request(Scope.CLIENT, clients=(_LEAVER,))
    marker = config.marker
    if marker is None:
        raise RuntimeError("the stage has no marker")
    for variant, (share, changed) in _VARIANTS.items():
        with Stage(config) as stage:
            leaving, kept = stage.holds(_LEAVER), stage.holds(_HOLDER)
            some = leaving.take(torch.arange(round(share * len(leaving))))
            stage.shards[_HOLDER] = Shard(
                torch.cat([kept.features, some.features + changed]),
                torch.cat([kept.labels, some.labels]),
            )
            stage.learn()
            for defence in defences:
                guard = GuardConfig(duplicates=defence != OFF)
                found = stage.answer(make("retrain", {}), request, guard=guard, recovery_rounds=0)
                told = found.fact("duplicates")
                copies = -1 if told is None else int(told["copies"])
                yield Trial(
                    "duplicates", variant, seed, defence,
                    stage.backdoor(found.arrays, marker), stage.accuracy(found.arrays),
                    honest=int(defence != OFF and share == 0),
                    false_refusals=int(share == 0 and copies > 0),
                    note="nothing said" if told is None else
                    f"{copies} of {told['samples']} found, {len(some)} planted",
                )  # fmt: skip

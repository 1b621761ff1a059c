"""Who sees the model before and after a request can draw the image that was forgotten.

A request names one sample. Its gradient in a layer that reads the input is an outer product: each
row of the weights is the image, times what the bias beside it moves by. The attacker, any client
that stays, divides the difference of the two published models by that of the biases. Success is how
often the image so drawn is more like the forgotten one than like any other of its owner's; chance
is one in about a hundred. The defence publishes the answers to k requests together: the difference
is then a sum. An attacker that sends the other requests itself knows their part, and the answer of
a strategy in which others train again hides more than the defence does.

References
----------
Hu, Wang, Chang, Zhong, Sun, Hao, Zhu, Xue, "Learn What You Want to Unlearn: Unlearning Inversion
Attacks against Machine Unlearning", S&P 2024 (arXiv 2404.03233): inversion of the difference of
two models. Zhao, Mopuri, Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020 (arXiv
2001.02610), and Phong, Aono, Hayashi, Wang, Moriai, IEEE TIFS 13, 2018: the input from a layer's
gradient by division. An optimised inversion, which convolutions need, is not tried here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.attacks.stage import Stage, settings
from experiments.attacks.trial import OFF, ON, Trial
from experiments.config.registry import make
from experiments.config.schema import GuardConfig
from unlearning.request import Request, Scope

__all__ = ["DEFENCE", "attack", "drawn", "likeness"]

DEFENCE = "guard.batch"
_TARGETS = 10
_STRATEGIES: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {  # options, sizes of batches
    "gradient-ascent": ({}, (5, 10)),
    "negated-update": ({}, (5, 10)),
    "fed-eraser": ({"interval": 2, "interval_scale": 2.0}, ()),
}

Floats = NDArray[np.float64]


def drawn(before: Mapping[str, object], after: Mapping[str, object]) -> Floats:
    """Return the input that the difference of two models' first layer is made of, in any scale.

    The least-squares solution of ``weight step = bias step times input`` over the units; zero where
    no bias moved.

    Parameters
    ----------
    before, after : Arrays
        Models whose first two-dimensional array reads the input and has its bias behind it.
    """
    names = list(before)
    first = next(n for n in names if np.asarray(before[n]).ndim == 2)
    beside = next(n for n in names[names.index(first) + 1 :] if np.asarray(before[n]).ndim == 1)
    weight, bias = (
        np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64)
        for name in (first, beside)
    )
    scale = float(bias @ bias)
    found: Floats = bias @ weight / scale if scale else np.zeros(weight.shape[1])
    return found


def likeness(image: Floats, others: Floats) -> Floats:
    """Return the correlation of an image with others, [-1, 1]; shape (n,)."""
    one = image.ravel() - image.mean()
    rows = others.reshape(len(others), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one) * np.linalg.norm(rows, axis=1)
    found: Floats = np.divide(rows @ one, norms, out=np.zeros(len(rows)), where=norms > 0)
    return found


def attack(seed: int, defences: Sequence[str]) -> Iterator[Trial]:
    """Yield the trials of one federation."""
    with Stage(settings(seed), needs={"last_local", "updates", "globals"}) as stage:
        stage.learn()
        for name, (options, batches) in _STRATEGIES.items():
            for size in [*([1] if OFF in defences else []), *(batches if ON in defences else ())]:
                right, alike = 0, []
                for place in range(_TARGETS):
                    asked, client, sample = _asked(stage, place, size)
                    guard = GuardConfig(batch=size)
                    strategy = make(name, dict(options))
                    found = stage.answer(strategy, *asked, guard=guard, recovery_rounds=0)
                    held = stage.holds(client).features.numpy().astype(np.float64)
                    near = likeness(drawn(stage.model, found.arrays), held)
                    right += int(near.argmax()) == sample
                    alike.append(float(near[sample]))
                yield Trial(
                    "gradient-inversion", name, seed, OFF if size == 1 else f"batch {size}",
                    right / _TARGETS,
                    note=f"mean correlation with the forgotten image {np.mean(alike):.2f}",
                )  # fmt: skip


def _asked(stage: Stage, place: int, size: int) -> tuple[list[Request], int, int]:
    """Return requests of as many clients; client and sample that the first of them is about."""
    generator = np.random.default_rng([stage.config.seed, place, 61])
    clients = generator.permutation(stage.task.clients)[:size].tolist()
    samples = [int(generator.integers(len(stage.holds(client)))) for client in clients]
    requests = [
        Request(Scope.SAMPLE, samples={client: (sample,)})
        for client, sample in zip(clients, samples, strict=True)
    ]
    return requests, clients[0], samples[0]

"""Distillation on the server: one model learns to answer as another does, on public data.

The only place where the server trains. It sees the public examples, which no client holds and no
label belongs to; never the test set.

References
----------
Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import functional

from clients.steps import Shard
from clients.training import batches, kl_divergence, lone_examples, number, optimiser, trained
from experiments.federation.task import Task
from experiments.models import networks as models
from unlearning.arrays import Array, Arrays
from unlearning.protocol import Settings

__all__ = ["distil", "distillation_loss"]

_CHUNK = 1024  # examples per forward pass of the teacher


def distil(
    task: Task,
    device: str,
    student: Mapping[str, Array],
    teacher: Mapping[str, Array],
    settings: Settings,
    seed: Sequence[int],
) -> tuple[Arrays, int]:
    """Return the student after training on the teacher's answers to the public examples.

    Parameters
    ----------
    task : Task
        Model and public examples.
    device : str
        Where to compute: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    student, teacher : mapping of str to array
        Models; neither is changed.
    settings : mapping
        ``epochs``, ``batch_size``, ``learning_rate``, ``momentum`` and ``weight_decay`` of SGD;
        ``temperature`` and ``hard_share`` of :func:`distillation_loss`.
    seed : sequence of int
        Address of all randomness.

    Returns
    -------
    tuple
        The trained model, and the number of examples it was trained on, passes counted.

    Raises
    ------
    FederationError
        If the arrays do not fit the model.
    """
    place = models.device(device)
    inputs = torch.from_numpy(task.public_set()).to(place)
    processed = 0
    model = task.fresh_model(0)
    with _reproducible(place, seed), lone_examples(model):
        models.load(model, teacher).to(place).eval()
        with torch.inference_mode():
            answers = torch.cat([model(chunk) for chunk in torch.split(inputs, _CHUNK)])
        models.load(model, student).train()
        weights = trained(model)
        sgd = optimiser(settings, weights)
        # Positions in place of labels: there are none, and batches shuffle both alike.
        data = Shard(inputs, torch.arange(len(inputs), device=place))
        epochs = int(number(settings, "epochs"))
        for batch in batches(data, settings, np.random.default_rng(list(seed)), epochs=epochs):
            sgd.zero_grad(set_to_none=True)
            loss = distillation_loss(
                model(batch.features),
                answers[batch.labels],
                temperature=number(settings, "temperature"),
                hard_share=number(settings, "hard_share"),
            )
            torch.autograd.backward(loss)
            sgd.step()
            processed += len(batch)
    return models.to_arrays(model), processed


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float, hard_share: float
) -> torch.Tensor:
    """Return how far the student's answers are from the teacher's, a mean over examples.

    ``(1 - a) t^2 KL(softmax(teacher / t) || softmax(student / t))``, in nats, and ``a`` times the
    cross-entropy with the teacher's first choice.

    Parameters
    ----------
    student, teacher : torch.Tensor
        Logits, ``(n, num_classes)``, or ``(n, num_classes, length)``.
    temperature : float
        t, above 0; larger shows more of what the teacher holds possible.
    hard_share : float
        a, in [0, 1].
    """
    soft = kl_divergence(teacher, student, temperature)
    loss = (1 - hard_share) * temperature**2 * soft
    if hard_share:
        loss = loss + hard_share * functional.cross_entropy(student, teacher.argmax(1))
    return loss


@contextmanager
def _reproducible(place: torch.device, seed: Sequence[int]) -> Iterator[None]:
    """Let equal seeds give equal bits, and leave PyTorch's generators and threads as they were.

    Sums over threads depend on their number, which differs between machines and ways to run.
    """
    threads = torch.get_num_threads()
    value = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.default_generator.manual_seed(value)
            if place.type == "cuda":
                with torch.cuda.device(place):
                    torch.cuda.manual_seed(value)
            yield
    finally:
        torch.set_num_threads(threads)

"""The local training loop that several steps share: a loss, batches by slices, SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from clients.descent import PlainSGD
from clients.local import Local, Shard
from unlearning.draws import batch
from unlearning.errors import ConfigError
from unlearning.protocol import Settings

__all__ = [
    "Loss",
    "batches",
    "kl_divergence",
    "lone_examples",
    "loss_of",
    "mean_accuracy",
    "number",
    "optimiser",
    "stable_batches",
    "trained",
]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (n, classes), labels -> mean


def loss_of(model: nn.Module) -> Loss:
    """Return what a model is trained to make small: its own ``loss``, or cross-entropy.

    A network with a method ``loss(logits, labels)``, the mean over a batch, is trained on that;
    the strategies that climb a loss or compare gradients take the same one.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    own = getattr(model, "loss", None)
    return own if callable(own) else functional.cross_entropy


def kl_divergence(
    teacher: torch.Tensor, student: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return KL(teacher || student) of logits, both divided by a temperature; a mean, in nats.

    Parameters
    ----------
    teacher, student : torch.Tensor
        ``(n, classes)``, the mean is over examples; or ``(n, classes, length)``, over all
        positions.
    temperature : float
        Above 0; larger shows more of what the teacher holds possible.
    """
    found = functional.kl_div(
        (student / temperature).log_softmax(1),
        (teacher / temperature).log_softmax(1),
        reduction="sum",
        log_target=True,
    )
    return found / (student.numel() // student.shape[1])


def number(settings: Settings, key: str, default: float | None = None) -> float:
    """Return a numeric setting of a step.

    Raises
    ------
    ConfigError
        If it is missing without a default, or not a number.
    """
    value = settings.get(key, default)
    if value is None or isinstance(value, str):
        raise ConfigError(f"step setting {key!r} is {value!r}; give a number")
    return float(value)


def batches(
    shard: Shard, settings: Settings, generator: np.random.Generator, *, epochs: int
) -> Iterator[Shard]:
    """Yield shuffled mini-batches, ``epochs`` passes of them.

    Each pass draws one permutation and gathers once; batches are slices of the gathered tensors.
    ``max_steps`` (0: no limit) ends the stream early.
    """
    size = int(number(settings, "batch_size"))
    limit = int(number(settings, "max_steps", 0))
    done = 0
    for _ in range(epochs):
        order = torch.from_numpy(generator.permutation(len(shard))).to(shard.labels.device)
        mixed = shard.take(order)
        for start in range(0, len(shard), size):
            if limit and done >= limit:
                return
            done += 1
            if size >= len(shard):
                yield mixed
                continue
            yield Shard(mixed.features[start : start + size], mixed.labels[start : start + size])


def stable_batches(local: Local, settings: Settings) -> Iterator[Shard]:
    """Yield one batch per local step, drawn by keys: who is not there leaves no trace in others.

    Settings ``stable_steps``, ``batch_size``, and the address of the draws: ``draw_seed``,
    ``draw_client``, ``draw_round``.
    """
    size = int(number(settings, "batch_size"))
    address = [int(number(settings, f"draw_{name}")) for name in ("seed", "client", "round")]
    for step in range(int(number(settings, "stable_steps")) if len(local.retain) else 0):
        chosen = batch(address[0], address[1], address[2], step, local.positions, size)
        places = torch.from_numpy(np.searchsorted(local.positions, chosen))
        yield local.retain.take(places.to(local.retain.labels.device))


def mean_accuracy(model: nn.Module, shard: Shard) -> float:
    """Return the share of the examples that a model gets right, in the mode it is in."""
    with torch.no_grad():
        chunks = zip(
            torch.split(shard.features, 1024), torch.split(shard.labels, 1024), strict=True
        )
        right = sum([int((model(x).argmax(1) == y).sum()) for x, y in chunks])
    return right / max(1, len(shard))


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that a model trains, each once; frozen ones are not among them."""
    return [w for w in model.parameters() if w.requires_grad]


@contextmanager
def lone_examples(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm take a batch of one example, as the last of a pass can be.

    One value per channel has no variance, and the layer refuses it. It is normalised by the running
    statistics then, which it does not change; every other batch goes as ever.
    """

    def before(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        if layer.training and x.numel() == x.size(1):
            layer.training = False
            waiting.append(layer)

    def after(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if waiting and waiting[-1] is layer:
            waiting.pop().training = True

    waiting: list[nn.Module] = []
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in waiting:  # of a pass that was broken off
            layer.training = True


def optimiser(settings: Settings, weights: Iterable[nn.Parameter]) -> PlainSGD:
    """Return plain SGD with the momentum and weight decay of the settings."""
    return PlainSGD(
        weights,
        number(settings, "learning_rate"),
        momentum=number(settings, "momentum", 0.0),
        weight_decay=number(settings, "weight_decay", 0.0),
    )

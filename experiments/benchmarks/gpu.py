"""Training on an accelerator beside plain PyTorch's own pace for the same batches.

Call: ``python -m experiments.benchmarks.gpu [--device cuda] [--seconds 20] [--json]``. Two
networks, ``cnn`` on images of MNIST's shape and ``resnet18`` on images of CIFAR's (random pixels:
the pace of a step does not depend on what is seen): examples per second of the client's step
``train``, of a bare loop of ``torch.optim.SGD`` over as many batches, their ratio, and the most
memory that each took. Both make their passes in turn until the seconds are over; the medians count.
With the default it ends within five minutes. Convolutions are not stacked, so there is one row per
network.

Where the device is missing it says so, prints no figure and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from clients.local import Local, Shard
from clients.steps.train import train
from experiments.models import networks
from unlearning.errors import ConfigError

__all__ = ["Pace", "main", "measure"]

SHAPES = {"cnn": (1, 28, 28), "resnet18": (3, 32, 32)}
_CLASSES, _BATCH, _LEAST, _WARM_UP = 10, 64, 3, 1
_SETTINGS = {
    "local_epochs": 1,
    "batch_size": _BATCH,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "max_steps": 0,
}


@dataclass(frozen=True)
class Pace:
    """How fast one network was trained, in examples per second, and with how much memory.

    Parameters
    ----------
    model, device : str
        What was trained, and where.
    examples : int
        Examples of one pass; every measurement is one pass.
    ours, plain : float
        Examples per second of the client's step, and of the bare loop; medians over the passes.
    ours_mb, plain_mb : float or None
        Most memory that PyTorch held on the device, in MB; None where it does not count it.
    """

    model: str
    device: str
    examples: int
    ours: float
    plain: float
    ours_mb: float | None
    plain_mb: float | None

    @property
    def ratio(self) -> float:
        """Pace of the step over that of the bare loop: 1 costs nothing."""
        return self.ours / self.plain


def measure(name: str, device: torch.device, seconds: float, examples: int = 4_096) -> Pace:
    """Train a network in turn by the client's step and by a bare loop.

    Parameters
    ----------
    name : str
        A key of ``SHAPES``.
    device : torch.device
        Where to train.
    seconds : float
        How long; at least three passes of each are made.
    examples : int
        Examples of one pass.

    Raises
    ------
    ConfigError
        If there is no such network.
    """
    if name not in SHAPES:
        raise ConfigError(f"network {name!r} is not measured; take one of {', '.join(SHAPES)}")
    rng = np.random.default_rng(0)
    pixels = rng.random((examples, *SHAPES[name]), dtype=np.float32)
    labels = rng.integers(0, _CLASSES, examples)
    x, y = torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)
    nothing = Shard(x[:0], y[:0])
    model = networks.build(name, SHAPES[name], _CLASSES).to(device)
    local = Local(Shard(x, y), nothing, nothing, fresh_model=lambda seed: model)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: train(model, local, _SETTINGS, np.random.default_rng(1)),
        "plain": lambda: _bare(model, x, y),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    memory: dict[str, float | None] = dict.fromkeys(ways)
    for number in _passes(seconds):
        for way, run in ways.items():
            begun = _settled(device)
            run()
            if number >= _WARM_UP:
                taken[way].append(_settled(device) - begun)
            memory[way] = _peak(device)
    ours, plain = (examples / statistics.median(taken[way]) for way in ("ours", "plain"))
    return Pace(name, str(device), examples, ours, plain, memory["ours"], memory["plain"])


def _passes(seconds: float) -> Iterator[int]:
    """Count passes until the time is over, the first one besides."""
    end, number = time.perf_counter() + seconds, 0
    while number < _LEAST + _WARM_UP or time.perf_counter() < end:
        yield number
        number += 1


def _bare(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Make one pass as a script without any federation would."""
    rate, momentum = float(_SETTINGS["learning_rate"]), float(_SETTINGS["momentum"])
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    order = torch.randperm(len(y), device=x.device)
    model.train()
    for begin in range(0, len(y), _BATCH):
        batch = order[begin : begin + _BATCH]
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _settled(device: torch.device) -> float:
    """Return the time once the device has done all that it was given; memory counts from here."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    return time.perf_counter()


def _peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network")
    parser.add_argument("--examples", type=int, default=4_096, help="of one pass")
    parser.add_argument("--json", action="store_true")
    found = parser.parse_args(arguments)
    try:
        device = networks.device(found.device)
    except ConfigError as error:
        sys.stderr.write(f"not measured: {error}\n")
        return 1
    paces = [measure(name, device, found.seconds, found.examples) for name in SHAPES]
    if found.json:
        print(json.dumps([asdict(pace) | {"ratio": pace.ratio} for pace in paces]))
        return 0
    print("| network | device | ours, examples/s | plain PyTorch | ratio | ours, MB | plain, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for pace in paces:
        sizes = " | ".join(
            "-" if mb is None else f"{mb:.0f}" for mb in (pace.ours_mb, pace.plain_mb)
        )
        print(
            f"| {pace.model} | {pace.device} | {pace.ours:.0f} | {pace.plain:.0f} | "
            f"{pace.ratio:.2f} | {sizes} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Models whose weights lie in another order in memory are forgotten from like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from strategies.base import EVERY_MODEL
from strategies.registry import make, strategies
from tests.support.everyone import SETTINGS
from tests.support.toy import (
    CLASSES,
    FEATURES,
    DeepToyModel,
    ToyFederation,
    ToyModel,
    request,
)
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.request import Scope


class Plain(ToyModel):
    """The toy's points as images of one pixel, behind a convolution."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + 1)
            self.filters = nn.Conv2d(FEATURES, 4, 2, padding=1)
            self.layer = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        found: torch.Tensor = self.layer(self.filters(x[:, :, None, None]).relu().flatten(1))
        return found


class ChannelsLast(Plain):
    """The same, its kernels with the channels last in memory."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Scaled(DeepToyModel):
    """A weight without axes, of which arithmetic in NumPy makes a number."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return super().forward(x) * self.gain


def end_to_end(home: Path, network: type[ToyModel], alias: str) -> tuple[Arrays, Arrays]:
    """Return what is learned, and what is left of it after a request."""
    strategy = make(alias, dict(SETTINGS.get(strategies()[alias], {})))
    toy = ToyFederation(home, network=network, keepsakes=strategy.keepsakes())
    arrays = toy.learn_without_serving(3)
    asked = request(Scope.CLIENT)
    toy.federation.recovery_rounds = 0
    toy.federation.ledger.receive(asked)
    after = toy.run(strategy, arrays, rounds=0)
    assert toy.federation.ledger.state(asked.id) == "fulfilled"
    return arrays, after


def test_the_two_do_lie_differently_in_memory() -> None:
    weight = ChannelsLast(0).filters.weight
    assert not weight.is_contiguous()
    assert torch.equal(weight, Plain(0).filters.weight)


@pytest.mark.parametrize("alias", ["gradient-ascent", "ewc-ascent", "quit", "fed-eraser", "no-t"])
def test_channels_last_end_to_end(alias: str, tmp_path: Path) -> None:
    """The last local model of the leaver, which the ascent starts from, was written as it lay."""
    assert alias in strategies()
    before, after = end_to_end(tmp_path / "plain", Plain, alias)
    learned, forgotten = end_to_end(tmp_path / "last", ChannelsLast, alias)
    for one, other in ((before, learned), (after, forgotten)):
        for name, array in named.parameters(one).items():
            np.testing.assert_allclose(array, other[name], atol=2e-4, err_msg=name)
    assert not named.is_same(before, after)


@pytest.mark.parametrize(
    "alias",
    sorted(
        alias
        for alias, cls in strategies().items()
        if cls.models in (None, EVERY_MODEL)
        and Scope.CLIENT in cls.scopes
        and alias not in ("auxiliary-head", "class-pruning")  # theirs is a dense last layer
        and alias != "fine-tune"  # does nothing before recovery
    ),
)
def test_a_weight_without_axes_end_to_end(alias: str, tmp_path: Path) -> None:
    before, after = end_to_end(tmp_path, Scaled, alias)
    for arrays in (before, after):
        assert isinstance(arrays["gain"], np.ndarray)
        assert arrays["gain"].shape == ()
    assert not named.is_same(before, after)

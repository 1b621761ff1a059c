"""What a module trains and what it carries along, on models that people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import nn

from clients.local import Local, Shard
from clients.participant import Holdings, Participant
from clients.state import arrays_of, load_arrays, named_as, parameters_of
from clients.steps.ascend import ascend
from clients.steps.elastic_ascend import elastic_ascend
from clients.steps.fisher import fisher
from clients.steps.gradients import gradients
from clients.steps.guide import guide
from clients.steps.precondition import precondition
from clients.steps.rehearse import rehearse
from clients.steps.train import train
from clients.training import lone_examples, loss_of
from strategies.local_model.no_t import layers_to_negate
from strategies.negation import negate
from strategies.wire import BadReplyError, read_reply, to_record
from tests.support.toy import ToyGrid
from unlearning import arrays as named
from unlearning.errors import FederationError
from unlearning.protocol import Wire
from unlearning.records.memory import ClientMemory

WIDTH, CLASSES = 4, 3
SETTINGS = {
    "batch_size": 4, "local_epochs": 1, "learning_rate": 0.1, "ascent_rate": 0.1,
    "ascent_epochs": 1, "ascent_steps": 2, "clip": 1.0, "penalty": 0.1, "stop_loss": 9.0,
    "radius": 9.0, "share": 0.1,
    "mix": 1.0, "ascend": True, "curvature": "empirical-fisher", "beta1": 0.9, "beta2": 0.9,
    "block": 1, "damping": 0.1, "max_step": 0.0, "weight_decay": 0.1, "fisher_examples": 0,
}  # fmt: skip


class Odd(nn.Module):
    """A frozen layer, a tied weight, a constant, a mask of -inf, half precision, a note."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.frozen, self.one = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.two, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.frozen.requires_grad_(False)
        self.two.weight = self.one.weight
        self.register_buffer("std", torch.full((WIDTH,), 0.5))
        self.register_buffer("mask", torch.tensor([0.0] * (WIDTH - 1) + [float("-inf")]))
        self.short = nn.Linear(WIDTH, WIDTH).to(torch.bfloat16)

    def get_extra_state(self) -> dict[str, int]:
        """Return a note."""
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take a note."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        hidden = torch.relu(self.one(self.frozen(x / self.std)))
        hidden = self.short(hidden.to(torch.bfloat16)).float()
        hidden = torch.softmax(self.two(hidden) + self.mask, 1)
        logits: torch.Tensor = self.last(hidden)
        return logits


def data(size: int = 9) -> Shard:
    draw = torch.Generator().manual_seed(size)
    return Shard(torch.randn(size, WIDTH, generator=draw), torch.arange(size) % CLASSES)


def local(**more: object) -> Local:
    return Local(retain=data(9), forget=data(8), held_out=data(5), fresh_model=Odd, **more)  # type: ignore[arg-type]


def carried(arrays: named.Arrays) -> named.Arrays:
    return {n: a for n, a in arrays.items() if named.is_buffer(n, a)}


def test_what_is_not_trained_is_no_parameter_and_tied_weights_are_one() -> None:
    arrays = arrays_of(Odd())
    assert set(carried(arrays)) == {
        "std@state", "mask@state", "frozen.weight@state", "frozen.bias@state",
    }  # fmt: skip
    assert "two.weight" not in arrays
    assert not any("extra" in name for name in arrays)
    assert arrays["short.weight"].dtype == np.float32
    assert set(named.parameters(arrays)) == set(parameters_of(Odd()))


def test_state_comes_back_as_it_was_and_by_its_own_names() -> None:
    first, second = Odd(1), Odd(2)
    arrays = arrays_of(first)
    load_arrays(second, arrays)
    assert named.digest(arrays_of(second)) == named.digest(arrays)
    own = {named.plain(name): array for name, array in arrays.items()}
    assert named.digest(own) == named.digest(arrays)
    everything = {**own, "two.weight": own["one.weight"]}
    load_arrays(Odd(3), everything)
    assert list(named_as(first, everything)) == list(arrays)
    with pytest.raises(FederationError, match="array 'strange'"):
        load_arrays(second, {**arrays, "strange": np.zeros(1)})
    with pytest.raises(FederationError, match=r"array .one\.weight."):
        load_arrays(second, {n: a for n, a in arrays.items() if n != "one.weight"})


STEPS = {
    "train": train, "ascend": ascend, "elastic_ascend": elastic_ascend, "rehearse": rehearse,
    "precondition": precondition, "guide": guide,
}  # fmt: skip


@pytest.mark.parametrize("wrap", [None, nn.DataParallel], ids=["plain", "parallel"])
@pytest.mark.parametrize("name", STEPS)
def test_every_step_moves_trained_weights_alone(name: str, wrap: Callable | None) -> None:
    made: Callable[[int], nn.Module] = Odd if wrap is None else lambda seed: wrap(Odd(seed))
    model = made(0)
    before = arrays_of(model)
    extras = {n: np.ones(a.shape, np.float32) for n, a in named.parameters(before).items()}
    given = local(extras=extras if name == "elastic_ascend" else arrays_of(made(5)))
    given = Local(**{**vars(given), "fresh_model": made})
    outcome = STEPS[name](model, given, SETTINGS, np.random.default_rng(0))
    assert outcome.num_examples
    after = arrays_of(model)
    assert named.digest(carried(after)) == named.digest(carried(before))
    moved = named.parameters(named.subtract(named.parameters(after), named.parameters(before)))
    assert any(array.any() for array in moved.values())


@pytest.mark.parametrize("step", [fisher, gradients])
def test_answers_have_one_array_per_parameter(step: Callable) -> None:
    found = step(Odd(), local(), SETTINGS, np.random.default_rng(0)).arrays
    want = set(parameters_of(Odd()))
    assert {name.rpartition("/")[2] for name in found} == want


def test_negation_reaches_a_tied_weight_and_leaves_what_is_frozen() -> None:
    model = Odd()
    arrays = arrays_of(model)
    chosen = layers_to_negate(arrays)
    assert chosen == ("one.weight",)
    load_arrays(model, negate(arrays, chosen))
    torch.testing.assert_close(model.two.weight, torch.from_numpy(-arrays["one.weight"]))


def reply_of(arrays: named.Arrays) -> Message:
    """Return the answer of a client that trained on 5 examples."""
    ToyGrid(None, 1)  # type: ignore[arg-type]  # messages can be made where there is a grid
    content = RecordDict({Wire.ARRAYS: to_record(arrays)})
    content[Wire.METRICS] = MetricRecord({Wire.NUM_EXAMPLES: 5})
    return Message(content, 1, "train")


def test_a_constant_infinity_is_no_bad_reply_and_a_new_one_is() -> None:
    sent = arrays_of(Odd())
    assert named.is_finite(sent)
    found = read_reply(reply_of(sent), 0, sent, model_like=True, declared=None)
    assert found.update is not None
    assert not any(array.any() for array in found.update.values())
    after = named.apply_update(sent, named.weighted_mean([(3, found.update)]))
    assert named.digest(after) == named.digest(sent)
    for bad in (np.inf, np.nan):
        wrong = {**sent, "std@state": np.full(WIDTH, bad, np.float32)}
        with pytest.raises(BadReplyError, match="array 'std' is not finite"):
            read_reply(reply_of(wrong), 0, sent, model_like=True, declared=None)


# BatchNorm and a batch of one ---------------------------------------------------------------


def normed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES)
        )


@pytest.mark.parametrize(("size", "batch"), [(9, 4), (1, 4), (3, 1)])
@pytest.mark.parametrize("step", ["train", "ascend", "rehearse", "precondition"])
def test_no_client_is_lost_to_a_batch_of_one(
    tmp_path: Path, step: str, size: int, batch: int
) -> None:
    model = normed()
    shard = data(size)
    holdings = Holdings(shard, shard, lambda seed: normed(), model)
    participant = Participant(0, holdings, ClientMemory(tmp_path, 0))
    given = Local(retain=shard, forget=shard, held_out=shard, fresh_model=lambda seed: normed())
    settings = {**SETTINGS, "batch_size": batch}
    outcome = participant._run(step, arrays_of(model), given, settings, [0])
    assert outcome.num_examples
    assert named.is_finite(arrays_of(model))


def test_other_batches_are_normalised_as_ever() -> None:
    model, plain = normed().train(), normed().train()
    with lone_examples(model):
        for start in (0, 4):
            x = data(9).features[start : start + 4]
            torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)
        mean = model[1].running_mean.clone()
        model(data(9).features[8:])
        torch.testing.assert_close(model[1].running_mean, mean, rtol=0, atol=0)
        assert model[1].training
    torch.testing.assert_close(model[1].running_mean, plain[1].running_mean, rtol=0, atol=0)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(data(1).features)


def test_pictures_of_one_are_normalised_as_ever() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layer, x = nn.BatchNorm2d(2), torch.randn(1, 2, 3, 3)
    with lone_examples(layer):
        found = layer(x)
    torch.testing.assert_close(found, nn.BatchNorm2d(2)(x), rtol=0, atol=0)


def test_a_wrapped_model_keeps_its_own_loss() -> None:
    class Own(nn.Linear):
        def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return logits.sum() * 0 + 7

    assert loss_of(nn.DataParallel(Own(2, 2)))(torch.zeros(1, 2), torch.zeros(1)) == 7

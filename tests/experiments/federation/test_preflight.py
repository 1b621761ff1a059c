"""What cannot work on any client is told in one line, before a client is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from experiments.config.loading import Config, from_mapping
from experiments.data.datasets import load
from experiments.federation import launch, preflight
from experiments.federation.founding import starting_model
from experiments.federation.task import Scenario, Task
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.packing import pack, unpack_file

DATA = {"name": "wine", "clients": 3}


def config(**changes: Any) -> Config:
    return from_mapping({"data": DATA, "device": "cpu", **changes})


def check(settings: Config) -> None:
    preflight.check(settings, Task(Scenario.of(settings)))


def refused(settings: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        check(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Config]:
    """Return a config whose model is what a function returns; wine has 13 columns, 3 classes."""

    def make(function: Callable[[], object]) -> Config:
        module = type(sys)("own_models")
        module.make = lambda shape, classes: function()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_models", module)
        return config(model={"name": "own_models:make"})

    return make


class Answers(nn.Module):
    """A linear model whose answer goes through a function."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(13, 3), change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.layer(x))


class WithLoss(nn.Linear):
    """A linear model with a loss of its own."""

    def __init__(self, own: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__(13, 3)
        self.loss = own


class Grows(nn.Module):
    """A model that makes a buffer when it is first called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(13, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.register_buffer("seen", torch.zeros(3))
        out: torch.Tensor = self.layer(x)
        return out


SOUND: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(13, 3),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3)),
    "BatchNorm and dropout": lambda: nn.Sequential(
        nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
    ),
    "double inside": lambda: nn.Sequential(Double(), nn.Linear(13, 3).double()),
    "own loss": lambda: WithLoss(lambda logits, y: nn.functional.multi_margin_loss(logits, y)),
}


class Double(nn.Module):
    """Hand on in float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


@pytest.mark.parametrize("name", SOUND)
def test_models_that_people_have_pass(
    of: Callable[[Callable[[], object]], Config], name: str
) -> None:
    state = torch.random.get_rng_state()
    check(of(SOUND[name]))
    assert torch.equal(torch.random.get_rng_state(), state)


BROKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "too few outputs": (lambda: nn.Linear(13, 2), "returns shape (1, 2), not (1, 3)"),
    "another input": (lambda: nn.Linear(12, 3), "cannot be multiplied"),
    "squeezes one": (lambda: Answers(lambda out: out.squeeze(0)), "on 1, it returns shape (3,)"),
    "a mean": (lambda: Answers(lambda out: out.mean(0)), "returns shape (3,)"),
    "tuple": (lambda: Answers(lambda out: (out, out)), "returns tuple and no tensor"),
    "dict": (lambda: Answers(lambda out: {"logits": out}), "returns dict and no tensor"),
    "half": (lambda: Answers(lambda out: out.bfloat16()), "returns bfloat16"),
    "classes": (lambda: Answers(lambda out: (out > 0).long()), "returns int64"),
    "no gradient": (lambda: Answers(lambda out: out.detach()), "does not require grad"),
    "not finite": (lambda: Answers(lambda out: out / 0), "a value that is not finite"),
    "double": (lambda: nn.Linear(13, 3).double(), "same dtype"),
    "integers wanted": (lambda: nn.Sequential(nn.Embedding(9, 3)), "Long"),
    "grows": (Grows, "'seen' comes or goes"),
    "inputs in place": (
        lambda: nn.Sequential(nn.Hardtanh(-0.2, 0.2, inplace=True), nn.Linear(13, 3)),
        "changes its inputs in place",
    ),
    "all frozen": (lambda: nn.Linear(13, 3).requires_grad_(False), "no parameter that can be"),
    "loss of another shape": (lambda: WithLoss(lambda logits, y: logits[:, 0]), "scalar"),
    "loss that wants more": (lambda: WithLoss(lambda a, b, c: a), "argument"),
    "loss of nan": (lambda: WithLoss(lambda out, y: out.sum() * torch.nan), "its loss is nan"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_models_that_cannot_work_are_told_in_one_line(
    of: Callable[[Callable[[], object]], Config], name: str
) -> None:
    function, words = BROKEN[name]
    said = refused(of(function))
    assert words in said
    assert "own_models:make" in said


def test_a_model_must_be_new_and_follow_the_seed(
    of: Callable[[Callable[[], object]], Config],
) -> None:
    one = nn.Linear(13, 3)
    assert "one and the same object" in refused(of(lambda: one))
    generator = np.random.default_rng(0)

    def unseeded() -> nn.Module:
        model = nn.Linear(13, 3)
        model.bias.data.fill_(float(generator.random()))
        return model

    assert "other values for the same seed" in refused(of(unseeded))


def test_a_device_that_is_not_there_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:1"):
        assert "0 CUDA device(s)" in refused(config(device=name))
    check(config(device="auto"))
    # Another machine of a cluster may have one.
    check(config(device="cuda", engine={"ray_address": "elsewhere:6379"}))


def test_owners_are_passed_over_only_where_the_config_says_so(tmp_path: Path) -> None:
    load.cache_clear()
    x, y = np.random.default_rng(0).random((60, 4)), np.arange(60) % 2
    path = tmp_path / "own.npz"
    np.savez(path, x=x, y=y, client=np.arange(60) % 3, x_test=x, y_test=y)
    data = {"name": f"npz:{path}", "clients": 3}
    assert "data.partitioner is not given" in refused(config(data=data))
    check(config(data={**data, "partitioner": "iid"}))
    check(config(data={**data, "partitioner": "natural-id"}))
    load.cache_clear()
    np.savez(path, x=x, y=y)
    check(config(data=data))


@pytest.fixture
def wine(tmp_path: Path) -> Callable[[Arrays], Config]:
    def make(arrays: Arrays) -> Config:
        (tmp_path / "start.safetensors").write_bytes(pack(arrays))
        start = {"model": str(tmp_path / "start.safetensors")}
        return config(model={"name": "mlp", "hidden": 4}, start=start)

    return make


@pytest.mark.parametrize(("array", "value"), [("1.weight", "nan"), ("3.bias", "-inf")])
def test_a_start_model_that_is_not_finite_is_refused_by_array(
    wine: Callable[[Arrays], Config], array: str, value: str
) -> None:
    task = Task(Scenario.of(config(model={"name": "mlp", "hidden": 4})))
    arrays = task.initial()
    assert starting_model(wine(arrays), task) is not None
    arrays[array].flat[0] = float(value)
    with pytest.raises(ConfigError, match=rf"start\.model = .* array '{array}'.*not finite"):
        starting_model(wine(arrays), task)


def test_counters_and_constants_of_a_model_are_no_reason_to_refuse_it(
    of: Callable[[Callable[[], object]], Config], tmp_path: Path
) -> None:
    class Masked(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
            self.register_buffer("mask", torch.full((2, 2), -torch.inf))

    settings = of(Masked)
    task = Task(Scenario.of(settings))
    path = tmp_path / "start.safetensors"
    path.write_bytes(pack(task.initial()))
    assert unpack_file(path)["1.num_batches_tracked"].shape == ()
    again = from_mapping({**settings.to_dict(), "start": {"model": str(path)}})
    assert starting_model(again, task) is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "wine", "clients": 500}, "cannot share 142 examples"),
        ({"name": "wine", "clients": 3, "limit": 2}, "cannot share 2 examples"),
    ],
)
def test_fewer_rows_than_clients_are_told(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Task(Scenario.of(config(data=data)))


@pytest.mark.parametrize("name", ["clients", "experiments", "strategies", "unlearning"])
def test_a_working_directory_with_packages_of_our_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # no package: Python passes it over
    preflight.check_working_directory()
    (tmp_path / name / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match=f"has a module '{name}' of its own"):
        preflight.check_working_directory()
    (tmp_path / name / "__init__.py").unlink()
    (tmp_path / f"{name}.py").write_text("")
    with pytest.raises(ConfigError, match="rename it"):
        preflight.check_working_directory()


def test_nothing_is_written_where_the_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strategies.py").write_text("")
    settings = config(engine={"grid": "ray"}, rounds=1)
    with pytest.raises(ConfigError, match="worker processes"):
        launch.run(settings, tmp_path / "run", observer=lambda _: None)
    assert not (tmp_path / "run").exists()

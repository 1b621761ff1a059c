"""A frozen trunk: what it reads, whoever else is in the batch, and exact forgetting behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from experiments.benchmarks.deletions import deletions
from experiments.config.loading import Config, from_mapping, load
from experiments.config.schema import TrunkConfig
from experiments.federation.task import Scenario, Task
from experiments.models import networks as models
from experiments.models.trunk import Trunk
from tests.support.official import FILES, official
from unlearning.errors import ConfigError

SHAPE = (1, 8, 8)
MLP = TrunkConfig(name="mlp", hidden=6)  # type: ignore[call-arg]
HOW = ("downdates", "inverse")  # how a state came about, not what it says


def images(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((size, *SHAPE)).astype(np.float32)


def test_features_are_the_last_hidden_layer_with_mean_square_one() -> None:
    x, trunk = images(5), Trunk(MLP, SHAPE, 3)
    arrays = models.to_arrays(models.build("mlp", SHAPE, 3, {"hidden": 6}, 0))
    weight, bias = (arrays[name].astype(np.float64) for name in ("1.weight", "1.bias"))
    hidden = np.maximum(x.reshape(5, -1).astype(np.float64) @ weight.T + bias, 0)
    expected = hidden / np.sqrt((hidden**2).mean(axis=1, keepdims=True))
    assert trunk.width == 6
    np.testing.assert_allclose(trunk(x), expected, rtol=1e-12)
    np.testing.assert_allclose((trunk(x) ** 2).mean(axis=1), 1)
    assert trunk(x[:0]).shape == (0, 6)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vgg11"])
def test_features_of_an_example_do_not_depend_on_the_others(name: str) -> None:
    narrow = {"hidden": 16} if name == "cnn" else {"width": 4, "groups": 2}
    trunk = Trunk(TrunkConfig(name=name, **narrow), SHAPE, 3)
    x = images(9)
    alone = np.concatenate([trunk(x[[i]]) for i in range(9)])
    np.testing.assert_allclose(trunk(x), alone, atol=1e-12)


def test_what_is_remembered_cannot_be_spoiled() -> None:
    x, trunk = images(3), Trunk(MLP, SHAPE, 3)
    first = trunk(x)
    first[:] = 7
    assert not (trunk(x) == 7).any()
    for seed in range(1, 12):
        trunk(images(3, seed))
    np.testing.assert_array_equal(trunk(x), Trunk(MLP, SHAPE, 3)(x))


def test_a_row_without_any_activation_stays_zero() -> None:
    trunk = Trunk(MLP, SHAPE, 3)
    for tensor in trunk._model.state_dict().values():
        tensor.zero_()
    assert not trunk(images(2)).any()


def test_the_seed_of_the_trunk_is_its_own_and_the_file_wins(tmp_path: Path) -> None:
    x = images(4)
    other = MLP.model_copy(update={"seed": 1})
    assert not np.allclose(Trunk(MLP, SHAPE, 3)(x), Trunk(other, SHAPE, 3)(x))
    trained = models.to_arrays(models.build("mlp", SHAPE, 7, {"hidden": 6}, 1))
    save_file(trained, tmp_path / "trunk.safetensors")  # for seven classes: its head is not used
    from_file = MLP.model_copy(update={"file": str(tmp_path / "trunk.safetensors")})
    np.testing.assert_array_equal(Trunk(from_file, SHAPE, 3)(x), Trunk(other, SHAPE, 3)(x))


def test_files_and_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    missing = MLP.model_copy(update={"file": str(tmp_path / "none.safetensors")})
    with pytest.raises(ConfigError, match=r"none\.safetensors' cannot be read"):
        Trunk(missing, SHAPE, 3)
    wide = models.to_arrays(models.build("mlp", SHAPE, 3, {"hidden": 9}, 1))
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ConfigError, match=r"is no such network.*1\.weight"):
        Trunk(MLP.model_copy(update={"file": str(tmp_path / "wide.safetensors")}), SHAPE, 3)
    with pytest.raises(ConfigError, match="no linear layer"):
        Trunk(TrunkConfig(name="torch.nn:Identity"), SHAPE, 3)
    with pytest.raises(ConfigError, match="'cnnn'; did you mean 'cnn'"):
        Trunk(TrunkConfig(name="cnnn"), SHAPE, 3)


def config(**model: object) -> Config:
    return from_mapping(
        {
            "rounds": 1,
            "data": {"name": "digits", "clients": 4, "limit": 200},
            "model": {"trunk": {"name": "cnn", "hidden": 24}, **model},
            "requests": [{"scope": "client", "clients": [1]}],
        }
    )


def test_a_network_needs_no_trunk() -> None:
    with pytest.raises(ConfigError, match=r"model\.trunk is for models that are no network"):
        Task(Scenario.of(config(name="mlp")))


def test_paths_are_absolute_in_the_scenario_that_clients_read() -> None:
    found = config(name="ridge", trunk={"name": "mlp", "file": "here.safetensors"})
    placed = Scenario.from_json(Scenario.of(found).to_json()).model.trunk
    assert placed is not None
    assert placed.file == str(Path("here.safetensors").absolute())


def test_ridge_on_a_trunk_forgets_exactly() -> None:
    """Samples, a client and a class, each compared with learning again in another federation."""
    rows = deletions(config(name="ridge"), "ridge", 6, beside=HOW)
    assert [row["scope"] for row in rows] == ["sample"] * 4 + ["client", "class"]
    assert max(float(str(row["largest_difference"])) for row in rows) < 1e-9


def test_ridge_on_a_trunk_forgets_exactly_on_mnist() -> None:
    official("MNIST/raw")
    found = load(
        "experiments/configs/mnist_ridge_head.toml",
        [f"data.root={FILES}", "data.limit=400", "data.test_limit=100", "model.trunk.hidden=64"],
    )
    rows = deletions(found, "ridge", 4, beside=HOW)
    assert max(float(str(row["largest_difference"])) for row in rows) < 1e-9


def test_the_trunk_makes_a_better_classifier_of_ridge() -> None:
    accuracies = []
    for trunk in (None, {"name": "cnn", "hidden": 256}):
        made = config(name="ridge", trunk=trunk)
        found = Task(Scenario.of(made))
        test = found.test_set()
        arrays = learned(found)
        accuracies.append((found.predict(arrays, test.x).argmax(1) == test.y).mean())
    raw, read = accuracies
    assert read > raw


def learned(found: Task) -> dict[str, np.ndarray]:
    """Return what ridge finds in the data of all clients, without a federation."""
    from unlearning.models import ridge

    parts = [found.client(client) for client in found.clients]
    x = found.seen(np.concatenate([part.train_x for part in parts]))
    whole = ridge.sums(ridge.design(x), np.concatenate([part.train_y for part in parts]), 10)
    return {"weights": ridge.solve(whole, 1.0), "counts": whole.counts}


class Odd(nn.Module):
    """A network that its function makes fail, or call its last layer as it should not."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(64, 3), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.how(self.layer, x.flatten(1))


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda layer, x: layer(x[:, :9]), "fails on examples of shape"),
        (lambda layer, x: layer(x.float()), "same dtype"),
        (lambda layer, x: layer(x) + layer(x), "not (2, 64)"),
        (lambda layer, x: layer(x[:1]), "not (2, 64)"),
        (lambda layer, x: x, "not (2, 64)"),
    ],
)
def test_a_network_that_cannot_read_examples_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
    forward: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    words: str,
) -> None:
    module = type(sys)("odd_trunks")
    module.make = lambda shape, classes: Odd(forward)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odd_trunks", module)
    with pytest.raises(ConfigError) as caught:
        Trunk(TrunkConfig(name="odd_trunks:make"), SHAPE, 3)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

"""Models: shapes, the same bits for the same seed, arrays there and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from experiments.models import networks as models
from experiments.models.networks import build, load, names, to_arrays
from unlearning.arrays import digest, is_buffer, mismatch, parameters, plain
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.packing import pack, unpack

IMAGE = (1, 8, 8)


def test_names_are_found_by_walking() -> None:
    assert {"cnn", "mlp", "resnet18", "ridge", "k-means", "svm", "logistic"} <= set(names())


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet18", "vgg11"])
@pytest.mark.parametrize("shape", [IMAGE, (3, 32, 32)])
def test_one_output_per_class(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape, 7, seed=3)
    with torch.inference_mode():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet18", "vgg11"])
def test_seed_alone_decides_the_values(name: str) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = digest(to_arrays(build(name, IMAGE, 10, seed=5)))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert digest(to_arrays(build(name, IMAGE, 10, seed=5))) == first
    assert digest(to_arrays(build(name, IMAGE, 10, seed=6))) != first


def test_cnn_is_that_of_the_papers() -> None:
    arrays = to_arrays(build("cnn", (1, 28, 28), 10))
    assert sum(array.size for array in arrays.values()) == 1_663_370


def test_resnet_keeps_no_statistics_and_the_resolution() -> None:
    model = build("resnet18", (3, 32, 32), 10)
    arrays = to_arrays(model)
    assert parameters(arrays).keys() == arrays.keys()
    assert not any(is_buffer(name, array) for name, array in arrays.items())
    assert arrays["conv1.weight"].shape == (64, 3, 3, 3)


def test_resnet_is_torchvisions_but_for_its_stem() -> None:
    from torchvision.models import resnet18

    model = build("resnet18", (3, 32, 32), 10, seed=1)
    theirs = resnet18(num_classes=10, norm_layer=lambda size: nn.GroupNorm(32, size))
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    load(theirs, to_arrays(model))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x), theirs(x))
    assert list(model.state_dict()) == list(theirs.state_dict())


def test_vgg_has_the_convolutions_of_configuration_a() -> None:
    """Table 1 of Simonyan and Zisserman (arXiv 1409.1556), column A, eight weight layers of it."""
    from torchvision.models import vgg11

    with torch.device("meta"):  # of its 128 million weights only the shapes are looked at
        features = vgg11(num_classes=10).features
    theirs = [module for module in features if isinstance(module, (nn.Conv2d, nn.MaxPool2d))]
    for params, norms in (({}, 8), ({"groups": 0}, 0)):
        made = build("vgg11", (3, 32, 32), 10, params)
        ours = [m for m in made.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
        assert [type(module) for module in ours] == [type(module) for module in theirs]
        shapes = [m.weight.shape for m in ours if isinstance(m, nn.Conv2d)]
        assert shapes == [m.weight.shape for m in theirs if isinstance(m, nn.Conv2d)]
        assert sum(isinstance(module, nn.GroupNorm) for module in made.modules()) == norms


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_narrow_networks_for_small_machines(name: str) -> None:
    wide = to_arrays(build(name, (3, 32, 32), 10))
    narrow = to_arrays(build(name, (3, 32, 32), 10, {"width": 16, "groups": 4}))
    assert sum(a.size for a in narrow.values()) < sum(a.size for a in wide.values()) / 14
    with pytest.raises(ConfigError, match="divisible by num_groups"):
        build(name, (3, 32, 32), 10, {"width": 16})


def test_parameters_of_a_model() -> None:
    assert to_arrays(build("mlp", (4,), 2, {"hidden": 5}))["1.weight"].shape == (5, 4)
    with pytest.raises(ConfigError, match=r"'hiden'; did you mean 'hidden'\?"):
        build("mlp", (4,), 2, {"hiden": 5})
    with pytest.raises(ConfigError, match="unknown key of mlp 'input_shape'"):
        build("mlp", (4,), 2, {"input_shape": 5})
    with pytest.raises(ConfigError, match=r"'mlp' cannot be built.*hidden"):
        build("mlp", (4,), 2, {"hidden": "many"})


def test_images_alone_can_be_convolved() -> None:
    for name in ("cnn", "resnet18", "vgg11"):
        with pytest.raises(ConfigError, match="take the model mlp"):
            build(name, (30,), 2)
    with pytest.raises(ConfigError, match="4x4"):
        build("cnn", (1, 3, 3), 2)


def test_arrays_there_and_back() -> None:
    first, second = build("mlp", IMAGE, 10, seed=1), build("mlp", IMAGE, 10, seed=2)
    arrays = to_arrays(first)
    assert list(arrays) == list(first.state_dict())
    assert load(second, arrays) is second
    assert digest(to_arrays(second)) == digest(arrays)
    arrays["1.weight"][:] = 0
    assert digest(to_arrays(first)) == digest(to_arrays(second))


def test_buffers_keep_their_dtype() -> None:
    model = nn.BatchNorm1d(3)
    arrays = to_arrays(model)
    assert arrays["num_batches_tracked"].dtype == np.int64
    arrays["num_batches_tracked"] = np.asarray(7)
    assert mismatch(arrays, to_arrays(load(nn.BatchNorm1d(3), arrays))) is None
    assert to_arrays(load(model, arrays))["num_batches_tracked"] == 7


def test_foreign_arrays_are_refused() -> None:
    model = build("mlp", IMAGE, 10)
    arrays = to_arrays(model)
    with pytest.raises(FedUnlearnError, match=r"1\.bias"):
        load(model, {name: array for name, array in arrays.items() if name != "1.bias"})
    with pytest.raises(FedUnlearnError, match=r"1\.bias"):
        load(model, {**arrays, "1.bias": np.zeros(3, np.float32)})


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_model_module.py").write_text(
        "from torch import nn\n"
        "def make(input_shape, num_classes, **params):\n"
        "    return nn.Linear(input_shape[0], num_classes, **params)\n"
        "def wrong(input_shape, num_classes):\n    return 3\n"
        "number = 3\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert list(to_arrays(build("own_model_module:make", (4,), 2, {"bias": False}))) == ["weight"]
    with pytest.raises(ConfigError, match="returned int"):
        build("own_model_module:wrong", (4,), 2)
    with pytest.raises(ConfigError, match="no function"):
        build("own_model_module:number", (4,), 2)
    with pytest.raises(ConfigError, match=r"'mpl'; did you mean 'mlp'\?"):
        build("mpl", (4,), 2)


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert models.device("auto") == models.device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"'cuda:1'.*0 CUDA"):
        models.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert models.device("auto") == models.device("cuda") == torch.device("cuda")
    with pytest.raises(ConfigError, match="'cuda:1'"):
        models.device("cuda:1")


class Kept(nn.Module):
    """A linear model with one tensor, or something else, of another kind in its state."""

    def __init__(self, odd: object) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        if isinstance(odd, nn.Parameter):
            self.odd = odd
        elif isinstance(odd, torch.Tensor):
            self.register_buffer("odd", odd)


class Noted(nn.Linear):
    """A linear model with something beside its tensors."""

    note: object = None

    def get_extra_state(self) -> object:
        return self.note


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], nn.Module]:
    """Build a model with a function of a user's own."""

    def make(function: Callable[[], object]) -> nn.Module:
        module = type(sys)("own_models")
        module.make = lambda shape, classes: function()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_models", module)
        return build("own_models:make", (4,), 2, seed=3)

    return make


def test_lazy_layers_get_their_shapes_from_the_examples(
    made: Callable[[Callable[[], object]], nn.Module],
) -> None:
    def lazy() -> nn.Module:
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))

    model = made(lazy)
    assert model.training
    assert to_arrays(model)["0.weight"].shape == (8, 4)
    # Statistics of the empty examples must not stay in it.
    assert to_arrays(model)["1.num_batches_tracked"] == 0
    assert digest(to_arrays(made(lazy))) == digest(to_arrays(model))
    unused = nn.Sequential(nn.Linear(4, 2))
    unused[0].spare = nn.LazyLinear(3)
    with pytest.raises(ConfigError, match=r"'0\.spare\.weight' has no shape yet"):
        made(lambda: unused)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (torch.zeros(3, dtype=torch.bfloat16), "'odd' is bfloat16"),
        (nn.Parameter(torch.zeros(3, dtype=torch.bfloat16)), "'odd' is bfloat16"),
        (torch.zeros(3).to(torch.float8_e4m3fn), "'odd' is float8_e4m3fn"),
        (nn.Parameter(torch.zeros(3, dtype=torch.complex64)), "'odd' is complex64"),
        (torch.zeros(2, 2).to_sparse(), "'odd' is no plain tensor"),
        (torch.zeros(3, device="meta"), "'odd' is no plain tensor"),
        (nn.Parameter(torch.zeros(0, 3)), r"parameter 'odd' has shape \(0, 3\)"),
        (torch.tensor([1.0, float("nan")]), "'odd' begins with nan"),
        (nn.Parameter(torch.tensor([float("nan")]), False), "'odd' begins with nan"),
        (nn.Parameter(torch.tensor([float("inf")])), "parameter 'odd' begins with an infinity"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(
    made: Callable[[Callable[[], object]], nn.Module], odd: object, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        made(lambda: Kept(odd))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("note", [{"version": 1}, "text", None])
def test_what_is_no_tensor_is_refused_by_name(
    made: Callable[[Callable[[], object]], nn.Module], note: object
) -> None:
    model = Noted(4, 2)
    model.note = note
    with pytest.raises(ConfigError, match=rf"'_extra_state', which is {type(note).__name__}"):
        made(lambda: model)


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.int64, torch.uint16, torch.float16, torch.float64]
)
def test_other_numbers_travel_as_they_are(
    made: Callable[[Callable[[], object]], nn.Module], kind: torch.dtype
) -> None:
    model = made(lambda: Kept(torch.ones((), dtype=kind)))
    arrays = to_arrays(model)
    assert {plain(name): array.shape for name, array in arrays.items()}["odd"] == ()
    load(model, unpack(pack(arrays)))
    assert digest(to_arrays(model)) == digest(arrays)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "multi-task"])
def test_layers_without_units_are_refused(kind: str) -> None:
    params: dict[str, object] = {"hidden": 0}
    if kind == "multi-task":
        params["tasks"] = {"a": 2}
    with pytest.raises(ConfigError, match="raise the size that is 0"):
        build(kind, IMAGE, 10, params)


def test_whatever_a_function_raises_is_told_in_one_line(
    made: Callable[[Callable[[], object]], nn.Module],
) -> None:
    def broken() -> object:
        raise KeyError("weights.bin\nis not there")

    with pytest.raises(ConfigError, match="cannot be built") as caught:
        made(broken)
    assert "\n" not in str(caught.value)

"""Models from elsewhere: what is read, what is put right, what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import fedunlearn
from experiments.cli import app
from experiments.models.foreign import convert, fitted, lines_for, read_arrays
from experiments.models.networks import to_arrays
from tests.experiments.api.test_run import SMALL
from unlearning.errors import ConfigError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def saved(path, state):
    save_file({name: array.clone().contiguous() for name, array in state.items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_names_of_wrappers_are_taken_away(prefix, tmp_path):
    state = {f"{prefix}{name}": array for name, array in network().state_dict().items()}
    arrays = fitted(read_arrays(saved(tmp_path / "m.safetensors", state)), to_arrays(network()))
    assert list(arrays) == list(network().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_model(dtype, tmp_path):
    state = {name: array.to(dtype) for name, array in network().state_dict().items()}
    arrays = fitted(read_arrays(saved(tmp_path / "m.safetensors", state)), to_arrays(network()))
    for name, array in network().state_dict().items():
        assert arrays[name].dtype == np.float32
        assert np.allclose(arrays[name], array.numpy(), atol=1e-2)


def test_tied_weights_are_needed_once(tmp_path):
    expected = to_arrays(network())
    expected["head.weight"] = expected["0.weight"]
    found = {name: array + 1 for name, array in to_arrays(network()).items()}
    assert np.array_equal(fitted(found, expected)["head.weight"], found["0.weight"])
    del found["0.weight"]
    with pytest.raises(ConfigError, match="weight"):
        fitted(found, expected)


def test_a_folder_with_shards_is_one_model(tmp_path):
    state = network().state_dict()
    parts = {"a.safetensors": ["0.weight", "0.bias"], "b.safetensors": ["2.weight", "2.bias"]}
    for file, names in parts.items():
        saved(tmp_path / file, {name: state[name] for name in names})
    index = {name: file for file, names in parts.items() for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    arrays = convert(tmp_path, tmp_path / "out.safetensors")
    assert set(arrays) == set(state)
    again = fitted(read_arrays(tmp_path / "out.safetensors"), to_arrays(network()))
    assert np.array_equal(again["2.weight"], state["2.weight"].numpy())
    with pytest.raises(ConfigError, match="is there already"):
        convert(tmp_path, tmp_path / "out.safetensors")


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_arrays(tmp_path / "nowhere.safetensors")
    (tmp_path / "odd.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_arrays(tmp_path / "odd.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no"):
        read_arrays(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is pickled"):
        read_arrays(tmp_path / "model.pt")
    other = {name: array * np.nan for name, array in to_arrays(network()).items()}
    with pytest.raises(ConfigError, match="not finite"):
        fitted(other, to_arrays(network()))


def test_the_lines_for_a_pickled_model_convert_it(tmp_path):
    torch.save({"state_dict": network().state_dict()}, tmp_path / "m.pt")
    exec(lines_for(tmp_path / "m.pt", tmp_path / "m.safetensors"), {})
    arrays = read_arrays(tmp_path / "m.safetensors")
    assert np.array_equal(arrays["0.weight"], network().state_dict()["0.weight"].numpy())


def test_strategies_are_compared_on_a_model_of_ones_own(tmp_path):
    trained = fedunlearn.run(SMALL, out=tmp_path / "trained", requests=[])
    state = {f"module.{n}": torch.from_numpy(a) for n, a in trained.arrays().items()}
    path = saved(tmp_path / "own.safetensors", state)
    found = fedunlearn.compare(
        SMALL,
        strategies=["no-t", "fed-eraser"],
        start={"model": str(path)},
        out=tmp_path / "compared",
    )
    table = found.to_frame().set_index("strategy")
    assert list(table.index) == ["original", "retrain", "fine-tune", "no-t", "fed-eraser"]
    assert "trained elsewhere" in table.failed["fed-eraser"]
    assert np.isnan(table.test_accuracy["fed-eraser"])
    assert table.failed[:-1].isna().all()
    assert table.model_digest["original"] == trained.to_frame().model_digest[0]
    points = found.timeline()
    assert set(points.phase) == {"unlearn", "recover"}
    told = json.loads((found.path / "details.json").read_text())["refused"]
    assert [one["strategy"] for one in told] == ["fed-eraser"]
    assert "trained elsewhere" in told[0]["reason"]
    recovered = points[(points.strategy == "no-t") & (points.phase == "recover")]
    assert len(recovered) == SMALL["recovery_rounds"]


def test_the_command_converts_or_says_how(tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["convert", *map(str, arguments)])

    state = {f"module.{name}": array for name, array in network().state_dict().items()}
    path = saved(tmp_path / "m.safetensors", state)
    assert "wrote 4 arrays" in call(path, tmp_path / "out.safetensors").stdout
    assert "0.weight" in read_arrays(tmp_path / "out.safetensors")
    torch.save(state, tmp_path / "m.pt")
    assert "weights_only=True" in call(tmp_path / "m.pt", tmp_path / "o.safetensors").stdout
    assert call(tmp_path / "no.pt", tmp_path / "o.safetensors").exit_code == 2

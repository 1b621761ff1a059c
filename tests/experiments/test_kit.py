"""The leaver's kit as its owner uses it: make, ask elsewhere, check, offline."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from typer.testing import CliRunner, Result

from experiments.cli import app
from experiments.config.loading import from_mapping
from experiments.kit import KitError, read_model, read_pack
from experiments.models.networks import build, to_arrays
from unlearning.evaluation.marker_pack import draw
from unlearning.packing import pack

SHAPE = (1, 4, 4)


def call(*args: object) -> Result:
    return CliRunner().invoke(app, ["kit", *map(str, args)])


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    x = generator.random((60, *SHAPE), dtype=np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=generator.integers(4, size=60))
    (tmp_path / "c.toml").write_text("[model]\nname = 'mlp'\nhidden = 32\n")
    made = call(
        "make", tmp_path / "mine.npz", "--pack", tmp_path / "p", "--marked", tmp_path / "m.npz"
    )
    assert made.exit_code == 0, made.output
    return tmp_path


def trained(path: Path, out: Path) -> Path:
    """Train the config's model on a file of examples, and write it."""
    with np.load(path) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    model = build("mlp", SHAPE, 4, {"hidden": 32})
    sgd = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        sgd.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        sgd.step()
    save_file(to_arrays(model), out)
    return out


def test_the_pack_is_secret_and_the_examples_are_added(kit: Path) -> None:
    assert stat.S_IMODE((kit / "p").stat().st_mode) == 0o600
    with np.load(kit / "mine.npz") as mine, np.load(kit / "m.npz") as marked:
        assert (marked["x"][:60] == mine["x"]).all()
        assert marked["x"].shape == (200, *SHAPE)
        assert marked["x"].dtype == mine["x"].dtype
        assert (marked["y"][60:] == read_pack(kit / "p").marked()[1]).all()


def test_a_server_that_did_nothing_is_caught_and_one_that_retrained_is_not(kit: Path) -> None:
    before = trained(kit / "m.npz", kit / "before.safetensors")
    after = trained(kit / "mine.npz", kit / "after.safetensors")
    common = ("--config", kit / "c.toml", "--before", before, "--json")
    caught = call("check", kit / "p", "--model", before, *common)
    assert caught.exit_code == 1
    nothing = json.loads(caught.stdout)
    assert nothing["standing"] == "still there"
    assert nothing["before"]["power"] == 1.0
    forgot = json.loads(call("check", kit / "p", "--model", after, *common).stdout)
    assert forgot["standing"] == "no longer visible"
    told = call("check", kit / "p", "--model", after, "--config", kit / "c.toml").stdout
    assert told.startswith("not visible, power unknown")
    assert "it proves none" in told


def test_a_model_that_answers_elsewhere_is_checked_by_its_answers(kit: Path) -> None:
    assert call("questions", kit / "p", "--out", kit / "q.npz").exit_code == 0
    model = build("mlp", SHAPE, 4, {"hidden": 32})
    with np.load(kit / "q.npz") as file, torch.inference_mode():
        found = model(torch.from_numpy(file["x"])).softmax(1).numpy()
    np.savez(kit / "a.npz", probabilities=found)
    save_file(to_arrays(model), kit / "a.safetensors")
    answers = call("check", kit / "p", "--model", kit / "a.npz", "--json")
    model_file = ("--model", kit / "a.safetensors", "--config", kit / "c.toml", "--json")
    assert json.loads(answers.stdout) == json.loads(call("check", kit / "p", *model_file).stdout)


def test_a_pack_is_never_overwritten(kit: Path) -> None:
    before = (kit / "p").read_bytes()
    again = call("make", kit / "mine.npz", "--pack", kit / "p", "--marked", kit / "n.npz")
    assert again.exit_code == 2
    assert "is there already" in again.output
    assert (kit / "p").read_bytes() == before
    assert not (kit / "n.npz").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 3), np.uint8), "y": np.zeros(2, int)}, "x must be floats"),
        ({"x": np.zeros((2, 3))}, "no array 'y'"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3, int)}, "a label from 0 for each x"),
        ({"x": np.zeros((2, 3)), "y": np.array([0, 1])}, "differ somewhere"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    files = ("--pack", tmp_path / "p", "--marked", tmp_path / "m.npz")
    found = call("make", tmp_path / "d.npz", *files)
    assert found.exit_code == 2
    assert words in found.output
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "m.npz").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("c.toml", "cannot be read"),
        ("other.safetensors", "is no model 'mlp'"),
        ("mine.npz", "no array 'probabilities'"),
        ("short.npz", "does not fit the pack"),
        ("absent.safetensors", "cannot be read"),
    ],
)
def test_files_that_are_no_answers_are_refused(kit: Path, model: str, words: str) -> None:
    save_file({"w": np.zeros(3, np.float32)}, kit / "other.safetensors")
    np.savez(kit / "short.npz", probabilities=np.full((3, 4), 0.25))
    found = call("check", kit / "p", "--model", kit / model, "--config", kit / "c.toml")
    assert found.exit_code == 2, found.output
    assert words in " ".join(found.output.split())


def test_a_model_needs_a_config_and_a_pack_must_be_one(kit: Path) -> None:
    found = call("check", kit / "p", "--model", kit / "x.safetensors")
    assert "--config" in found.output
    found = call("check", kit / "mine.npz", "--model", kit / "x.npz")
    assert "is no marker pack" in found.output


def test_a_pack_fits_the_data_whatever_their_memory_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((60, 2, 3, 4), dtype=np.float32)
    x *= np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)  # every feature has its own range
    np.savez(tmp_path / "mine.npz", x=np.asfortranarray(x), y=np.arange(60) % 4)
    made = call(
        "make", tmp_path / "mine.npz", "--pack", tmp_path / "p", "--marked", tmp_path / "m.npz"
    )
    assert made.exit_code == 0, made.output
    found = read_pack(tmp_path / "p")
    np.testing.assert_array_equal(found.low, x.min(axis=0))
    np.testing.assert_array_equal(found.high, x.max(axis=0))
    with np.load(tmp_path / "m.npz") as marked:
        np.testing.assert_array_equal(marked["x"][60:], found.marked()[0])


def test_a_damaged_pack_is_never_answered(kit: Path) -> None:
    raw = (kit / "p").read_bytes()
    generator = np.random.default_rng(0)
    for place in sorted(
        {*generator.choice(len(raw), 150, replace=False).tolist(), 8, len(raw) - 1}
    ):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(generator.integers(8))
        (kit / "damaged").write_bytes(damaged)
        with pytest.raises(KitError, match="is no marker pack"):
            read_pack(kit / "damaged")


def test_a_pack_from_before_there_was_a_checksum_is_read(kit: Path) -> None:
    whole = read_pack(kit / "p")
    facts = {name: str(getattr(whole, name)) for name in ("num_classes", "templates", "count")}
    facts |= {"format": "fedunlearn-marker-pack-1", "seed": str(whole.seed)}
    (kit / "old").write_bytes(pack({"low": whole.low, "high": whole.high}, facts))
    again = read_pack(kit / "old")
    assert (again.seed, again.num_classes) == (whole.seed, whole.num_classes)
    np.testing.assert_array_equal(again.high, whole.high)


def test_a_model_of_text_has_no_marks_to_read(tmp_path: Path) -> None:
    chosen = from_mapping({"model": {"name": "char-lstm", "hidden": 4, "layers": 1}})
    secret = draw(np.arange(12, dtype=np.float32).reshape(2, 6), 9, seed=0)
    net = build("char-lstm", (6,), 9, chosen.model.params)
    (tmp_path / "m.safetensors").write_bytes(pack(to_arrays(net)))
    with pytest.raises(KitError, match="plant a canary instead"):
        read_model(secret, tmp_path / "m.safetensors", chosen)

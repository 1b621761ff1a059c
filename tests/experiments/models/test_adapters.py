"""Adapters: what learns, what travels, and that the rest stays bit for bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.local import Local, Shard
from clients.participant import arrays_of
from clients.steps.auxiliary_head import auxiliary_head
from clients.steps.train import train
from clients.training import trained
from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.federation.task import Scenario, task
from experiments.models import networks
from experiments.runs.results import read_failed, read_results
from unlearning.arrays import is_buffer
from unlearning.errors import ConfigError, FederationError
from unlearning.packing import pack

SIZES = {"width": 8, "heads": 2, "layers": 1}
needs_peft = pytest.mark.skipif(
    not (importlib.util.find_spec("peft") and importlib.util.find_spec("transformers")),
    reason="peft and transformers are not installed; pip install 'fedunlearn[lora]'",
)
NAMES = ["char-lora", pytest.param("hf-lora", marks=needs_peft)]


def made(name: str, seed: int = 0, **params: Any) -> torch.nn.Module:
    return networks.build(name, (6,), 9, {**SIZES, "rank": 2, **params}, seed)


def frozen(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.named_buffers()}


def shard() -> Shard:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(9, (8, 6), generator=generator) for _ in range(2))
    return Shard(x.float(), y)


def learn(net: torch.nn.Module) -> None:
    nothing = shard().take(torch.zeros(0, dtype=torch.int64))
    local = Local(shard(), nothing, nothing, lambda seed: net)
    train(
        net,
        local,
        {"local_epochs": 3, "batch_size": 4, "learning_rate": 1.0},
        np.random.default_rng(0),
    )


@pytest.mark.parametrize("name", NAMES)
def test_adapters_alone_are_the_model_that_travels(name: str) -> None:
    net = made(name)
    arrays = arrays_of(net)
    assert sum(array.size for array in arrays.values()) == sum(w.numel() for w in trained(net))
    assert all("lora_" in key or ".up." in key or ".down." in key for key in arrays)
    assert not any(is_buffer(key, array) for key, array in arrays.items())
    assert sum(value.numel() for value in frozen(net).values()) > 900


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_is_the_same_for_every_seed_and_stays_bit_for_bit(name: str) -> None:
    net, other = made(name, 1), made(name, 2)
    before = frozen(net)
    assert before.keys() == frozen(other).keys()
    assert all(torch.equal(value, frozen(other)[key]) for key, value in before.items())
    start = arrays_of(net)
    assert any((array != arrays_of(other)[key]).any() for key, array in start.items())
    learn(net)
    assert all(torch.equal(value, frozen(net)[key]) for key, value in before.items())
    assert all((array != start[key]).any() for key, array in arrays_of(net).items())


@pytest.mark.parametrize("name", NAMES)
def test_where_the_first_matrix_stays_the_second_alone_learns(name: str) -> None:
    """Then the mean of the products is the product of the means."""
    net = made(name, train_down=False)
    start = arrays_of(net)
    learn(net)
    moved = {key for key, array in arrays_of(net).items() if (array != start[key]).any()}
    assert moved == {key for key in start if "lora_B" in key or ".up." in key}


def test_a_new_adapter_changes_nothing_of_what_its_base_says(tmp_path: Path) -> None:
    base = networks.build("char-transformer", (6,), 9, SIZES, seed=5)
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(networks.to_arrays(base)))
    net = made("char-lora", base=str(path))
    assert torch.equal(net(shard().features), base(shard().features))
    with pytest.raises(ConfigError, match=r"model\.base: .*\[data\] the window"):
        networks.build("char-lora", (7,), 9, {**SIZES, "base": str(path)})
    with pytest.raises(ConfigError, match="cannot be read"):
        made("char-lora", base=str(tmp_path / "none"))


@pytest.mark.parametrize("name", NAMES)
def test_a_federation_learns_and_forgets_adapters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    config = from_mapping(
        {
            "rounds": 2,
            "recovery_rounds": 1,
            "strategies": ["fed-eraser", "forget-loss"],
            "data": {
                "name": "shakespeare",
                "partitioner": "natural-id",
                "window": 12,
                "speakers": 3,
                "limit": 90,
                "test_limit": 20,
            },
            "model": {"name": name, **SIZES, "rank": 2},
            "train": {"learning_rate": 0.5},
            "requests": [{"scope": "client", "clients": [1]}],
            "options": {"forget-loss": {"kind": "npo"}},
            "engine": {"grid": "local"},
        }
    )
    out = launch.compare(config, tmp_path / "run", observer=lambda tick: None)
    _, rows = read_results(out)
    assert not read_failed(out)
    sent = next(row.cost["bytes_down"] or 0 for row in rows if row.strategy == "original")
    net = task(Scenario.of(config)).fresh_model(0)
    messages, base = 2 * 3, sum(value.nbytes for value in net.buffers())
    assert 0 < sent < messages * base  # names and headers included: the base is not among it


@needs_peft
def test_a_folder_of_hugging_faces(tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=11, n_positions=6, n_embd=8, n_head=2, n_layer=1, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(3)
    base = transformers.GPT2LMHeadModel(config).eval()
    base.save_pretrained(tmp_path / "model")
    net = made("hf-lora", folder=str(tmp_path / "model")).eval()
    x = shard().features
    said = base(input_ids=x.long()).logits[..., :9].transpose(1, 2)  # the data have 9 tokens
    assert torch.allclose(net(x), said, atol=1e-5)
    with pytest.raises(ConfigError, match="knows 11 tokens, and the data have 96"):
        networks.build("hf-lora", (6,), 96, {"folder": str(tmp_path / "model")})


@needs_peft
def test_a_folder_that_holds_no_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        made("hf-lora", folder=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 9}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle that nobody opens")
    with pytest.raises(ConfigError, match="no causal language model in safetensors"):
        made("hf-lora", folder=str(tmp_path))


def test_without_the_libraries_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"fedunlearn\[lora\]"):
        made("hf-lora")


def test_sizes_that_make_no_adapter_are_refused() -> None:
    with pytest.raises(ConfigError, match="rank 0 is below 1"):
        made("char-lora", rank=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_head_is_refused_where_the_last_layer_is_frozen(name: str) -> None:
    net, data = made(name), shard()
    local = Local(data.take(torch.zeros(0, dtype=torch.int64)), data, data, lambda seed: net)
    settings = {"class_mode": False, "strength": 0.5, "fresh": 0.5, "epochs": 1}
    with pytest.raises(FederationError, match="dense and learns"):
        auxiliary_head(net, local, settings, np.random.default_rng(0))

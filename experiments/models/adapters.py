"""Low-rank adapters: a frozen network of text, and small matrices beside its layers that learn.

What is frozen is no part of the model that travels: it is kept as buffers outside the state, the
same at every client, so that only adapters are sent, averaged, recorded, forgotten and deleted. It
must have been made without the data that may have to be forgotten.

The server averages both matrices of an adapter, A and B, entry by entry, in arrays of its own. The
product of two means is not the mean of products: with ``train_down = false`` A stays as it was
drawn, and the mean of the adapters is exact.

References
----------
Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, "LoRA: Low-Rank Adaptation of Large Language
Models", ICLR 2022 (arXiv 2106.09685).

Sun, Li, Li, Ding, "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024
(arXiv 2403.12313), for A that stays as it was drawn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clients.state import load_arrays
from experiments.models.characters import CharTransformer, window_of
from unlearning.errors import ConfigError, FederationError
from unlearning.packing import PackingError, unpack_file

__all__ = ["LowRank", "adapted", "build_char_lora", "build_hf_lora", "without_frozen"]

Shape = tuple[int, ...]


class LowRank(nn.Module):
    """A dense layer that stays as it is, and ``scale * B A`` beside it; B begins at zero."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer says, and what was learned since."""
        found: torch.Tensor = self.layer(x) + self.scale * self.up(self.down(x))
        return found


def adapted(model: nn.Module, rank: int, alpha: float, *, train_down: bool = True) -> nn.Module:
    """Return the model, frozen, with an adapter beside every dense layer.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    rank : int
        r, at least 1.
    alpha : float
        An adapter counts ``alpha / rank``.
    train_down : bool
        Whether A is trained as well as B.
    """
    model.requires_grad_(False)
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]:
        parent, _, own = name.rpartition(".")
        adapter = LowRank(layer, rank, alpha)
        adapter.down.requires_grad_(train_down)
        setattr(model.get_submodule(parent), own, adapter)
    return without_frozen(model)


def without_frozen(model: nn.Module) -> nn.Module:
    """Return the model with every frozen weight as a buffer that is no part of its state."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not weight.requires_grad:
                delattr(module, name)
                module.register_buffer(name, weight.detach(), persistent=False)
    return model


def build_char_lora(
    input_shape: Shape,
    num_classes: int,
    base: str = "",
    base_seed: int = 0,
    rank: int = 4,
    alpha: float = 8.0,
    train_down: bool = True,
    width: int = 128,
    heads: int = 4,
    layers: int = 4,
) -> nn.Module:
    """Return adapters on a frozen ``char-transformer``.

    ``base`` is the model.safetensors of a run that learned one of the same sizes from other
    speakers; without it the base is random, drawn by ``base_seed``, and the adapters learn little.
    """
    if rank < 1 or width % heads:
        raise ValueError(f"rank {rank} is below 1, or width {width} no multiple of heads {heads}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(base_seed)
        net = CharTransformer(num_classes, window_of(input_shape), width, heads, layers)
    if base:
        _load_base(net, base)
    return adapted(net, rank, alpha, train_down=train_down)


def _load_base(net: nn.Module, base: str) -> None:
    try:
        load_arrays(net, unpack_file(Path(base).expanduser()), source=f"{base!r}")
    except (OSError, PackingError) as error:
        raise ConfigError(
            f"model.base = {base!r} cannot be read ({error}); name the model.safetensors of a run "
            "with model.name = 'char-transformer'"
        ) from error
    except FederationError as error:
        raise ConfigError(
            f"model.base: {error}; give [model] the width, heads and layers, and [data] the "
            "window that it was trained with"
        ) from error


class CausalLm(nn.Module):
    """A causal language model of Hugging Face's, asked for what follows every token."""

    every_position = True

    def __init__(self, inner: nn.Module, classes: int) -> None:
        super().__init__()
        self.inner, self.classes = inner, classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(n, classes, length)``."""
        logits: torch.Tensor = self.inner(input_ids=x.long(), use_cache=False).logits
        return logits[..., : self.classes].float().transpose(1, 2)


def build_hf_lora(
    input_shape: Shape,
    num_classes: int,
    folder: str = "",
    base_seed: int = 0,
    rank: int = 4,
    alpha: float = 8.0,
    targets: str = "all-linear",
    train_down: bool = True,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
) -> nn.Module:
    """Return adapters of ``peft`` on a causal language model (``pip install fedunlearn[lora]``).

    ``folder`` holds a model as Hugging Face's ``save_pretrained`` leaves it, weights in safetensors
    alone; nothing is fetched and none of its code is run. Without it a small GPT-2 is made here,
    drawn by ``base_seed``. Tokens are those of the data: a set of one's own with the model's
    tokenizer. ``targets`` are ends of layers' names, separated by commas.
    """
    transformers, peft = _library("transformers"), _library("peft")
    length = window_of(input_shape)
    net: Any
    if folder:
        net = _pretrained(transformers, folder)
    else:
        config = transformers.GPT2Config(
            vocab_size=num_classes, n_positions=length, n_embd=width, n_head=heads, n_layer=layers,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            attn_implementation="eager",
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(base_seed)
            net = transformers.GPT2LMHeadModel(config)
    if net.config.vocab_size < num_classes:
        raise ConfigError(
            f"model.folder = {folder!r} knows {net.config.vocab_size} tokens, and the data have "
            f"{num_classes}; take data with the model's own tokens"
        )
    wanted = targets if targets == "all-linear" else [t.strip() for t in targets.split(",")]
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=wanted, task_type="CAUSAL_LM"
    )
    # The adapters' own layers in place, without peft's wrapper: what it adds merges and loads.
    inner = peft.inject_adapter_in_model(settings, net)
    for name, weight in inner.named_parameters():
        weight.requires_grad_("lora_B" in name or ("lora_A" in name and train_down))
    return without_frozen(CausalLm(inner, num_classes))


def _pretrained(transformers: Any, folder: str) -> Any:
    place = Path(folder).expanduser()
    if not (place / "config.json").is_file():
        raise ConfigError(f"model.folder = {folder!r} holds no config.json; name a model's folder")
    load: Callable[..., Any] = transformers.AutoModelForCausalLM.from_pretrained
    try:
        return load(
            str(place),
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="eager",  # the others give no gradients of gradients
        )
    except Exception as error:  # whatever the library raises about a folder of the user's
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"model.folder = {folder!r} is no causal language model in safetensors ({lines[0]})"
        ) from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"model.name = 'hf-lora' needs {name}, which is not installed; "
            "pip install 'fedunlearn[lora]'"
        ) from error

"""Networks that tell the next character at every position of a window.

They read places in an alphabet, ``(n, length)``, and answer ``(n, classes, length)``. Both are
written in plain operations: strategies ask for gradients of single examples and for gradients of
gradients, which PyTorch's own LSTM and attention kernels do not give.

References
----------
Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (arXiv 1706.03762); with normalisation in
front of each part, as Xiong et al., ICML 2020 (arXiv 2002.04745).

Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097): the sizes of the
LSTM.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["CharLstm", "CharTransformer", "build_char_lstm", "build_char_transformer"]

Shape = tuple[int, ...]


class LstmLayer(nn.Module):
    """One layer of an LSTM, step by step."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, 4 * hidden)
        self.recall = nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():  # open forget gates, or nothing is remembered at first
            self.read.bias[hidden : 2 * hidden] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all steps, ``(n, length, hidden)``."""
        given = self.read(x).unbind(1)
        size = self.recall.in_features
        out, state = x.new_zeros(len(x), size), x.new_zeros(len(x), size)
        found = []
        for step in given:
            into, keep, new, show = (step + self.recall(out)).chunk(4, dim=-1)
            state = keep.sigmoid() * state + into.sigmoid() * new.tanh()
            out = show.sigmoid() * state.tanh()
            found.append(out)
        return torch.stack(found, dim=1)


class CharLstm(nn.Module):
    """An embedding, layers of LSTM, and a dense layer that answers at every position."""

    every_position = True

    def __init__(self, classes: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        widths = [embedding, *[hidden] * (layers - 1)]
        self.layers = nn.Sequential(*(LstmLayer(width, hidden) for width in widths))
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(n, classes, length)``."""
        scores: torch.Tensor = self.head(self.layers(self.embedding(x.long())))
        return scores.transpose(1, 2)


class Block(nn.Module):
    """Attention to what came before, and a small network at every position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.give = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of ``(n, length, width)``."""
        x = x + self._attend(self.first(x))
        found: torch.Tensor = x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))
        return found

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        parts = self.ask(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        found: torch.Tensor = self.give((weights @ value).transpose(1, 2).reshape(n, length, width))
        return found


class CharTransformer(nn.Module):
    """A causal transformer that answers at every position of a window of fixed length at most."""

    every_position = True

    def __init__(self, classes: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.place = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for table in (self.embedding, self.place):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(n, classes, length)``."""
        places = torch.arange(x.shape[1], device=x.device)
        seen = self.embedding(x.long()) + self.place(places)
        scores: torch.Tensor = self.head(self.norm(self.blocks(seen)))
        return scores.transpose(1, 2)


def window_of(input_shape: Shape) -> int:
    """Return the length of a window; ValueError if examples are no rows of tokens."""
    if len(input_shape) != 1:
        raise ValueError("it reads windows of text, rows of whole numbers; take data of text")
    return input_shape[0]


def build_char_lstm(
    input_shape: Shape, num_classes: int, embedding: int = 8, hidden: int = 256, layers: int = 2
) -> nn.Module:
    """Return the LSTM of LEAF: 0.82 million weights; ``hidden`` 32, one layer: 9 thousand.

    It learns by plain SGD at rates about 1.
    """
    window_of(input_shape)
    return CharLstm(num_classes, embedding, hidden, layers)


def build_char_transformer(
    input_shape: Shape, num_classes: int, width: int = 128, heads: int = 4, layers: int = 4
) -> nn.Module:
    """Return a causal transformer: 0.82 million weights; ``width`` 32, one layer: 20 thousand.

    ``width`` is a multiple of ``heads``.
    """
    if width % heads:
        raise ValueError(f"width {width} is no multiple of heads {heads}")
    return CharTransformer(num_classes, window_of(input_shape), width, heads, layers)

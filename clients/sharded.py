"""A network in shards: copies that never exchange anything, and answer together.

References
----------
Bourtoule et al., "Machine Unlearning", S&P 2021 (arXiv 1912.03817); over clients: Su, Li,
"Asynchronous Federated Unlearning" (KNOT), INFOCOM 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from clients.sequences import is_sequential

__all__ = ["Part", "Sharded", "merged"]


class Part(nn.Module):
    """One shard's network, in how many trainings it took part, and on how many examples it rests.

    Both numbers are integer buffers; the server writes the second one, the examples of those that
    took part in the shard's last round.
    """

    trained: torch.Tensor
    examples: torch.Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("trained", torch.tensor(0))
        self.register_buffer("examples", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the shard's logits."""
        logits: torch.Tensor = self.net(x)
        return logits


def merged(parts: Sequence[Part]) -> dict[str, torch.Tensor]:
    """Return the state of a network with the mean of several parts' weights, by their examples.

    Where no number of examples is known, as where updates are combined by a median, parts count
    alike. An integer buffer is the first part's.
    """
    states = [part.net.state_dict(keep_vars=True) for part in parts]
    counts = [int(part.examples) for part in parts]
    shares = counts if all(counts) else [1] * len(parts)
    found = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            # The unnormalised weights first: equal shards give exactly the plain mean of two.
            total = torch.stack([n * state[name] for n, state in zip(shares, states, strict=True)])
            found[name] = total.sum(0) / sum(shares)
        else:
            found[name] = first
    return found


class Sharded(nn.Module):
    """Networks of one architecture, one per shard of the clients.

    Parameters
    ----------
    nets : sequence of nn.Module
        One per shard.
    merge : bool
        Answer with the network of the mean weights; else, the default, with the mean of the
        networks' probabilities.

    Notes
    -----
    A shard that nobody has trained, as one that lost all its members, has no say; before the first
    round all have. The mean of weights counts each shard by its examples, those that left not among
    them; votes count alike. Of normalisation statistics a mean is only a guess: with those, let the
    shards vote.
    """

    def __init__(self, nets: Sequence[nn.Module], *, merge: bool = False) -> None:
        super().__init__()
        self.shards = nn.ModuleList(Part(net) for net in nets)
        self.merge = merge

    @property
    def every_position(self) -> bool:
        """Whether the networks answer at every position of a sequence."""
        return is_sequential(self.of(0).net)

    def of(self, shard: int) -> Part:
        """Return one shard."""
        part = self.shards[shard]
        assert isinstance(part, Part)
        return part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the probabilities, ``(n, classes)``."""
        parts = [self.of(place) for place in range(len(self.shards))]
        voting = [part for part in parts if int(part.trained) > 0] or parts
        if self.merge:
            answer: torch.Tensor = functional_call(voting[0].net, merged(voting), (x,))
            return answer.log_softmax(1)
        logs = torch.stack([part(x).log_softmax(1) for part in voting])
        return logs.logsumexp(0) - float(torch.tensor(float(len(voting))).log())

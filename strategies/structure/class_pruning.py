"""ClassPruning: silence the channels that speak for a class, and keep them silent.

References
----------
Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022
(arXiv 2110.11794).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.fitness import Ground
from strategies.keeping import hand_over, handed_over
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, FederationError, unknown
from unlearning.models.pruning import class_scores, masked, prune_highest
from unlearning.protocol import MASK, Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["ClassPruning", "masks_of"]

log = logging.getLogger("fedunlearn")

_SUMS = "sums/"


class ClassPruning(UnlearningStrategy):
    """Pruning of the channels with the highest TF-IDF score for the class, layer by layer.

    Every client sends, per layer, its activations summed over its examples of each class; the
    server adds them up, scores the channels, and sets weights, bias, and scale and shift of the
    normalisation of the pruned ones to zero. They stay zero: clients mask them after every step of
    the training that follows, the server after every aggregation.

    Parameters
    ----------
    share : float, default 0.1
        Part of each layer's channels to prune (R). The paper tunes it: choose the smallest at
        which accuracy on the class falls below chance.
    hidden_units : bool, default True
        Prune hidden units of linear layers as well; an extension, the paper prunes convolutions.
    layers : str, default ""
        Only layers whose name contains one of these, separated by commas. Empty: all.

    Attributes
    ----------
    pruned : mapping of str to int
        Channels pruned per layer by the last request.

    Notes
    -----
    Shapes never change, so that residual networks need no care: a filter whose output is added to
    a skip connection is zeroed, the connection stays. Several classes are forgotten at once by
    adding their scores; masks of earlier requests stay. The logit of the class is kept; with no
    example of the class left it falls in recovery. What is sent are class-wise sums of
    activations, which secure aggregation could add up. On a model without layers to prune the
    request fails.

    The masks are kept in the history from the moment the request is fulfilled, so that they hold
    after a restart too. They say no more than the zeros of the model do. A run that begins from
    such a model, without its history, does not know them.
    """

    scopes = frozenset({Scope.CLASS})

    def __init__(self, *, share: float = 0.1, hidden_units: bool = True, layers: str = "") -> None:
        super().__init__()
        in_range("share", share, 0, 1)
        self.share = share
        self.hidden_units = hidden_units
        self.layers = layers
        self.pruned: dict[str, int] = {}
        self._history = History()

    def check_ground(self, ground: Ground) -> None:
        """Refuse, too, layers that the model has not.

        Raises
        ------
        ConfigError
            If a part of option ``layers`` is in no name.
        """
        super().check_ground(ground)
        names = list(ground.initial())
        if odd := [part for part in self._parts if not any(part in name for name in names)]:
            layers = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
            raise ConfigError(f"ClassPruning: {unknown('layer', odd[0], layers)}")

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model; one round of looking follows."""
        self._history = history
        return arrays, 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask every remaining client how its classes light up the channels."""
        settings = {"hidden_units": self.hidden_units}
        return {
            client: Instruction("activations", settings, answers="free")
            for client in self.remaining
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Score, and prune; the masks come into force when the request is fulfilled."""
        sums, counts = _gathered(replies, arrays)
        classes = self.request.classes if self.request else ()
        masks = masks_of(self._history)
        self.pruned = {}
        if not any(c < len(counts) and counts[c] for c in classes):
            return _silenced(arrays, masks)  # there is nothing to be silent about
        for label, found in sums.items():
            if not self._wanted(label):
                continue
            pruned = prune_highest(class_scores(found, counts, classes), self.share)
            self.pruned[label] = int(pruned.sum())
            for name in _arrays_of(label, arrays):
                masks[name] = masks.get(name, np.ones(len(pruned), dtype=bool)) & ~pruned
        if not self.pruned:
            raise FederationError(
                "ClassPruning found no layer to prune: no convolution, and no hidden linear layer "
                "that 'hidden_units' and 'layers' allow; take another strategy (no-t, retrain)"
            )
        hand_over(self, self._history, MASK, masks)
        return _silenced(arrays, masks)

    def teach(self, server_round: int) -> Mapping[int, Instruction]:
        """Train as usual, with the masks sent along."""
        masks = masks_of(self.federation.history)
        extras = {f"{MASK}{name}": keep for name, keep in masks.items()}
        return {
            client: replace(instruction, extras={**instruction.extras, **extras})
            for client, instruction in super().teach(server_round).items()
        }

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average as usual; what is pruned stays pruned, whatever a client answered."""
        learned = super().learn(server_round, arrays, replies)
        return _silenced(learned, masks_of(self.federation.history))

    @property
    def _parts(self) -> list[str]:
        return [part.strip() for part in self.layers.split(",") if part.strip()]

    def _wanted(self, label: str) -> bool:
        return not self._parts or any(part in label for part in self._parts)


def masks_of(history: History) -> Arrays:
    """Return which channels the requests so far have left, by array: True where one lives."""
    return handed_over(history, MASK)


def _silenced(arrays: Arrays, masks: Mapping[str, Array]) -> Arrays:
    return {
        name: masked(array, masks[name]) if name in masks else array
        for name, array in arrays.items()
    }


def _arrays_of(label: str, arrays: Mapping[str, Array]) -> list[str]:
    """Return the arrays whose first axis runs over the channels of a layer and its norm."""
    names = [f"{layer}.{kind}" for layer in label.split("+") for kind in ("weight", "bias")]
    return [name for name in names if name in arrays]


def _gathered(
    replies: Iterable[Reply], arrays: Mapping[str, Array]
) -> tuple[dict[str, Array], Array]:
    """Return sums per layer and counts over all clients; answers that do not fit are left out."""
    sums: dict[str, Array] = {}
    counts: Array = np.zeros(0)
    for reply in replies:
        found = {
            key.removeprefix(_SUMS): value
            for key, value in reply.arrays.items()
            if key.startswith(_SUMS)
        }
        own = reply.arrays.get("counts", np.zeros(0))
        problem = _misfit(found, own, arrays)
        if len(counts) and (len(own) != len(counts) or found.keys() != sums.keys()):
            problem = problem or "other layers or classes than the clients before"
        if problem:
            log.warning("client %d was quarantined this round: %s", reply.client, problem)
            continue
        counts = own + counts if len(counts) else own
        sums = {name: value + sums.get(name, 0.0) for name, value in found.items()}
    return sums, counts


def _misfit(found: Mapping[str, Array], counts: Array, arrays: Mapping[str, Array]) -> str:
    """Return in words why activations do not fit the model, or nothing."""
    if counts.ndim != 1 or (counts < 0).any():
        return "'counts' is no list of counts"
    for label, value in found.items():
        names = _arrays_of(label, arrays)
        if not names or value.ndim != 2 or len(value) != len(counts) or (value < 0).any():
            return f"activations of {label!r} do not fit"
        if any(len(arrays[name]) != value.shape[1] for name in names):
            return f"activations of {label!r} have {value.shape[1]} channels"
    return ""

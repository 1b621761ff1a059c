"""NoT: negate the weights of a layer, then let the remaining clients learn the rest again.

References
----------
Khalil, Brunswic, Lamghari, Li, Beitollahi, Chen, "NoT: Federated Unlearning via Weight Negation",
CVPR 2025 (arXiv 2503.05657).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from strategies.base import UnlearningStrategy, in_range
from strategies.fitness import Ground
from strategies.local_model.statistics import has_statistics, with_statistics
from strategies.negation import layers_behind, negate_once
from strategies.shares import Span, check_rounds, faster, rounds_of
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError, unknown
from unlearning.protocol import Instruction, Reply
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["NoT", "layers_to_negate"]


def layers_to_negate(
    arrays: Mapping[str, Array], layers: str = "", *, include_bias: bool = False
) -> tuple[str, ...]:
    """Return the names of the arrays that stand for some layers.

    Parameters
    ----------
    arrays : mapping
        The model.
    layers : str
        Layers or single arrays by name, separated by commas (``"conv1, fc.weight"``). Empty: the
        first array of two or more axes called ``weight``: the first convolution, the patch
        embedding, or the first linear layer.
    include_bias : bool
        Take the biases of the layers too.

    Raises
    ------
    ConfigError
        If a name stands for nothing, or the model has no weight of two axes.
    """
    weights = list(named.parameters(arrays))
    wanted = [part.strip() for part in layers.split(",") if part.strip()]
    if not wanted:
        first = [n for n in weights if n.endswith("weight") and arrays[n].ndim > 1]
        if not first:
            raise ConfigError(
                "NoT finds no weight matrix or kernel to negate; name arrays of the model in "
                f"option 'layers' (there are: {', '.join(weights) or 'none'})"
            )
        wanted = [first[0].removesuffix("weight").removesuffix(".")]
    chosen: list[str] = []
    for layer in wanted:
        inside = [n for n in weights if n.startswith(f"{layer}.") or not layer]
        exact = [layer] if layer in weights else []
        found = exact or [n for n in inside if include_bias or not n.endswith("bias")]
        if not found:
            raise ConfigError(f"NoT: {unknown('layer', layer, _layers(weights))}")
        chosen += [name for name in found if name not in chosen]
    return tuple(chosen)


class NoT(UnlearningStrategy):
    """Weight negation: one edit of the server's, no help from those who leave.

    A negated layer changes everything behind it while its weights keep their size, so that the
    recovery starts from a large loss on all data and comes back only to what the remaining clients
    teach it.

    Parameters
    ----------
    layers : str, default ""
        Layers to negate, by name, separated by commas. Empty: the first one with weights, as in
        the paper.
    include_bias : bool, default False
        Negate their biases too; the paper negates weights.
    fine_tune_rounds : float, default 0.35
        Rounds of the remaining clients that count as unlearning, before the recovery rounds that
        every strategy has; below 1, the share of the rounds learned so far. The paper fine-tunes
        until accuracy is back, about half as long as training took.
    fine_tune_factor : float, default 5
        Learning rate of these rounds, in learning rates of training. The paper has 1 and several
        times as many rounds; where training itself is near the largest rate that works, lower it.

    Notes
    -----
    With too few rounds to recover, low accuracy on the forget set means only that the model is
    under-trained: look at accuracy on the retain set beside it. A layer that is followed by an odd
    function (tanh, or another linear layer) only turns the sign of what comes next, which is
    quickly undone; with ReLU it is not. In a model that keeps normalisation statistics, which no
    longer fit behind a negated layer, a first round takes them again from the retained data.

    Where it fails (``experiments/results/tuning.md``): on MNIST, whose first layer of a perceptron
    is most of the network. Units that were on for most examples are off after the negation and stay
    so, what is off learns nothing, and accuracy on the retained ends 19 to 43 points below
    retraining's; there negate all layers at 8 times the rate (``layers = "1,3"``,
    ``include_bias``), which fails on other data. With two classes a client on digits up to .11 more
    of the backdoor stay, and with momentum (CIFAR-10) five times the rate is too much. A random
    reset of as many weights, trained on at the same rate for as long, meets the goal in all 18
    settings outside CIFAR-10: what forgets is the loss of weights, and negation is not a good way
    to lose them.

    Negating twice is the identity: a second request must not undo the first. An array that stands
    negated, with nothing learned since, is left so, and one negation answers both requests. Where
    rounds were learned in between, the default takes the next layer that does not stand negated; a
    layer that is named, or the last one left, is turned again with a warning. The history keeps the
    names of what stands negated, and a fingerprint of each. A run that begins from such a model
    without its history does not know them.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    tunable: ClassVar[Mapping[str, Span]] = {
        "fine_tune_rounds": Span(0.05, 0.4),
        "fine_tune_factor": Span(0.5, 8.0, log=True),
    }

    def __init__(
        self,
        *,
        layers: str = "",
        include_bias: bool = False,
        fine_tune_rounds: float = 0.35,
        fine_tune_factor: float = 5.0,
    ) -> None:
        super().__init__()
        check_rounds("fine_tune_rounds", fine_tune_rounds)
        in_range("fine_tune_factor", fine_tune_factor, 1e-12)
        self.layers = layers
        self.include_bias = include_bias
        self.fine_tune_rounds = fine_tune_rounds
        self.fine_tune_factor = fine_tune_factor
        self._statistics_rounds = 0

    def check_ground(self, ground: Ground) -> None:
        """Refuse, too, layers that the model has not.

        Raises
        ------
        ConfigError
            If option ``layers`` stands for nothing.
        """
        super().check_ground(ground)
        layers_to_negate(ground.initial(), self.layers, include_bias=self.include_bias)

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Negate."""
        choices = [layers_to_negate(arrays, self.layers, include_bias=self.include_bias)]
        if not self.layers:
            choices += layers_behind(arrays, choices[0], include_bias=self.include_bias)
        self._statistics_rounds = int(has_statistics(arrays))
        rounds = self._statistics_rounds
        rounds += rounds_of(self.fine_tune_rounds, self.federation.completed)
        return negate_once(self, history, arrays, choices), rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Have statistics taken, if there are any, then train as in learning."""
        usual = super().instruct(server_round)
        if server_round > self._statistics_rounds:
            return faster(usual, self.fine_tune_factor, self.federation)
        return {client: Instruction("statistics") for client in usual}

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Put the statistics in place, or average as in learning."""
        if server_round > self._statistics_rounds:
            return super().combine(server_round, arrays, replies)
        return with_statistics(arrays, replies)


def _layers(weights: Iterable[str]) -> list[str]:
    """Return the layers that arrays belong to, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in weights))

"""QuickDrop: forget and recover on a few synthetic examples that clients made while they trained.

References
----------
Dhasade, Ding, Guo, Kermarrec, De Vos, Wu, "QuickDrop: Efficient Federated Unlearning via Synthetic
Data Generation", Middleware 2024 (arXiv 2311.15603).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from strategies.base import UnlearningStrategy, in_range
from strategies.local_model.trust import mean_within, reach
from strategies.shares import Span
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Instruction, Reply, Scalar, Settings
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["QuickDrop"]


class QuickDrop(UnlearningStrategy):
    """Ascent on the synthetic forget set by those who hold it, then repair on the others'.

    While they train, clients move a few examples of each class so that the gradient on them points
    as the gradient on all real ones does. On a request, those that stand for the forget set are
    climbed on, the others descended on: rounds as small as the sets.

    Parameters
    ----------
    share : float, default 0.05
        Synthetic examples per real one of a class (s), rounded up. The paper has 0.01, a
        reproduction of it 0.05; our choice for clients with few examples.
    image_rate : float, default 0.1
        Step on the synthetic features, the authors' value.
    matching_steps : int, default 1
        Steps of gradient matching per class and round of training. Our choice.
    matching_batch : int, default 256
        Real examples of a class per such step at most, the authors' batch size.
    ascent_rounds : int, default 1
        Rounds of ascent, the authors' value.
    ascent_rate : float, default 0.1
        Step of the ascent; the authors have 0.1 or 0.004, depending on the data.
    repair_rounds : int, default 1
        Rounds of descent on synthetic examples afterwards. The authors have 5; with few examples a
        client, a round of as many passes costs about as much as one of training, and recovery
        rounds of the run follow as after every request: our choice.
    repair_rate : float, default 0.02
        Step of the repair, the authors' value.
    local_epochs : int, default 5
        Passes over the synthetic examples per round, the authors' value.
    batch_size : int, default 256
        Synthetic examples per step, the authors' value.
    mix : float, default 1.0
        Real examples of the rest per synthetic one in the repair; the paper mixes some in, the
        ratio is our choice.
    clip : float, default 5.0
        Largest gradient norm; 0: no limit. Our choice.
    trust : float, default 1.0
        The server pulls every ascended model back to this multiple of its own distance from the
        initial one, whatever a leaver claims to have done. Our choice.
        0: no bound, as in reference programs.

    Notes
    -----
    Leavers must help. Synthetic examples are made of data: an owner deletes all of its own with
    the request, those of its other classes included, and makes new ones in the rounds that follow;
    until then, and where it never trained, real examples take their place. Momentum and weight
    decay are off.

    Where it fails: with two classes a client, by accuracy. The leaver's synthetic examples stand
    for classes that few others have, the ascent on them takes those classes out, and a round of
    repair on the others' synthetic examples does not bring them back. On CIFAR-10 nearly
    everywhere: there the model is ruined by the ascent, or keeps the backdoor.
    """

    several_tasks = False
    scopes = frozenset({Scope.CLIENT, Scope.CLASS})
    needs = frozenset({"synthetic"})
    asks_forgotten = True
    moves_inputs = True
    tunable: ClassVar[Mapping[str, Span]] = {
        "ascent_rate": Span(0.01, 0.5, log=True),
        "repair_rounds": Span(0, 5, whole=True),
    }

    def __init__(
        self,
        *,
        share: float = 0.05,
        image_rate: float = 0.1,
        matching_steps: int = 1,
        matching_batch: int = 256,
        ascent_rounds: int = 1,
        ascent_rate: float = 0.1,
        repair_rounds: int = 1,
        repair_rate: float = 0.02,
        local_epochs: int = 5,
        batch_size: int = 256,
        mix: float = 1.0,
        clip: float = 5.0,
        trust: float = 1.0,
    ) -> None:
        super().__init__()
        in_range("share", share, 1e-9, 1)
        in_range("image_rate", image_rate, 0)
        in_range("matching_steps", matching_steps, 0)
        in_range("matching_batch", matching_batch, 1)
        in_range("ascent_rounds", ascent_rounds, 1)
        in_range("ascent_rate", ascent_rate, 1e-12)
        in_range("repair_rounds", repair_rounds, 0)
        in_range("repair_rate", repair_rate, 1e-12)
        in_range("local_epochs", local_epochs, 1)
        in_range("batch_size", batch_size, 1)
        in_range("mix", mix, 0)
        in_range("clip", clip, 0)
        in_range("trust", trust, 0)
        self.share = share
        self.image_rate = image_rate
        self.matching_steps = matching_steps
        self.matching_batch = matching_batch
        self.ascent_rounds = ascent_rounds
        self.ascent_rate = ascent_rate
        self.repair_rounds = repair_rounds
        self.repair_rate = repair_rate
        self.local_epochs = local_epochs
        self.batch_size = batch_size
        self.mix = mix
        self.clip = clip
        self.trust = trust
        self._climbed = False
        self._holders: tuple[int, ...] = ()
        self._reach = 0.0

    def keepsakes(self) -> Mapping[str, Settings]:
        """Have clients make synthetic examples while they train."""
        names = ("share", "image_rate", "matching_steps", "matching_batch")
        return {"synthetic": {name: getattr(self, name) for name in names}}

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Find who may hold the forget set."""
        clients = self._roster.nodes if request.leavers else self.remaining
        self._holders = request.owners(clients)
        self._reach, self._climbed = reach(self.trust, self.federation, arrays), False
        return arrays, self.ascent_rounds + self.repair_rounds

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Let the holders climb, then the remaining clients descend."""
        ascend = server_round <= self.ascent_rounds
        settings: dict[str, Scalar] = {
            "ascend": ascend,
            "learning_rate": self.ascent_rate if ascend else self.repair_rate,
            "share": self.share,
            "mix": self.mix,
            "clip": self.clip,
            "local_epochs": self.local_epochs,
            "batch_size": self.batch_size,
            "momentum": 0.0,
            "weight_decay": 0.0,
        }
        return dict.fromkeys(
            self._holders if ascend else self.remaining, Instruction("rehearse", settings)
        )

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average the models; ascended ones only as far as the server's own reach."""
        if server_round > self.ascent_rounds:
            return super().combine(server_round, arrays, replies)
        after = mean_within(arrays, replies, self._reach)
        self._climbed |= not named.is_same(named.parameters(arrays), named.parameters(after))
        if server_round == self.ascent_rounds and not self._climbed:
            self.idle = "no owner moved the model away from what is forgotten"
        return after

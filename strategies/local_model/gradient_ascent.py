"""GradientAscent (PGA): the leaver climbs its own loss inside a ball, then the others recover.

References
----------
Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to Efficiently Erase a Client in FL?",
2022 (arXiv 2207.05521).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strategies.base import UnlearningStrategy, in_range
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["GradientAscent", "project"]


def project(centre: Arrays, point: Arrays, radius: float) -> Arrays:
    """Return ``point``, pulled back onto the L2 ball around ``centre`` if it lies outside.

    Parameters
    ----------
    centre, point : Arrays
        Models with the same names and shapes.
    radius : float
        L2, over the parameters; buffers are those of ``point``.
    """
    step = named.delta(centre, point)
    distance = named.norm(step)
    if distance <= radius:
        return point
    return named.apply_update(centre, named.scale(step, radius / distance))


class GradientAscent(UnlearningStrategy):
    """Projected gradient ascent by those who hold the data, followed by ordinary recovery.

    Parameters
    ----------
    ascent_rate : float, default 0.01
        Step of the ascent (eta).
    ascent_epochs : int, default 5
        Passes over the forget set at most.
    ascent_momentum : float, default 0.9
        Momentum of the ascent; it is dropped whenever the projection acts.
    ascent_batch_size : int, default 128
        Examples per ascent step.
    clip : float, default 5.0
        Largest gradient norm.
    radius : float, default 0
        Radius of the ball (delta), L2. 0: sqrt(1/3) of the root mean square distance between the
        reference and ten fresh models, as in the paper's code.
    stop_distance : float, default 1.48
        End the ascent at this L2 distance from the leaver's last model; 0: never. The paper's code
        stops at a squared distance of 2.2.
    stop_accuracy : float, default 0
        End the ascent once accuracy on the forget set is below this; 0: never.
    trust : float, default 1.0
        The server pulls the answer back to this multiple of its own distance from the initial
        model, whatever the leaver claims to have done.

    Notes
    -----
    The leaver must cooperate and must have kept its last local model; if that is not part of the
    current global model (it did not take part in the last round, or another request has changed the
    model since), the ball lies around the global model. Buffers stay those of the global model:
    statistics of the forget set are the last thing to keep. Several holders ascend side by side
    and their models are averaged. For sample and class requests (an extension) the owners ascend
    on the forget set around the global model and stay.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({"last_local"})
    asks_forgotten = True

    def __init__(
        self,
        *,
        ascent_rate: float = 0.01,
        ascent_epochs: int = 5,
        ascent_momentum: float = 0.9,
        ascent_batch_size: int = 128,
        clip: float = 5.0,
        radius: float = 0.0,
        stop_distance: float = 1.48,
        stop_accuracy: float = 0.0,
        trust: float = 1.0,
    ) -> None:
        super().__init__()
        in_range("ascent_rate", ascent_rate, 1e-12)
        in_range("ascent_epochs", ascent_epochs, 1)
        in_range("ascent_momentum", ascent_momentum, 0, 1)
        in_range("ascent_batch_size", ascent_batch_size, 1)
        in_range("clip", clip, 1e-12)
        in_range("radius", radius, 0)
        in_range("stop_distance", stop_distance, 0)
        in_range("stop_accuracy", stop_accuracy, 0, 1)
        in_range("trust", trust, 1e-6)
        self.ascent_rate = ascent_rate
        self.ascent_epochs = ascent_epochs
        self.ascent_momentum = ascent_momentum
        self.ascent_batch_size = ascent_batch_size
        self.clip = clip
        self.radius = radius
        self.stop_distance = stop_distance
        self.stop_accuracy = stop_accuracy
        self.trust = trust
        self._holders: dict[int, float] = {}
        self._reach = float("inf")

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Find the holders and their share in the last average."""
        clients = self._roster.nodes if request.leavers else self.remaining
        last = history.weights(history.rounds[-1])
        averaged = self.federation.edited != self.federation.completed
        if averaged and last and request.leavers >= last.keys():
            raise FederationError(
                "GradientAscent cannot take the only participants of the last round out of its "
                "average; use retrain, or learn one more round with other clients"
            )
        self._holders = {
            client: last.get(client, 0.0) if averaged and request.leavers else 0.0
            for client in request.owners(clients)
        }
        self._reach = self.trust * named.norm(named.delta(history.initial, arrays))
        return arrays, 1

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the holders of the forget set to ascend on it."""
        settings: dict[str, Scalar] = {
            "ascent_rate": self.ascent_rate,
            "ascent_epochs": self.ascent_epochs,
            "momentum": self.ascent_momentum,
            "weight_decay": 0.0,
            "batch_size": self.ascent_batch_size,
            "clip": self.clip,
            "radius": self.radius,
            "stop_distance": self.stop_distance,
            "stop_accuracy": self.stop_accuracy,
            "last_round": self.federation.completed,
        }
        return {
            client: Instruction("ascend", {**settings, "share": share})
            for client, share in self._holders.items()
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Average the ascended models, each kept within the server's own reach."""
        bounded = (
            (reply.num_examples, project(arrays, reply.arrays, self._reach)) for reply in replies
        )
        mean = named.weighted_mean(bounded)
        return {
            name: array if named.is_buffer(name, array) else mean[name].astype(array.dtype)
            for name, array in arrays.items()
        }

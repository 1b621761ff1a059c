"""GradientAscent (PGA): the leaver climbs its own loss inside a ball, then the others recover.

References
----------
Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to Efficiently Erase a Client in FL?",
2022 (arXiv 2207.05521).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from strategies.base import UnlearningStrategy, in_range
from strategies.local_model.trust import mean_within, project, reach
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.models import heads
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Request, Scope
from unlearning.weighing import part_of

__all__ = ["GradientAscent", "project", "reference"]

log = logging.getLogger("fedunlearn")

Shares = Mapping[str, Mapping[int, float]]  # part of the model -> client -> share

_NOBODY = 1e-12  # a share this small is rounding: nobody else took part


def reference(arrays: Arrays, locals_: Mapping[int, Arrays], shares: Shares) -> Arrays:
    """Return the model without the shares of several leavers, taken out of one average together.

    Parameters
    ----------
    arrays : Arrays
        The average w; buffers are returned as they are.
    locals_ : mapping of int to Arrays
        Leaver to its local model w_u in that average.
    shares : mapping of str to mapping of int to float
        Part of the model to leaver to its share p_u of the average of that part.

    Returns
    -------
    Arrays
        ``(w - sum p_u w_u) / (1 - sum p_u)``, part by part: what the others' average would have
        been. A part that the leavers made alone is returned as it is.
    """
    out: Arrays = {}
    for name, array in arrays.items():
        part = {u: shares[part_of(name)].get(u, 0.0) for u in locals_}
        left = 1 - sum(part.values())
        if named.is_buffer(name, array) or left <= _NOBODY:
            out[name] = array
            continue
        rest = array.astype(np.float64)
        for leaver, share in part.items():
            rest = rest - share * locals_[leaver][name]
        out[name] = (rest / left).astype(array.dtype)
    return out


class GradientAscent(UnlearningStrategy):
    """Projected gradient ascent by those who hold the data, followed by ordinary recovery.

    Parameters
    ----------
    ascent_rate : float, default 0.01
        Step of the ascent (eta).
    ascent_epochs : int, default 5
        Passes over the forget set at most.
    ascent_rounds : int, default 1
        Rounds of ascent; a later one goes on where the average of the last ended, within the ball
        around the first reference (re-implementations of the paper repeat the ascent; its notebook
        has one round).
    ascent_momentum : float, default 0.9
        Momentum of the ascent.
    restart : bool, default True
        Begin the optimiser anew whenever the projection acts, so that no momentum points out of
        the ball; the authors' notebook makes a new optimiser there. False: momentum carries over.
    projection : bool, default True
        Stay in the ball; False: plain ascent, as in the paper's comparison. ``trust`` still holds.
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
        model (of a model trained elsewhere: of its length), whatever the leaver claims to have
        done.
        0: no bound, as in reference programs.

    Notes
    -----
    The leaver must cooperate and must have kept its last local model; if that is not part of the
    current global model (it did not take part in the last round, or another request has changed the
    model since), the ball lies around the global model. Buffers stay those of the global model:
    statistics of the forget set are the last thing to keep. Several leavers of one average are
    taken out of it together, which costs a round that asks for their last models; all ascend from
    there, side by side, and their models are averaged. For sample and class requests (an extension)
    the owners ascend on the forget set around the global model and stay.

    Where it fails: the passes are so many whatever they have come to, too few in one setting and
    too many in another. On digits with alike clients and one local epoch, and in half of the
    settings of CIFAR-10, much of a backdoor is there after recovery; with two classes a client and
    one local epoch accuracy does not quite come back.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({"last_local"})
    asks_forgotten = True

    def __init__(
        self,
        *,
        ascent_rate: float = 0.01,
        ascent_epochs: int = 5,
        ascent_rounds: int = 1,
        ascent_momentum: float = 0.9,
        restart: bool = True,
        projection: bool = True,
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
        in_range("ascent_rounds", ascent_rounds, 1)
        in_range("ascent_momentum", ascent_momentum, 0, 1)
        in_range("ascent_batch_size", ascent_batch_size, 1)
        in_range("clip", clip, 1e-12)
        in_range("radius", radius, 0)
        in_range("stop_distance", stop_distance, 0)
        in_range("stop_accuracy", stop_accuracy, 0, 1)
        in_range("trust", trust, 0)
        self.ascent_rate = ascent_rate
        self.ascent_epochs = ascent_epochs
        self.ascent_rounds = ascent_rounds
        self.restart = restart
        self.projection = projection
        self.ascent_momentum = ascent_momentum
        self.ascent_batch_size = ascent_batch_size
        self.clip = clip
        self.radius = radius
        self.stop_distance = stop_distance
        self.stop_accuracy = stop_accuracy
        self.trust = trust
        self._holders: dict[int, float] = {}
        self._reach = float("inf")
        self._shares: Shares = {}
        self._asks = False  # whether a round that asks for last local models comes first
        self._centre: Arrays | None = None
        self._start: Arrays = {}

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Find the holders and their share in the last average; form the reference of several."""
        clients = self._roster.nodes if request.leavers else self.remaining
        last = history.last_round
        weights = history.weights(last) if last else {}
        averaged = bool(last) and self.federation.edited != self.federation.completed
        if averaged and weights and request.leavers >= weights.keys():
            raise FederationError(
                "GradientAscent cannot take the only participants of the last round out of its "
                "average; use retrain, or learn one more round with other clients"
            )
        self._holders = {
            client: weights.get(client, 0.0) if averaged and request.leavers else 0.0
            for client in request.owners(clients)
        }
        self._reach = reach(self.trust, self.federation, arrays)
        self._centre, self._asks, self._start = None, False, arrays
        there = [client for client, share in self._holders.items() if share > 0]
        if request.leavers and not there:
            log.warning("no leaver took part in the last round: the ascent starts from its average")
        # One leaver takes its own share out; of several none could, each knows its own model alone.
        if len(there) > 1 or (there and heads.tasks_of(arrays)):
            parts = {part_of(name) for name in arrays}
            self._shares = {part: history.weights(last, part=part) for part in parts}
            self._asks = True
        return arrays, self.ascent_rounds + self._asks

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask several leavers for their last models; then the holders to ascend."""
        if self._asks and server_round == 1:
            ask = Instruction(
                "last_local", {"last_round": self.federation.completed}, answers="free"
            )
            return {client: ask for client, share in self._holders.items() if share > 0}
        settings: dict[str, Scalar] = {
            "ascent_rate": self.ascent_rate,
            "ascent_epochs": self.ascent_epochs,
            "momentum": self.ascent_momentum,
            "weight_decay": 0.0,
            "batch_size": self.ascent_batch_size,
            "clip": self.clip,
            "radius": self.radius if self.projection else -1.0,
            "restart": self.restart,
            "stop_distance": self.stop_distance,
            "stop_accuracy": self.stop_accuracy,
            "last_round": self.federation.completed,
        }
        # What a later round starts from goes beside the model that the reference is made of.
        later = server_round > 1 + self._asks
        extras = {
            f"from/{name}": array for name, array in named.parameters(self._arrays).items() if later
        }
        if self._centre is not None:
            ascend = Instruction(
                "ascend",
                {**settings, "share": 0.0, "centred": True},
                arrays=self._centre,
                extras=extras,
            )
            return dict.fromkeys(self._holders, ascend)
        model = self._start if later else None
        return {
            client: Instruction("ascend", {**settings, "share": share}, arrays=model, extras=extras)
            for client, share in self._holders.items()
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Take the leavers out of the last average together; then average what they ascended to.

        Each ascended model is kept within the server's own reach.
        """
        if self._asks and server_round == 1:
            self._centre = self._without(arrays, replies)
            return arrays  # the round that asks changes nothing
        mean = mean_within(self._start, replies, self._reach)
        if server_round == self.ascent_rounds + self._asks:  # nothing of it stays in memory
            self._asks, self._centre, self._start = False, None, {}
        return {n: a if named.is_buffer(n, a) else mean[n] for n, a in arrays.items()}

    def _without(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        found = {}
        for reply in replies:
            if problem := named.mismatch(arrays, reply.arrays):
                log.warning("client %d was quarantined this round: %s", reply.client, problem)
            else:
                found[reply.client] = reply.arrays
        taken = {client for client, share in self._holders.items() if share > 0}
        if missing := sorted(taken - found.keys()):
            raise FederationError(
                f"GradientAscent needs the last local model of every leaver, to take all of them "
                f"out of the average together; that of clients {missing} is not there; ask again "
                "when they are, or use retrain"
            )
        return reference(arrays, found, self._shares)

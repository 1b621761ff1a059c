"""FedEraser: rebuild the model from stored updates, calibrated by short fresh training.

References
----------
Liu, Ma, Yang, Wang, Liu, "FedEraser: Enabling Efficient Client-Level Data Removal from Federated
Learning Models", IWQoS 2021 (arXiv 2012.13891).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np

from strategies.base import UnlearningStrategy, in_range, one_of
from strategies.shares import Span
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.protocol import Instruction, Reply, Scalar
from unlearning.records.history import History
from unlearning.request import Request, Scope
from unlearning.weighing import Examples, Mean
from unlearning.weighing import mean as weighted_mean

__all__ = ["FedEraser", "calibrate"]

_TINY = 1e-12  # below this length an update has no direction


def calibrate(old: Arrays, new: Arrays, *, per_layer: bool = True) -> Arrays:
    """Return the length of ``old`` along the direction of ``new``.

    Parameters
    ----------
    old, new : Arrays
        Updates with the same names and shapes; any float dtype.
    per_layer : bool
        Array by array; otherwise over all parameters as one vector.

    Returns
    -------
    Arrays
        Names, shapes and dtypes of ``new``; L2 norms as in ``old``.

    Raises
    ------
    ValueError
        If the names differ.

    Notes
    -----
    Where ``new`` is shorter than 1e-12 it has no direction and the result is zero. Buffers are
    taken from ``new`` as they are.
    """
    if old.keys() != new.keys():
        raise ValueError(f"names differ: {sorted(old.keys() ^ new.keys())[0]!r} is on one side")
    whole = 1.0 if per_layer else _ratio(named.norm(old), named.norm(new))
    out: Arrays = {}
    for name, array in new.items():
        if named.is_buffer(name, array):
            out[name] = array
            continue
        factor = _ratio(_length(old[name]), _length(array)) if per_layer else whole
        out[name] = np.asarray(array * array.dtype.type(factor))
    return out


class FedEraser(UnlearningStrategy):
    """Calibrate the stored updates of the remaining clients, round by round.

    Of the recorded rounds t_1, t_1 + interval, ... the first clean one is reused as it is; in each
    later one the remaining clients train briefly on the model being rebuilt, and their stored
    updates keep their length but take the fresh direction.

    Parameters
    ----------
    interval : int, default 3
        Distance between replayed rounds (Delta t). The paper has 2; with one local epoch, of which
        calibration cannot be less, that costs more than half of retraining: our choice.
    ratio : float, default 0.5
        Share of the local epochs spent on calibration (r), rounded up; (0, 1].
    calibration_scope : str, default "per_client_layer"
        ``per_client_layer``, ``per_client_model`` (the paper's formula), or ``mean_layer`` (the
        released code: average first, then calibrate each array).
    interval_scale : float, default 0
        Factor on every calibrated step; 0: ``interval``, which makes up for the rounds left out
        (our choice). The paper uses 1, so the rebuilt trajectory is about 1 / interval as long.

    Notes
    -----
    Clients that took part in a round but do not answer now are left out and weights renormalised.
    A round in which only the forgotten took part is skipped. With ``mean_layer`` the factors are
    known only when all have answered, so the rewritten history holds updates of fresh length and a
    later request is served with shorter steps. For sample and class requests (an
    extension) the owners stay and calibrate without the data; the stored lengths still carry the
    data's influence, and a class has touched every length.

    Where it fails: on CIFAR-10, trained with momentum 0.9, steps three times as long, which make up
    for the rounds left out, are too long with four local epochs: the model ends naming one class.
    """

    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    needs = frozenset({"globals", "updates"})
    reuses = True
    tunable: ClassVar[Mapping[str, Span]] = {
        "interval": Span(1, 5, whole=True),
    }

    def __init__(
        self,
        *,
        interval: int = 3,
        ratio: float = 0.5,
        calibration_scope: str = "per_client_layer",
        interval_scale: float = 0.0,
    ) -> None:
        super().__init__()
        in_range("interval", interval, 1)
        in_range("ratio", ratio, 1e-6, 1)
        in_range("interval_scale", interval_scale, 0)
        one_of(
            "calibration_scope",
            calibration_scope,
            ("per_client_layer", "per_client_model", "mean_layer"),
        )
        self.interval = interval
        self.ratio = ratio
        self.calibration_scope = calibration_scope
        self.interval_scale = interval_scale
        self._plan: list[int] = []
        self._tainted: frozenset[int] = frozenset()
        self._history: History | None = None
        self._clean: History | None = None

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Choose the rounds to replay, from the last clean one on."""
        stored = [t for t in history.stored_rounds if (t - 1) % self.interval == 0]
        first = history.first_round(request)
        clean = [t for t in stored if first is None or t <= first]
        if not clean:
            raise HistoryError(
                f"FedEraser with interval {self.interval} finds no recorded round before round "
                f"{first}; recorded are {list(history.stored_rounds)[:5]} ..., so choose an "
                f"interval that divides history.interval = {history.interval} or record more often"
            )
        self._plan = [t for t in stored if t >= clean[-1]]
        self._history = history
        self._tainted = frozenset(request.owners(history.participants(clean[-1])))
        self._clean = self.rewrite(history, before=clean[-1])
        return history.arrays(clean[-1]), len(self._plan)

    def instruct(self, server_round: int) -> Mapping[int, Instruction]:
        """Ask the remaining clients of the stored round for a short training."""
        t = self._plan[server_round - 1]
        return {
            client: Instruction(settings=self._short(), seed_round=t)
            for client in self._present(t)
            if server_round > 1 or client in self._tainted
        }

    def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        """Add the weighted mean of the calibrated updates, and record it as the clean round."""
        t = self._plan[server_round - 1]
        with self._past.one_by_one(), self._rewriting.record(t, arrays) as entry:
            if not self._present(t):
                return arrays
            total, factor = Mean(), self._scale
            for client, examples, step in self._steps(server_round, t, replies):
                scaled = step if factor == 1 else named.scale(step, factor)
                entry.add(client, examples, scaled)
                total.add(examples, scaled)
                del step, scaled  # large, and they would lie there while the next one is made
            if not entry.clients:  # whoever took part has no data left
                return arrays
            mean = total.result()
            if self.calibration_scope == "mean_layer":
                mean = self._calibrated_mean(t, entry.clients, mean)
        return named.apply_update(arrays, mean)

    def _steps(
        self, server_round: int, t: int, replies: Iterable[Reply]
    ) -> Iterator[tuple[int, Examples, Arrays]]:
        """Yield (client, weight by part, step) of a replayed round, ordered by client."""
        recorded = self._past.examples(t)
        reused = [c for c in self._present(t) if server_round == 1 and c not in self._tainted]
        fresh = iter(replies)
        reply = next(fresh, None)
        for client in self._present(t):
            if client in reused:
                yield client, recorded[client], self._past.update(t, client)
            elif reply is not None and reply.client == client and reply.update is not None:
                yield client, reply.examples, self._calibrated(t, reply)
                reply = next(fresh, None)

    def _calibrated(self, t: int, reply: Reply) -> Arrays:
        if reply.update is None or self.calibration_scope == "mean_layer":
            return reply.update or {}
        per_layer = self.calibration_scope == "per_client_layer"
        return calibrate(self._past.update(t, reply.client), reply.update, per_layer=per_layer)

    def _calibrated_mean(self, t: int, clients: Iterable[int], mean: Arrays) -> Arrays:
        recorded = self._past.examples(t)
        old = weighted_mean((recorded[c], self._past.update(t, c)) for c in clients)
        return named.scale(calibrate(old, mean), self._scale)

    def _present(self, t: int) -> list[int]:
        """Return the remaining clients that took part in a stored round."""
        return [client for client in self._past.participants(t) if client in self.remaining]

    def _short(self) -> dict[str, Scalar]:
        """Return the training settings of a calibration: a share of the usual work, rounded up."""
        usual = self.federation.train
        short: dict[str, Scalar] = {
            "local_epochs": math.ceil(self.ratio * float(usual.get("local_epochs", 1)))
        }
        if steps := float(usual.get("max_steps", 0)):
            short["max_steps"] = math.ceil(self.ratio * steps)
        return short

    @property
    def _scale(self) -> float:
        return self.interval_scale or float(self.interval)

    @property
    def _past(self) -> History:
        if self._history is None:
            raise HistoryError("FedEraser was asked to work before it was prepared")
        return self._history

    @property
    def _rewriting(self) -> History:
        if self._clean is None:
            raise HistoryError("FedEraser was asked to work before it was prepared")
        return self._clean


def _length(array: named.Array) -> float:
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _ratio(old: float, new: float) -> float:
    return old / new if new >= _TINY else 0.0

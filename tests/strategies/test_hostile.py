"""Malformed replies, whatever the strategy and the phase: no model rests on one, no run ends.

The culprit is a client that stays. What becomes of the federation must be, bit for bit, what
becomes of it where the same client answers with an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Error, Message

from strategies import registry
from strategies.base import UnlearningStrategy
from tests.support.everyone import Learned, everyone, founded, learned_once, made
from tests.support.toy import ToyFederation, ToyGrid
from unlearning import arrays as named
from unlearning.protocol import Wire
from unlearning.request import Request, Scope

CULPRIT, LEAVER = 2, 1
OVERSIZE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 99999)}\n"

Tamper = Callable[[Message], Message | None]


def changed(make: Callable[[np.ndarray], np.ndarray | Array]) -> Tamper:
    """Change the first array that is not empty."""

    def tamper(message: Message) -> None:
        record = message.content.array_records[Wire.ARRAYS]
        name = next((n for n in record if record[n].numpy().size), next(iter(record)))
        made = make(record[name].numpy())
        record[name] = made if isinstance(made, Array) else Array(made)

    return tamper


def counted(value: object) -> Tamper:
    def tamper(message: Message) -> None:
        message.content.metric_records[Wire.METRICS][Wire.NUM_EXAMPLES] = value  # type: ignore[assignment]

    return tamper


def other_names(message: Message) -> None:
    record = message.content.array_records[Wire.ARRAYS]
    name = next(iter(record))
    record[f"{name}s"] = record.pop(name)


def fewer(message: Message) -> None:
    record = message.content.array_records[Wire.ARRAYS]
    del record[next(iter(record))]


def raw(data: bytes) -> Array:
    return Array("float32", (2, 2), "numpy.ndarray", data)


def huge(kind: np.dtype) -> float:
    return 1e30 if kind.kind == "f" else int(np.iinfo(kind).max // 2)


KINDS: dict[str, Tamper] = {
    "nan": changed(lambda a: np.full(a.shape, np.nan, np.float32)),
    "infinite": changed(lambda a: np.full(a.shape, -np.inf, np.float32)),
    "huge": changed(lambda a: np.full_like(a, huge(a.dtype))),
    "shape": changed(lambda a: a[None]),
    "dtype": changed(lambda a: a.astype(np.float16 if a.dtype.kind == "f" else np.float64)),
    "names": other_names,
    "missing": fewer,
    "weight-nan": counted(float("nan")),
    "weight-negative": counted(-1),
    "weight-1e12": counted(10**12),
    "truncated": changed(lambda a: raw(Array(a).data[:-3])),
    "oversize": changed(
        lambda a: raw(b"\x93NUMPY\x01\x00" + len(OVERSIZE).to_bytes(2, "little") + OVERSIZE)
    ),
}


class Tampering(ToyGrid):
    """Changes what the culprit answers to training messages; None: an error in its place."""

    tamper: Tamper | None = None

    def _answer(self, message: Message) -> Message:
        answer = super()._answer(message)
        node = self.contexts[message.metadata.dst_node_id].node_config
        if message.metadata.message_type != "train" or node["partition-id"] != CULPRIT:
            return answer
        if self.tamper is None:
            return Message(Error(2, "ValueError: out of order"), reply_to=message)
        if not answer.has_error():
            type(self).tamper(answer)  # type: ignore[misc]
        return answer


def grid_of(toy: ToyFederation, tamper: Tamper | None) -> ToyGrid:
    kind = type("One", (Tampering,), {"tamper": None if tamper is None else staticmethod(tamper)})
    return kind(toy.app, len(toy.sizes))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Learned]:
    return learned_once(tmp_path_factory.mktemp("learned"), 1)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize(("cls", "model"), list(everyone()))
def test_no_malformed_reply_reaches_a_model_or_ends_a_run(
    cls: type[UnlearningStrategy],
    model: str | None,
    learned: Callable[..., Learned],
    tmp_path: Path,
) -> None:
    toy, arrays = learned(cls, model)
    scope = Scope.CLIENT if Scope.CLIENT in cls.scopes else min(cls.scopes)
    facts = {
        Scope.CLIENT: {"clients": (LEAVER,)},
        Scope.CLASS: {"classes": (0,)},
        Scope.SAMPLE: {"samples": {LEAVER: (0, 1)}},
        Scope.TASK: {"tasks": ("reading",)},
        Scope.FEATURE: {"clients": (LEAVER,), "features": (0,)},
    }
    outcomes: dict[str, object] = {}
    for kind, tamper in {"error": None, "again": None, **KINDS}.items():
        twin = toy.branch(tmp_path / kind, grid=grid_of(toy, tamper))
        asked = Request(scope, **facts[scope], id="r")  # type: ignore[arg-type]
        twin.federation.ledger.receive(asked)
        after = twin.run(made(cls), arrays, rounds=1)  # unlearning, then a round of recovery
        assert named.is_finite(after), kind
        outcomes[kind] = twin.federation.ledger.state("r"), named.digest(after)
    if outcomes.get("again") != outcomes.get("error"):  # secret noise: no two runs are equal
        outcomes = {kind: found[0] for kind, found in outcomes.items()}  # type: ignore[index]
    assert {kind for kind, found in outcomes.items() if found != outcomes.get("error")} == set()


MODELS = [
    None,
    *sorted({m for c in registry.strategies().values() for m in c.models or ()} - {"*"}),
]


@pytest.mark.parametrize("model", MODELS)
def test_nor_while_learning(model: str | None, tmp_path: Path) -> None:
    """Every kind of model that is learned, and every malformed answer."""
    toy = founded(tmp_path / "toy", UnlearningStrategy, model)
    digests = {}
    for kind, tamper in {"error": None, **KINDS}.items():
        twin = toy.branch(tmp_path / kind, grid=grid_of(toy, tamper))
        digests[kind] = named.digest(twin.run(UnlearningStrategy(), rounds=3))
    assert {kind for kind, found in digests.items() if found != digests["error"]} == set()


@pytest.mark.parametrize("alias", ["boosting-replay", "leaf-refresh"])
@pytest.mark.parametrize("options", [{}, {"tolerance": 0.5}])
def test_trees_grow_on_where_a_client_is_lost_once(
    alias: str, options: dict[str, float], tmp_path: Path
) -> None:
    """What they rest on is still known: the client that was lost can be forgotten afterwards."""
    if options and alias != "leaf-refresh":
        pytest.skip("it has no tolerance")
    cls = registry.strategies()[alias]
    toy = founded(tmp_path / "toy", cls, "boosting")
    arrays = toy.run(UnlearningStrategy(), rounds=6)
    twin = toy.branch(tmp_path / "twin", grid=grid_of(toy, None))
    twin.federation.recovery_rounds = 0
    for client in (LEAVER, CULPRIT):
        twin.federation.ledger.receive(Request(Scope.CLIENT, clients=(client,), id=str(client)))
        after = twin.run(cls(**options), arrays, rounds=0)
        assert twin.federation.ledger.state(str(client)) == "fulfilled"
        assert client not in after["clients"]
        anew = alias == "boosting-replay" or options  # trees that are not complete grow anew
        if not anew:
            assert (CULPRIT in after["clients"]) == (client != CULPRIT)
        # Trees that grew anew without the client do not rest on it: nothing is left to forget.
        idle = client == CULPRIT and bool(anew)
        assert (named.digest(after) == named.digest(arrays)) == idle
        arrays = after

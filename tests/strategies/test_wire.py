"""What comes over the wire, and what of it may touch a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.typeddict import TypedDict

from clients.app import trained
from strategies import wire
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.wire import (
    BadReplyError,
    length,
    num_bytes,
    read_reply,
    to_arrays,
    to_content,
    to_record,
)
from tests.support.toy import ToyFederation, ToyGrid, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Wire, filled

SENT: Arrays = {
    "weight": np.array([[1, -2], [3, 4]], np.float32),
    "running_mean": np.array([0.5], np.float32),
    "steps": np.array(3),
}
NPY, ZEROS = "numpy.ndarray", b"\0" * 16


@pytest.fixture(scope="module", autouse=True)
def _identity() -> None:
    """Messages can be made in a process that has a grid."""
    ToyGrid(None, 1)  # type: ignore[arg-type]


def reply(arrays: ArrayRecord | None = None, **metrics: object) -> Message:
    """Return a client's answer: a model that moved by 1, and 5 examples, unless told otherwise."""
    moved = {**SENT, "weight": SENT["weight"] + 1}
    content = RecordDict()
    content[Wire.ARRAYS] = to_record(moved) if arrays is None else arrays
    content[Wire.METRICS] = MetricRecord({Wire.NUM_EXAMPLES: 5, **metrics})  # type: ignore[dict-item]
    return Message(content, 1, "train")


def read(message: Message, *, model_like: bool = True, declared: int | None = 10, **how: bool):  # type: ignore[no-untyped-def]
    return read_reply(message, 7, SENT, model_like=model_like, declared=declared, **how)


@pytest.fixture(params=[False, True], ids=["at-once", "later"])
def later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether updates, all of them large, are left to be worked out by who needs them."""
    monkeypatch.setattr(wire, "LARGE", 1)
    return bool(request.param)


# Records and arrays -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.array(3),
        np.zeros((0, 2), np.float16),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">f4"),
        np.array([True, False]),
        np.arange(5, dtype=np.uint8),
    ],
)
def test_arrays_come_back_as_they_were(array: np.ndarray) -> None:
    back = to_arrays(to_record({"b": array, "a": array}))
    assert list(back) == ["b", "a"]
    for one in back.values():
        assert one.dtype == array.dtype
        assert one.flags.writeable
        assert one.flags.owndata or one.base.flags.owndata
        np.testing.assert_array_equal(one, array)


def test_num_bytes_is_what_is_sent() -> None:
    record = to_record(SENT)
    assert num_bytes(record) == sum(len(array.data) for array in record.values())
    assert num_bytes(record) > named.nbytes(SENT)


def test_content_shares_the_model_and_owns_its_config() -> None:
    model = to_record(SENT)
    one, two = (to_content(model, {}, {"round": i, "list": [i], "flag": True}) for i in (1, 2))
    assert one.array_records[Wire.ARRAYS] is two.array_records[Wire.ARRAYS] is model
    assert dict(one.config_records[Wire.CONFIG]) == {"round": 1, "list": "[1]", "flag": True}
    assert json.loads(str(two.config_records[Wire.CONFIG]["list"])) == [2]


def test_extras_travel_beside_the_model_and_leave_it_alone() -> None:
    model = to_record(SENT)
    content = to_content(model, {"fisher": np.ones(2)}, {})
    assert list(content.array_records[Wire.ARRAYS]) == [*SENT, f"{Wire.EXTRA}fisher"]
    assert list(model) == list(SENT)


# Replies ------------------------------------------------------------------------------------


def test_a_good_reply_becomes_an_update() -> None:
    found = read(reply(loss=0.5))
    assert (found.client, found.num_examples) == (7, 5)
    assert dict(found.metrics) == {"loss": 0.5}
    assert (found.update["weight"] == 1).all()
    assert found.update["steps"] == 3
    assert list(found.arrays) == list(SENT)


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_a_large_update_is_measured_and_not_made(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LARGE", 1)
    monkeypatch.setattr(wire, "_PIECE", pieces)
    draw = np.random.default_rng(0).normal
    weight, mean = draw(size=(2, 2)).astype(np.float32), SENT["running_mean"] - 3
    model = {**SENT, "weight": weight, "running_mean": mean}
    whole, found = (read(reply(to_record(model)), later=later) for later in (False, True))
    assert found.update == {}
    assert found.moved == pytest.approx(length(whole.update), rel=1e-6)
    assert whole.moved is None
    assert named.digest(found.arrays) == named.digest(whole.arrays)
    assert not any(array.flags.owndata for array in found.arrays.values())


def test_a_good_reply_is_not_searched_for_infinite_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it moved the model tells as much; each look is a pass over a large model."""

    def looked(array: object) -> object:
        raise AssertionError("one more pass")

    monkeypatch.setattr(np, "isfinite", looked)
    monkeypatch.setattr(np, "isinf", looked)
    assert read_reply(reply(), 7, SENT, model_like=True, declared=10, farthest=9.0).update


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["weight", "running_mean"])
def test_every_infinite_value_is_found(name: str, value: float, later: bool) -> None:
    model = {key: array.copy() for key, array in SENT.items()}
    model[name].flat[-1] = value
    with pytest.raises(BadReplyError, match=f"{name}.*not finite"):
        read(reply(to_record(model)), later=later)


def test_a_reply_takes_the_order_of_the_model() -> None:
    turned = dict(reversed(to_record(SENT).items()))
    assert list(read(reply(ArrayRecord(turned))).arrays) == list(SENT)


def test_a_free_reply_has_names_of_its_own_and_no_update() -> None:
    found = read(reply(to_record({"histogram": np.arange(3)})), model_like=False)
    assert found.update is None
    assert found.arrays["histogram"].tolist() == [0, 1, 2]


def with_array(name: str, array: np.ndarray | Array) -> Message:
    entry = array if isinstance(array, Array) else Array(array)
    return reply(ArrayRecord({**to_record(SENT), name: entry}))


def weight(value: float) -> np.ndarray:
    array = SENT["weight"].copy()
    array[1, 0] = value
    return array


def raw(data: bytes, stype: str = NPY) -> Array:
    return Array("float32", (2, 2), stype, data)


def saved(array: np.ndarray) -> bytes:
    return Array(array).data


def header(shape: str, descr: str = "<f4", data: bytes = b"") -> bytes:
    """Return the bytes of an array file whose header promises what it likes."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def zipped() -> bytes:
    stream = BytesIO()
    np.savez_compressed(stream, weight=np.zeros((2, 2), np.float32))
    return stream.getvalue()


def without(*names: str) -> Message:
    return reply(ArrayRecord({n: a for n, a in to_record(SENT).items() if n not in names}))


def bare(record: str) -> Message:
    message = reply()
    del message.content[record]
    return message


MALFORMED: dict[str, Callable[[], Message]] = {
    "nan": lambda: with_array("weight", weight(np.nan)),
    "infinite": lambda: with_array("weight", weight(np.inf)),
    "minus-infinite": lambda: with_array("weight", weight(-np.inf)),
    "nan-in-a-buffer": lambda: with_array("running_mean", np.array([np.nan], np.float32)),
    "huge": lambda: with_array("weight", weight(1e30)),
    "largest-float": lambda: with_array("weight", weight(np.finfo(np.float32).max)),
    "huge-in-a-buffer": lambda: with_array("running_mean", np.array([1e30], np.float32)),
    "wrong-shape": lambda: with_array("weight", SENT["weight"].ravel()),
    "broadcastable-shape": lambda: with_array("weight", SENT["weight"][None]),
    "wrong-dtype": lambda: with_array("weight", SENT["weight"].astype(np.float64)),
    "wrong-byte-order": lambda: with_array("weight", SENT["weight"].astype(">f4")),
    "text": lambda: with_array("weight", np.array([["a", "b"], ["c", "d"]])),
    "complex": lambda: with_array("weight", SENT["weight"] + 1j),
    "further-array": lambda: with_array("more", np.zeros(1, np.float32)),
    "missing-array": lambda: without("steps"),
    "no-array": lambda: without(*SENT),
    "no-array-record": lambda: bare(Wire.ARRAYS),
    "no-metric-record": lambda: bare(Wire.METRICS),
    "count-nan": lambda: reply(**{Wire.NUM_EXAMPLES: float("nan")}),
    "count-negative": lambda: reply(**{Wire.NUM_EXAMPLES: -5}),
    "count-1e12": lambda: reply(**{Wire.NUM_EXAMPLES: 10**12}),
    "count-more-than-declared": lambda: reply(**{Wire.NUM_EXAMPLES: 11}),
    "count-a-float": lambda: reply(**{Wire.NUM_EXAMPLES: 5.0}),
    "count-a-list": lambda: reply(**{Wire.NUM_EXAMPLES: [5]}),
    "metric-nan": lambda: reply(loss=float("nan")),
    "metric-infinite": lambda: reply(**{Wire.EXAMPLES_PROCESSED: float("inf")}),
    "work-negative": lambda: reply(**{Wire.EXAMPLES_PROCESSED: -1}),
    "time-negative": lambda: reply(**{Wire.CLIENT_SECONDS: -1.0}),
    "no-bytes": lambda: with_array("weight", raw(b"")),
    "truncated-header": lambda: with_array("weight", raw(saved(SENT["weight"])[:20])),
    "truncated-values": lambda: with_array("weight", raw(saved(SENT["weight"])[:-1])),
    "further-bytes": lambda: with_array("weight", raw(saved(SENT["weight"]) + b"\0")),
    "header-of-a-terabyte": lambda: with_array("weight", raw(header("(500000, 500000)"))),
    "header-too-long": lambda: with_array("weight", raw(header(f"(2, 2), {' ' * 20_000}"))),
    "header-of-negative-size": lambda: with_array("weight", raw(header("(-2, -2)", "<f4", ZEROS))),
    "header-no-dict": lambda: with_array("weight", raw(b"\x93NUMPY\x01\x00\x03\x00{[\n")),
    "header-of-objects": lambda: with_array("weight", raw(header("(2, 2)", "|O"))),
    "unknown-version": lambda: with_array("weight", raw(b"\x93NUMPY\x09\x00" + b"\0" * 30)),
    "zip": lambda: with_array("weight", raw(zipped())),
    "other-serialisation": lambda: with_array("weight", raw(saved(SENT["weight"]), "pickle")),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_replies_are_told_apart(kind: str, later: bool) -> None:
    with pytest.raises(BadReplyError) as caught:
        read(MALFORMED[kind](), later=later)
    assert "\n" not in str(caught.value)


FREE = ["nan", "text", "complex", "no-bytes", "header-of-a-terabyte", "zip", "count-nan"]


@pytest.mark.parametrize("kind", FREE)
def test_free_replies_are_checked_as_well(kind: str) -> None:
    with pytest.raises(BadReplyError):
        read(MALFORMED[kind](), model_like=False)


def test_a_client_without_data_is_no_bad_client() -> None:
    assert read(reply(**{Wire.NUM_EXAMPLES: 0})).num_examples == 0


def test_whoever_declared_nothing_may_have_any_number() -> None:
    assert read(reply(), declared=None).num_examples == 5


def test_training_from_a_model_of_zeros_is_not_far() -> None:
    """The limit is measured against the model's size too, or nothing could leave zero."""
    sent = {"weight": np.zeros((2, 2), np.float32)}
    found = read_reply(
        reply(to_record({"weight": np.full((2, 2), 50, np.float32)})),
        7,
        sent,
        model_like=True,
        declared=10,
    )
    assert found.update is not None


# The same in a running federation -----------------------------------------------------------


class Tampering(ToyGrid):
    """Changes what one client answers to training messages."""

    culprit = 2
    tamper: Callable[[Message], None] | None = None

    def _answer(self, message: Message) -> Message:
        answer = super()._answer(message)
        node = self.contexts[message.metadata.dst_node_id].node_config
        if message.metadata.message_type == "train" and node["partition-id"] == self.culprit:
            assert self.tamper is not None
            self.tamper(answer)
        return answer


def change_array(make: Callable[[np.ndarray], np.ndarray | Array]) -> Callable[[Message], None]:
    def tamper(message: Message) -> None:
        record = message.content.array_records[Wire.ARRAYS]
        made = make(record["layer.weight"].numpy())
        record["layer.weight"] = made if isinstance(made, Array) else Array(made)

    return tamper


def change_count(value: object) -> Callable[[Message], None]:
    def tamper(message: Message) -> None:
        message.content.metric_records[Wire.METRICS][Wire.NUM_EXAMPLES] = value  # type: ignore[assignment]

    return tamper


def rename(message: Message) -> None:
    record = message.content.array_records[Wire.ARRAYS]
    record["layer.wait"] = record.pop("layer.weight")


def drop(message: Message) -> None:
    del message.content.array_records[Wire.ARRAYS]["layer.bias"]


def answer_for_another_round(message: Message) -> None:
    message.metadata.__dict__["_reply_to_message_id"] = "of-an-earlier-round"


def answer_for_another_client(message: Message) -> None:
    message.metadata.__dict__["_src_node_id"] -= 1


HOSTILE: dict[str, tuple[Callable[[Message], None], str]] = {
    "nan": (change_array(lambda a: a * np.float32("nan")), "not finite"),
    "infinite": (change_array(lambda a: a + np.float32("inf")), "not finite"),
    "huge-norm": (change_array(lambda a: np.full_like(a, 1e30)), "moved the model by"),
    "wrong-shape": (change_array(lambda a: a[:1]), "shape"),
    "wrong-dtype": (change_array(lambda a: a.astype(np.float64)), "dtype"),
    "wrong-names": (rename, "'layer.weight' is missing"),
    "missing-array": (drop, "'layer.bias' is missing"),
    "weight-nan": (change_count(float("nan")), "num-examples is nan"),
    "weight-negative": (change_count(-1), "num-examples is -1"),
    "weight-1e12": (change_count(10**12), "num-examples is 1000000000000"),
    "weight-zero": (change_count(0), "holds no data"),
    "other-round": (answer_for_another_round, "no reply within"),
    "other-client": (answer_for_another_client, "another node"),
    "truncated": (change_array(lambda a: raw(saved(a)[:-3])), "cannot be read"),
    "oversize-header": (change_array(lambda a: raw(header("(99999, 99999)"))), "cannot be read"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_reply_is_quarantined_and_named_and_the_run_goes_on(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Round by round, the model is the one the others would have made alone."""
    tamper, words = HOSTILE[kind]
    toy, _ = tampered(tmp_path, tamper)
    lost: list[dict[int, str]] = []
    toy.federation.watch = lambda *_: lost.append(dict(toy.federation.roster.lost))
    arrays = toy.learn(2)
    assert [list(reasons) for reasons in lost] == [[Tampering.culprit]] * 2
    assert words in lost[-1][Tampering.culprit]
    assert list(toy.federation.history.participants(2)) == [0, 1, 3]
    assert named.digest(arrays) == alone(tmp_path / "alone")
    assert words == "holds no data" or f"client 2 is left out: {lost[0][2]}" in caplog.text


def alone(folder: Path) -> str:
    """Return the digest of the model that the honest clients make without the hostile one."""
    toy = ToyFederation(folder)
    usual = toy.federation.sample
    honest = toy.federation.sample = lambda *address: tuple(  # type: ignore[method-assign]
        client for client in usual(*address) if client != Tampering.culprit
    )
    assert honest(1, (0, 1, 2, 3)) == (0, 1, 3)
    return named.digest(toy.learn(2))


def test_a_reply_that_comes_twice_counts_once(tmp_path: Path) -> None:
    class Stutter(ToyGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            return [one for one in super().pull_messages(message_ids) for _ in range(2)]

    toy = ToyFederation(tmp_path)
    twice = toy.branch(tmp_path / "twice", grid=Stutter(toy.app, 4))
    assert named.digest(twice.learn(2)) == named.digest(toy.learn(2))


def test_quarantine_lasts_a_round(tmp_path: Path) -> None:
    toy, grid = tampered(tmp_path, HOSTILE["nan"][0])
    arrays = toy.learn(1)
    grid.tamper = lambda message: None
    toy.run(UnlearningStrategy(), arrays, rounds=1)
    assert list(toy.federation.history.participants(1)) == [0, 1, 3]
    assert list(toy.federation.history.participants(2)) == [0, 1, 2, 3]


def test_hostile_replies_of_too_many_end_the_run_in_words(tmp_path: Path) -> None:
    toy, _ = tampered(tmp_path, HOSTILE["nan"][0])
    toy.federation.min_replies = 0.8
    with pytest.raises(FederationError, match=r"3 of 4 .*client 2: quarantined: .* not finite"):
        toy.learn(1)
    assert toy.federation.history.rounds == ()
    assert toy.federation.completed == 0


def test_an_unlearning_round_is_guarded_as_well(tmp_path: Path) -> None:
    toy, grid = tampered(tmp_path, lambda message: None)
    arrays = toy.learn(2)
    grid.tamper = HOSTILE["huge-norm"][0]
    after = toy.unlearn(Retrain(), request("client", 1), arrays)
    assert "moved the model by" in toy.federation.roster.lost[Tampering.culprit]
    assert named.norm(after) < 100


def tampered(folder: Path, tamper: Callable[[Message], None]) -> tuple[ToyFederation, Tampering]:
    """Return a federation of four, one of which lies in every round."""
    toy = ToyFederation(folder)
    grid = Tampering(toy.app, 4)
    grid.tamper = tamper
    toy = toy.branch(folder / "branch", grid=grid)
    toy.federation.timeout_s = 0.05
    return toy, grid


def test_a_malformed_receipt_acknowledges_nothing(tmp_path: Path) -> None:
    class Liar(ToyGrid):
        """Client 0 acknowledges for client 1, client 1 says nothing of use."""

        def _answer(self, message: Message) -> Message:
            answer = super()._answer(message)
            if message.metadata.message_type == "query.delete":
                client = self.contexts[message.metadata.dst_node_id].node_config["partition-id"]
                answer.content[Wire.CONFIG] = ConfigRecord({} if client else {Wire.CLIENT: 1})
            return answer

    toy = ToyFederation(tmp_path)
    toy = toy.branch(tmp_path / "branch", grid=Liar(toy.app, 4))
    strategy = UnlearningStrategy()
    strategy.join(toy.federation)
    assert strategy.dismiss(request("class")) == {
        "acknowledged": [],
        "unacknowledged": [0, 1, 2, 3],
        "examples": 0,
    }


class _Elsewhere(dict[str, object]):
    """A record that keeps its entries in another place than Flower's do today."""


def test_a_record_that_is_filled_at_once_is_as_flower_makes_it() -> None:
    config: dict[str, object] = {"a": 1, "b": "x", "c": True, "e": 0.5}
    array = to_record({"w": np.arange(3.0)})["w"]
    one = MetricRecord({"loss": 0.5})
    for made, wanted, entries in (
        (ConfigRecord(), ConfigRecord(config), config),  # type: ignore[arg-type]
        (MetricRecord(), one, {"loss": 0.5}),
        (ArrayRecord(), ArrayRecord({"w": array}), {"w": array}),
        (RecordDict(), RecordDict({"m": one}), {"m": one}),
        (_Elsewhere(), config, config),
    ):
        assert filled(made, entries) is made  # type: ignore[type-var]
        assert dict(made) == dict(wanted)  # type: ignore[call-overload]
        assert [*map(type, made.values())] == [*map(type, wanted.values())]
        if isinstance(made, (ConfigRecord, MetricRecord, ArrayRecord)):
            assert made.deflate() == wanted.deflate()  # type: ignore[union-attr]


def test_a_message_checks_no_entry_of_its_records_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's check of a dozen entries took longer than all else of a small message."""
    checked: list[object] = []
    real = TypedDict.__setitem__

    def counting(record: TypedDict[str, object], key: str, value: object) -> None:
        checked.append(key)
        real(record, key, value)

    monkeypatch.setattr(TypedDict, "__setitem__", counting)
    content = to_content(to_record({"w": np.zeros(2)}), {}, {"a": 1, "b": "x"})
    sent = Message(content, 1, "train")
    trained(sent, ([np.zeros(2)], 3, {Wire.NAMES: '["w"]', "loss": 0.5}), 0.1)
    assert not checked

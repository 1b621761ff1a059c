"""History: what is kept comes back bit for bit, what is purged is gone, a crash leaves old or new.

Every test of behaviour runs on disk and in memory; both go through the same code.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, HistoryError
from unlearning.records import blobs, store
from unlearning.records.history import COLUMNS, History
from unlearning.request import Request, Scope
from unlearning.weighing import Examples

ALL = tuple(sorted(COLUMNS))
CLIENT_1 = Request(Scope.CLIENT, clients=(1,), id="request-1")


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "history" if request.param == "disk" else None


def model(seed: int, shape: tuple[int, ...] = (3, 2)) -> Arrays:
    """Return parameters, a float buffer, an integer buffer without dimensions, in odd order."""
    rng = np.random.default_rng(seed)
    return {
        "z.weight": rng.normal(size=shape).astype(np.float32),
        "a.bias": rng.normal(size=2).astype(np.float64),
        "bn.running_var": rng.random(2).astype(np.float32) + 1,
        "bn.num_batches_tracked": np.array(seed, dtype=np.int64),
    }


def same(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    """Return whether names, their order, dtypes, shapes and bits agree."""
    return list(left) == list(right) and all(
        np.asarray(left[k]).dtype == np.asarray(right[k]).dtype
        and np.array_equal(np.asarray(left[k]), np.asarray(right[k]))
        for k in left
    )


# Client 1 is there from round 2 on; weights differ by client and round.
TOOK_PART = {1: (0, 2), 2: (0, 1, 2), 3: (0, 2), 4: (1, 2)}


def update_of(server_round: int, client: int) -> Arrays:
    return model(100 * server_round + client)


def fill(history: History, rounds: Mapping[int, tuple[int, ...]] = TOOK_PART) -> Arrays:
    """Record rounds of FedAvg over made-up updates; return the last model."""
    arrays = model(0)
    history.start(arrays)
    for server_round, clients in rounds.items():
        arrays = record(history, server_round, clients, arrays)
    return arrays


def record(history: History, server_round: int, clients: tuple[int, ...], arrays: Arrays) -> Arrays:
    with history.record(server_round, arrays) as entry:
        for client in clients:
            entry.add(client, 10 + client + server_round, update_of(server_round, client))
    return named.apply_update(
        arrays,
        named.weighted_mean((10 + k + server_round, update_of(server_round, k)) for k in clients),
    )


# --- what is kept comes back ---------------------------------------------------------------------


def test_everything_comes_back_bit_for_bit(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        last = fill(history)
        if root is not None:
            history.close()
            history = History.open(root)
        assert history.rounds == history.stored_rounds == history.stored_globals == (1, 2, 3, 4)
        assert history.participants(2) == {0: 12, 1: 13, 2: 14}
        assert same(history.initial, model(0))
        assert same(history.arrays(1), model(0))
        for server_round, clients in TOOK_PART.items():
            for client in clients:
                assert same(history.update(server_round, client), update_of(server_round, client))
        mean = named.weighted_mean((n, history.update(4, k)) for k, n in {1: 15, 2: 16}.items())
        assert same(named.apply_update(history.arrays(4), mean), last)
        assert history.verify() == []
        history.close()


def test_what_is_read_may_be_changed(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        fill(history)
        history.update(1, 0)["z.weight"] += 1
        history.arrays(1)["z.weight"][...] = 0
        assert same(history.update(1, 0), update_of(1, 0))
        assert same(history.arrays(1), model(0))


def test_updates_read_one_by_one_are_each_their_own(root: Path | None) -> None:
    """Large ones lie in the same memory one after the other, unless somebody keeps one."""
    wanted = [np.full(2**20, client, np.float32) for client in range(3)]
    with History(root, keep={"updates"}) as history:
        with history.record(1, {"w": wanted[0]}) as entry:
            for client, update in enumerate(wanted):
                entry.add(client, 1, {"w": update})
        with history.one_by_one():
            for client, update in enumerate(wanted):
                assert (history.update(1, client)["w"] == update).all()
            kept = [history.update(1, client)["w"] for client in range(3)]
        assert all((one == update).all() for one, update in zip(kept, wanted, strict=True))
        kept[0][:] = 7
        assert (history.update(1, 0)["w"] == wanted[0]).all()


def test_record_changes_no_input_and_needs_no_contiguous_arrays() -> None:
    update = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    before = named.copy(update)
    with History(keep=ALL) as history:
        with history.record(1, update) as entry:
            entry.add(0, 1, update)
        assert same(update, before)
        assert same(history.update(1, 0), before)
        assert same(history.arrays(1), before)


def test_numpy_integers_are_accepted_as_ids(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        with history.record(np.int64(1), model(0)) as entry:  # type: ignore[arg-type]
            entry.add(np.int64(3), np.int64(7), model(1))  # type: ignore[arg-type]
        assert history.participants(1) == {3: 7}
        assert same(history.update(np.int64(1), np.int64(3)), model(1))  # type: ignore[arg-type]


def test_only_what_is_asked_for_is_kept(root: Path | None) -> None:
    with History(root) as history:
        fill(history)
        assert history.rounds == (1, 2, 3, 4)
        assert history.stored_rounds == history.stored_globals == ()
        assert history.participants(4) == {1: 15, 2: 16}
        assert history.nbytes == len(blobs.encode(model(0)))
        for name, read in (
            ("globals", lambda: history.arrays(1)),
            ("updates", lambda: history.update(1, 0)),
            ("contributions", lambda: history.contribution(0)),
            ("sensitivities", lambda: history.sensitivities(1)),
        ):
            with pytest.raises(HistoryError, match=f"'{name}' among the strategy's `needs`"):
                read()


def test_initial_is_stored_once(root: Path | None) -> None:
    with History(root) as history:
        with pytest.raises(HistoryError, match="nothing was recorded yet"):
            _ = history.initial
        history.start(model(0))
        history.start(model(0))
        with pytest.raises(HistoryError, match="starts from another model"):
            history.start(model(1))
        assert same(history.initial, model(0))


def test_weights_are_those_of_the_round_and_sum_to_one(root: Path | None) -> None:
    with History(root) as history:
        fill(history)
        assert history.weights(2) == {0: 12 / 39, 1: 13 / 39, 2: 14 / 39}
        assert history.weights(2, without={1}) == {0: 12 / 26, 2: 14 / 26}
        assert history.weights(2, without={0, 1, 2}) == {}


@pytest.mark.parametrize("keep", [ALL, ("contributions",), ("contributions", "globals")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_contributions_sum_to_the_way_learned(
    root: Path | None, keep: tuple[str, ...], dtype: str
) -> None:
    """w0 + sum of weight times update = wT, whatever else is kept and however narrow."""
    with History(root, keep=keep, dtype=dtype) as history:
        fill(history)
        total = named.weighted_sum((1.0, history.contribution(client)) for client in range(3))
        expected = named.weighted_sum(
            (weight, update_of(t, client))
            for t in TOOK_PART
            for client, weight in history.weights(t).items()
        )
        for name in ("z.weight", "a.bias", "bn.running_var"):
            np.testing.assert_allclose(total[name], expected[name], rtol=1e-12, atol=1e-12)
            assert total[name].dtype == np.float64
        assert history.contribution(1)["bn.num_batches_tracked"] == 401
        with pytest.raises(HistoryError, match="client 9 took part in no recorded round"):
            history.contribution(9)


@given(data=st.data())
@settings(max_examples=30)
def test_sums_hold_for_any_participation(data: st.DataObject) -> None:
    """Oracle: initial + sum over rounds and clients of weight times update = final model."""
    value = st.floats(-100, 100, width=32)
    rounds = data.draw(
        st.lists(
            st.dictionaries(st.integers(0, 4), st.tuples(st.integers(1, 99), value), min_size=1),
            min_size=1,
            max_size=5,
        )
    )
    current: Arrays = {"w": np.array([1.0, -2.0])}
    with History(keep=ALL) as history:
        history.start(current)
        for server_round, replies in enumerate(rounds, start=1):
            terms = [(n, {"w": np.array([v, -v / 3])}) for n, v in replies.values()]
            with history.record(server_round, current) as entry:
                for client, (n, update) in zip(replies, terms, strict=True):
                    entry.add(client, n, update)
            current = named.apply_update(current, named.weighted_mean(terms))
        seen = {client for replies in rounds for client in replies}
        total = named.weighted_sum((1.0, history.contribution(client)) for client in seen)
        scale = 1 + max(abs(v) for replies in rounds for _, v in replies.values())
        found = history.initial["w"] + total["w"]
        np.testing.assert_allclose(found, current["w"], rtol=1e-9, atol=1e-9 * scale)


def test_sensitivity_tells_what_leaving_one_out_would_change(root: Path | None) -> None:
    """Over parameters, p / (1 - p) * distance = norm of (mean - mean without the client)."""
    with History(root, keep=("sensitivities",)) as history:
        fill(history)
        found = history.sensitivities(2)
        examples = history.participants(2)
        terms = {k: (n, named.parameters(update_of(2, k))) for k, n in examples.items()}
        mean = named.weighted_mean(terms.values())
        for client, (weight, distance) in found.items():
            rest = named.weighted_mean(term for k, term in terms.items() if k != client)
            moved = named.norm(named.subtract(mean, rest))
            assert weight == examples[client] / 39
            assert weight / (1 - weight) * distance == pytest.approx(moved, rel=1e-9)


def test_interval_thins_models_and_updates_only(root: Path | None) -> None:
    with History(root, keep=ALL, interval=2) as history:
        fill(history)
        assert history.rounds == (1, 2, 3, 4)
        assert history.stored_rounds == history.stored_globals == (1, 3)
        assert history.participants(2) == {0: 12, 1: 13, 2: 14}
        assert set(history.sensitivities(4)) == {1, 2}
        assert same(history.update(3, 2), update_of(3, 2))
        with pytest.raises(HistoryError, match=r"history.interval = 2\).*earlier .* is 3"):
            history.update(4, 1)
        with pytest.raises(HistoryError, match="without globals"):
            history.arrays(2)
        expected = (12 + 1) / 39 * update_of(2, 1)["a.bias"] + 15 / 31 * update_of(4, 1)["a.bias"]
        np.testing.assert_allclose(history.contribution(1)["a.bias"], expected, rtol=1e-12)
        assert history.verify() == []


def test_float16_halves_parameters_and_nothing_else(root: Path | None) -> None:
    update = {
        "w": np.array([0.1, -3.0], dtype=np.float32),
        "large": np.array([1e6, 0.1], dtype=np.float32),
        "bn.running_mean": np.array([0.1], dtype=np.float32),
        "count": np.array(70000, dtype=np.int64),
    }
    with History(root, keep=("updates", "globals"), dtype="float16") as history:
        with history.record(1, update) as entry:
            entry.add(0, 1, update)
        read = history.update(1, 0)
        assert {k: v.dtype for k, v in read.items()} == {k: v.dtype for k, v in update.items()}
        assert np.array_equal(read["w"], update["w"].astype(np.float16).astype(np.float32))
        assert read["w"][0] != update["w"][0]
        for name in ("large", "bn.running_mean", "count"):
            assert np.array_equal(read[name], update[name])
        assert same(history.arrays(1), update)
        norms = history.norms(1, 0)
        assert set(norms) == {"w", "large"}
        assert norms["w"] == named.norm({"w": update["w"]})


def test_float16_needs_half_the_space() -> None:
    sizes = []
    for dtype in ("float32", "float16"):
        with History(keep=("updates",), dtype=dtype) as history:
            with history.record(1, {}) as entry:
                entry.add(0, 1, {"w": np.ones(10_000, dtype=np.float32)})
            sizes.append(history.nbytes)
    assert 1.9 < sizes[0] / sizes[1] < 2.0


def test_first_round(root: Path | None) -> None:
    with History(root) as history:
        assert history.first_round(CLIENT_1) is None
        fill(history)
        assert history.first_round(CLIENT_1) == 2
        assert history.first_round(Request(Scope.CLIENT, clients=(7,))) is None
        assert history.first_round(Request(Scope.CLIENT, clients=(1, 2))) == 1
        assert history.first_round(Request(Scope.SAMPLE, samples={1: (4,)})) == 2
        assert history.first_round(Request(Scope.CLASS, classes=(3,))) == 1
        assert history.first_round(Request(Scope.TASK, tasks=("a",), clients=(1,))) == 2


def test_bytes_read_are_counted(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        fill(history)
        assert history.read_bytes == 0
        history.arrays(2)
        assert history.read_bytes == len(blobs.encode(model(0)))
        if root is not None:
            on_disk = sum(p.stat().st_size for p in root.rglob("*.safetensors"))
            assert history.nbytes == on_disk


def test_many_large_updates_need_the_memory_of_few(tmp_path: Path) -> None:
    size = 100_000  # 0.4 MB each; 40 of them would be 16 MB
    arrays = {"w": np.zeros(size, dtype=np.float32)}
    with History(tmp_path / "h", keep=ALL) as history:
        tracemalloc.start()
        with history.record(1, arrays) as entry:
            for client in range(40):
                entry.add(client, 1, {"w": np.full(size, client, dtype=np.float32)})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * arrays["w"].nbytes


# --- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ("update",)}, "did you mean 'updates'"),
        ({"interval": 0}, "history.interval is 0"),
        ({"dtype": "int8"}, "unknown history.dtype 'int8'"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        History(**options)  # type: ignore[arg-type]


def test_need_that_was_not_recorded_is_named() -> None:
    with History(keep=("globals",)) as history:
        history.require(("globals", "last_local"), "fed-eraser")
        with pytest.raises(HistoryError, match=r"fed-eraser needs 'updates'.*strategy = 'fed-e"):
            history.require(("globals", "updates"), "fed-eraser")


def test_rounds_are_recorded_in_order_and_once(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        arrays = fill(history)
        for wrong in (4, 2):
            with (
                pytest.raises(HistoryError, match=f"round {wrong} cannot be recorded after"),
                history.record(wrong, arrays),
            ):
                pass
        record(history, 7, (0,), arrays)
        assert history.rounds == (1, 2, 3, 4, 7)
        with pytest.raises(HistoryError, match="round 5 is not recorded"):
            history.participants(5)
        with pytest.raises(HistoryError, match=r"client 1 has no update .*took part: 0\)"):
            history.update(7, 1)


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([(0, 5, (2,)), (0, 5, (2,))], "client 0 is recorded twice in round 1"),
        ([(0, -1, (2,))], "client 0 reports -1 examples"),
        ([(0, 0, (2,))], "no client of round 1 reports any example"),
        ([(0, 1, (2,)), (1, 1, (3,))], "client 1 in round 1 has other names or shapes"),
    ],
)
def test_wrong_replies_are_refused_and_leave_nothing(
    root: Path | None, replies: list[tuple[int, int, tuple[int, ...]]], words: str
) -> None:
    def misuse(history: History) -> None:
        with history.record(1, {}) as entry:
            for client, num_examples, shape in replies:
                entry.add(client, num_examples, {"w": np.ones(shape)})

    with History(root, keep=ALL) as history:
        with pytest.raises(HistoryError, match=words):
            misuse(history)
        assert (history.rounds, history.nbytes, history.verify()) == ((), 0, [])


def test_a_round_without_replies_can_be_recorded(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        with history.record(1, model(0)):
            pass
        assert history.participants(1) == {}
        assert history.stored_rounds == (1,)


def test_reopening_with_other_settings_is_refused(tmp_path: Path) -> None:
    History(tmp_path / "h", keep=ALL, interval=2).close()
    History(tmp_path / "h", keep=ALL[::-1], interval=2).close()
    for options, word in (
        ({"keep": ("globals",), "interval": 2}, "keep"),
        ({"keep": ALL}, "interval"),
        ({"keep": ALL, "interval": 2, "dtype": "float16"}, "dtype"),
    ):
        with pytest.raises(HistoryError, match=f"recorded with history.{word} = "):
            History(tmp_path / "h", **options)  # type: ignore[arg-type]
    with History.open(tmp_path / "h") as history:
        assert (history.keep, history.interval, history.dtype) == (COLUMNS, 2, "float32")


def test_opening_what_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="holds no history"):
        History.open(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "index.sqlite").write_bytes(b"not a database, but long enough to be read as one")
    with pytest.raises(HistoryError, match=r"index.sqlite cannot be read"):
        History.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match=r"cannot use .*choose another folder"):
        History(tmp_path / "file")


def test_files_without_their_index_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    with History(tmp_path, keep=ALL) as history:
        fill(history)
    (tmp_path / "index.sqlite").unlink()
    with pytest.raises(HistoryError, match=r"index.sqlite is missing"):
        History(tmp_path, keep=ALL)
    assert (tmp_path / "round-00001" / "global.safetensors").exists()


def test_a_lock_that_cannot_be_made_is_not_taken_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "index.lock").mkdir()  # SQLite says of it what it says of a broken disk
    with pytest.raises(HistoryError, match=r"cannot write .*index\.lock: .* bytes are free"):
        History(tmp_path)


def test_one_process_writes_and_others_read(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from unlearning.errors import HistoryError
from unlearning.records.history import History

history = History.open(Path(sys.argv[1]))
assert history.rounds == (1, 2, 3, 4) and history.verify() == []
history.arrays(3)
try:
    history.truncate(1)
except HistoryError as error:
    print(error)
"""
    with History(tmp_path, keep=ALL) as history:
        arrays = fill(history)
        with history.record(5, arrays) as entry:
            entry.add(0, 1, update_of(5, 0))
            done = subprocess.run(
                [sys.executable, "-c", program, str(tmp_path)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            assert "is being written by another process" in done.stdout
        assert history.rounds == (1, 2, 3, 4, 5)
        assert history.verify() == []


# --- deletion ------------------------------------------------------------------------------------


def test_purge_of_a_client(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        fill(history)
        before = history.nbytes
        purged = history.purge(CLIENT_1)
        assert purged.files == 2 + 1 + 2  # updates, contribution, models of rounds 3 and 4
        assert history.nbytes == before - purged.bytes
        assert history.participants(2) == {0: 12, 2: 14}
        assert history.weights(2) == {0: 12 / 26, 2: 14 / 26}
        assert set(history.sensitivities(4)) == {2}
        assert history.first_round(CLIENT_1) is None
        assert same(history.initial, model(0))
        assert same(history.update(4, 2), update_of(4, 2))
        assert history.stored_rounds == (1, 2)
        history.arrays(2)
        for server_round in (3, 4):
            with pytest.raises(HistoryError, match="erased with request request-1"):
                history.arrays(server_round)
        for gone in (lambda: history.update(2, 1), lambda: history.contribution(1)):
            with pytest.raises(HistoryError, match="client 1"):
                gone()
        assert history.verify() == []
        again = history.purge(CLIENT_1)
        assert (again.files, again.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("request_", "left", "globals_"),
    [
        (Request(Scope.SAMPLE, samples={1: (0,)}), {2: {0, 2}, 4: {2}}, (1, 2)),
        (Request(Scope.CLASS, classes=(3,)), {1: set(), 4: set()}, (1,)),
        (Request(Scope.TASK, tasks=("a",)), {1: set(), 4: set()}, (1,)),
        (Request(Scope.SAMPLE, clients=(1,), classes=(3,)), {2: {0, 2}}, (1, 2)),
        (Request(Scope.CLIENT, clients=(9,)), {1: {0, 2}, 4: {1, 2}}, (1, 2, 3, 4)),
    ],
)
def test_purge_follows_the_owners(
    request_: Request, left: dict[int, set[int]], globals_: tuple[int, ...]
) -> None:
    with History(keep=ALL) as history:
        fill(history)
        history.purge(request_)
        assert {t: set(history.participants(t)) for t in left} == left
        assert history.stored_globals == globals_
        assert history.rounds == (1, 2, 3, 4)


def test_purge_leaves_no_bytes(tmp_path: Path) -> None:
    """A canary planted in an update, and in a model that holds it, is nowhere in the folder."""
    canary = np.frombuffer(b"CANARY-0123456789-CANARY-9876543", dtype=np.float32).copy()
    examples = 0x7EADBEEF0BAD  # a count that only this client has, as the index would store it
    with History(tmp_path, keep=ALL) as history:
        fill(history)
        with history.record(5, model(5)) as entry:
            entry.add(3, examples, {"w": canary})
        with history.record(6, {"w": canary}):
            pass
        found = [p for p in tmp_path.rglob("*") if p.is_file() and holds(p, canary.tobytes())]
        assert {p.name for p in found} == {"client-00003.safetensors", "global.safetensors"}
        assert holds(tmp_path / "index.sqlite", examples.to_bytes(6, "big"))
        history.purge(Request(Scope.CLIENT, clients=(3,)))
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert not holds(path, canary.tobytes()), path
                assert not holds(path, examples.to_bytes(6, "big")), path
        assert not (tmp_path / "round-00006").exists()
        assert history.verify() == []


def holds(path: Path, data: bytes) -> bool:
    return data in path.read_bytes()


def test_purged_client_may_come_back(root: Path | None) -> None:
    with History(root, keep=ALL) as history:
        arrays = fill(history)
        history.purge(Request(Scope.SAMPLE, samples={1: (0,)}))
        record(history, 5, (1,), arrays)
        assert history.first_round(CLIENT_1) == 5
        expected = update_of(5, 1)["a.bias"]
        np.testing.assert_allclose(history.contribution(1)["a.bias"], expected, rtol=1e-12)
        assert same(history.arrays(5), arrays)


# --- the state of a strategy ---------------------------------------------------------------------


def test_state_outlives_everything_but_another_state(root: Path | None) -> None:
    masks: Arrays = {"mask/w": np.array([True, False]), "count": np.array(3)}
    with History(root, keep=ALL) as history:
        fill(history)
        assert history.state == {}
        history.keep_state(model(7))
        history.keep_state(masks)
        if root is not None:
            history.close()
            history = History.open(root)
        assert same(history.state, masks)
        history.purge(Request(Scope.CLASS, classes=(1,)))
        history.truncate(0)
        assert same(history.state, masks)
        assert same(history.fork(None).state, masks)
        with History(keep=ALL) as other:
            other.adopt(history)
            assert same(other.state, masks)
            other.adopt(History(keep=ALL))
            assert other.state == {}
        assert history.verify() == []
        history.keep_state({})
        assert history.state == {}
        assert history.verify() == []


# --- rewriting -----------------------------------------------------------------------------------


def contents(history: History) -> dict[str, object]:
    """Return everything that can be read, as digests."""
    return {
        "initial": named.digest(history.initial),
        "rounds": {t: history.participants(t) for t in history.rounds},
        "globals": {t: named.digest(history.arrays(t)) for t in history.stored_globals},
        "updates": {
            (t, k): named.digest(history.update(t, k))
            for t in history.rounds
            for k in history.participants(t)
            if (t - 1) % history.interval == 0
        },
        "contributions": {
            k: named.digest(history.contribution(k))
            for k in {k for t in history.rounds for k in history.participants(t)}
        },
        "sensitivities": {t: history.sensitivities(t) for t in history.rounds},
        "state": named.digest(history.state),
    }


@pytest.mark.parametrize("target", ["disk", "memory"])
def test_fork_and_parent_do_not_see_each_other(
    root: Path | None, target: str, tmp_path: Path
) -> None:
    with History(root, keep=ALL) as parent:
        arrays = fill(parent)
        before = contents(parent)
        with parent.fork(tmp_path / "deep" / "fork" if target == "disk" else None) as fork:
            assert contents(fork) == before
            assert (fork.keep, fork.interval, fork.dtype) == (COLUMNS, 1, "float32")
            fork.purge(CLIENT_1)
            fork.truncate(3)
            record(fork, 4, (5,), arrays)
            assert contents(parent) == before
            changed = contents(fork)
            record(parent, 5, (0,), arrays)
            parent.purge(Request(Scope.CLASS, classes=(0,)))
            assert contents(fork) == changed
            assert parent.verify() == fork.verify() == []


def test_a_lent_history_goes_its_own_way_and_writes_no_file(
    root: Path | None, tmp_path: Path
) -> None:
    """What a branch of a comparison does: rewrite, adopt, learn on, forget; nothing is copied."""
    with History(root, keep=ALL) as parent:
        fill(parent)
        before = contents(parent)
        files = sorted(tmp_path.rglob("*"))
        with parent.lent() as branch:
            assert branch.root is None
            assert contents(branch) == before
            with branch.fork(None) as clean:  # borrows on
                clean.truncate(2)
                arrays = record(clean, 3, (0, 2), clean.arrays(2))
                branch.adopt(clean, CLIENT_1)
            branch.purge(CLIENT_1)
            record(branch, 4, (5,), arrays)
            assert branch.rounds == (1, 2, 3, 4)
            assert branch.first_round(CLIENT_1) is None
            assert branch.verify() == []
            branch.truncate(2)
            record(branch, 3, (0,), arrays)  # under the name of a batch that was there before
            assert same(branch.update(3, 0), update_of(3, 0))
        assert sorted(tmp_path.rglob("*")) == files
        assert contents(parent) == before
        assert parent.verify() == []


def test_fork_shares_files_and_refuses_a_full_folder(tmp_path: Path) -> None:
    with History(tmp_path / "a", keep=ALL) as parent:
        fill(parent)
        parent.fork(tmp_path / "b").close()
        name = "round-00001/global.safetensors"
        assert (tmp_path / "a" / name).samefile(tmp_path / "b" / name)
        with pytest.raises(HistoryError, match="is not empty"):
            parent.fork(tmp_path / "b")


def test_fork_copies_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with History(tmp_path / "a", keep=ALL) as parent:
        fill(parent)
        with parent.fork(tmp_path / "b") as fork:
            assert contents(fork) == contents(parent)
            name = "round-00001/global.safetensors"
            assert not (tmp_path / "a" / name).samefile(tmp_path / "b" / name)


@pytest.mark.parametrize("source", ["disk", "memory"])
def test_adopt_replaces_everything(root: Path | None, source: str, tmp_path: Path) -> None:
    with (
        History(root, keep=ALL) as history,
        History(tmp_path / "clean" if source == "disk" else None, keep=ALL) as clean,
    ):
        arrays = fill(history)
        fill(clean, {1: (0, 2), 3: (2,)})
        expected = contents(clean)
        for _ in range(2):
            history.adopt(clean)
            assert contents(history) == contents(clean) == expected
            assert history.verify() == clean.verify() == []
        record(history, 4, (0,), arrays)
        assert history.rounds == (1, 3, 4)
        assert contents(clean) == expected
        if root is not None:
            there = {p.relative_to(root).as_posix() for p in root.glob("*/**/*") if p.is_file()}
            assert there == history.digests().keys()  # what was there alike stays where it lay
            history.close()
            with History.open(root) as reopened:
                assert reopened.rounds == (1, 3, 4)
                assert reopened.verify() == []


def test_adopt_refuses_other_settings() -> None:
    with (
        History(keep=ALL) as history,
        History(keep=ALL, interval=2) as other,
        pytest.raises(HistoryError, match=r"history.interval = 1 cannot take over one with 2"),
    ):
        history.adopt(other)


def test_rewriting_in_a_fork_and_adopting_it(root: Path | None) -> None:
    """What a strategy does: fork, go back, learn again without the client, take over."""
    with History(root, keep=ALL) as history:
        fill(history)
        fork_root = None if root is None else root.with_name("rewritten")
        with history.fork(fork_root) as fork:
            fork.truncate(1)
            arrays = fork.initial
            for server_round in (2, 3, 4):
                arrays = record(fork, server_round, (0, 2), arrays)
            history.adopt(fork)
        assert history.first_round(CLIENT_1) is None
        assert history.rounds == (1, 2, 3, 4)
        assert history.verify() == []


def test_truncate_is_as_if_never_recorded(root: Path | None) -> None:
    with History(root, keep=ALL) as history, History(keep=ALL) as short:
        arrays = fill(history)
        fill(short, {1: TOOK_PART[1], 2: TOOK_PART[2]})
        history.truncate(4)
        assert history.rounds == (1, 2, 3, 4)
        history.truncate(2)
        assert contents(history) == contents(short)
        assert history.verify() == []
        record(history, 3, (2,), arrays)
        record(short, 3, (2,), arrays)
        assert contents(history) == contents(short)
        history.truncate(0)
        assert (history.rounds, history.verify()) == ((), [])
        assert same(history.initial, model(0))
        with pytest.raises(HistoryError, match="took part in no recorded round"):
            history.contribution(0)


def test_contribution_that_cannot_be_summed_anew_is_an_error(root: Path | None) -> None:
    with History(root, keep=("contributions",)) as history:
        arrays = fill(history, {1: (0, 1, 2), 2: (0, 1), 3: (4,)})
        twin = named.copy(history.contribution(2))
        history.truncate(1)
        record(history, 2, (0,), arrays)
        with pytest.raises(HistoryError, match="contribution of client 0 cannot be told"):
            history.contribution(0)
        assert same(history.contribution(2), twin)
        with pytest.raises(HistoryError, match="client 4 took part in no"):
            history.contribution(4)
        with history.fork(None) as fork, History(keep=("contributions",)) as heir:
            heir.adopt(fork)
            for other in (fork, heir):
                with pytest.raises(HistoryError, match="client 0 cannot"):
                    other.contribution(0)
        history.purge(Request(Scope.CLIENT, clients=(0,)))
        record(history, 5, (0,), arrays)
        expected = update_of(5, 0)["a.bias"]
        np.testing.assert_allclose(history.contribution(0)["a.bias"], expected, rtol=1e-12)
        history.truncate(0)
        record(history, 1, (1,), arrays)
        history.contribution(1)


# --- damage and crashes --------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "words"), [(flip, "is damaged"), (cut, "is damaged"), (Path.unlink, "is missing")]
)
def test_damage_is_named_and_stays_local(
    tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    with History(tmp_path, keep=ALL) as history:
        fill(history)
        harm(tmp_path / "round-00002" / "client-00001.safetensors")
        with pytest.raises(HistoryError, match=f"client-00001.safetensors {words}.*restore it"):
            history.update(2, 1)
        assert same(history.update(2, 0), update_of(2, 0))
        assert len(history.verify()) == 1


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    with History(tmp_path, keep=ALL) as history:
        fill(history)
        one, two = (tmp_path / "round-00002" / f"client-0000{k}.safetensors" for k in (1, 2))
        one.rename(tmp_path / "aside")
        two.rename(one)
        (tmp_path / "aside").rename(two)
        assert len(history.verify()) == 2
        with pytest.raises(HistoryError, match="is damaged"):
            history.update(2, 1)


def test_leftovers_are_reported_then_removed_and_other_files_left_alone(tmp_path: Path) -> None:
    with History(tmp_path, keep=ALL) as history:
        fill(history)
        leftovers = [tmp_path / "round-00005.tmp" / "a", tmp_path / "round-00001" / "b"]
        for path in (*leftovers, tmp_path / "notes.txt", tmp_path / "mine" / "round-00001"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
        problems = history.verify()
        assert len(problems) == 2
        assert all(text.endswith("is not in the index") for text in problems)
    with History.open(tmp_path) as history:
        assert history.verify() == []
    assert not any(path.exists() for path in leftovers)
    assert not (tmp_path / "round-00005.tmp").exists()
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "mine" / "round-00001").exists()


def test_an_exception_while_recording_leaves_nothing(root: Path | None) -> None:
    def interrupted(history: History) -> None:
        with history.record(5, model(0)) as entry:
            entry.add(0, 1, update_of(5, 0))
            raise KeyboardInterrupt

    with History(root, keep=ALL) as history:
        arrays = fill(history)
        before = contents(history)
        with pytest.raises(KeyboardInterrupt):
            interrupted(history)
        assert contents(history) == before
        assert history.verify() == []
        record(history, 5, (0,), arrays)
        assert history.rounds[-1] == 5


SHORT = {1: (0,), 2: (0, 1)}

ACTIONS: dict[str, Callable[[History], object]] = {
    "record": lambda history: record(history, 3, (0, 1), model(9)),
    "purge": lambda history: history.purge(CLIENT_1),
    "truncate": lambda history: history.truncate(1),
    "adopt": lambda history: adopt_another(history),
    "start": lambda history: history.start(model(0)),
    "state": lambda history: history.keep_state(model(8)),
}


def adopt_another(history: History) -> None:
    with History(keep=ALL) as other:
        fill(other, {1: (2,)})
        history.adopt(other)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """Call what the list holds before and after everything that touches the folder."""
    hooks: list[Callable[[], None]] = []

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            for hook in hooks:
                hook()
            result = function(*args, **kwargs)
            for hook in hooks:
                hook()
            return result

        return call

    for name in ("fsync", "rmdir"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    for name in ("replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    yield hooks
    hooks.clear()


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_kill_anywhere_leaves_old_or_new(
    action: str, tmp_path: Path, steps: list[Callable[[], None]]
) -> None:
    """The folder is copied at every step, as a kill would leave it; each copy is old or new."""
    root = tmp_path / "history"
    copies: list[Path] = []

    def snapshot(*_: object) -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(root, copies[-1])

    with History(root, keep=ALL) as history:
        if action != "start":
            fill(history, SHORT)
        old = readable(history)
        steps.append(snapshot)
        history.store.db.set_trace_callback(snapshot)
        ACTIONS[action](history)
        history.store.db.set_trace_callback(None)
        steps.clear()
        snapshot()
        new = readable(history)
    seen = []
    for copy in copies:
        with History.open(copy) as survivor:
            assert survivor.verify() == []
            seen.append(readable(survivor))
    changed = seen.index(new)
    assert all(found == old for found in seen[:changed])
    assert all(found == new for found in seen[changed:])
    assert changed > 0
    assert old != new


def readable(history: History) -> object:
    return contents(history) if history.nbytes else "nothing"


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_failing_disk_anywhere_leaves_old_or_new(
    action: str, tmp_path: Path, steps: list[Callable[[], None]]
) -> None:
    """Step k fails for k = 1, 2, ... until none does; the same object then goes on working."""
    template = tmp_path / "template"
    with History(template, keep=ALL) as history:
        if action != "start":
            fill(history, SHORT)
        old = readable(history)
        with history.fork(None) as done:
            ACTIONS[action](done)
            new = readable(done)
    for k in itertools.count(1):
        root = tmp_path / f"history-{k}"
        shutil.copytree(template, root)
        with History(root, keep=ALL) as history:
            left = iter([None] * (k - 1))

            def fail(left: Iterator[None] = left) -> None:
                if next(left, "now") == "now":
                    raise OSError(28, "No space left on device")

            error = None
            steps.append(fail)
            try:
                ACTIONS[action](history)
            except HistoryError as caught:
                error = caught
            steps.clear()
            assert error is None or "No space left" in str(error)
            if readable(history) != new:
                assert error is not None
                assert readable(history) == old
                ACTIONS[action](history)
            assert readable(history) == new
        with History.open(root) as survivor:
            assert survivor.verify() == []
        if next(left, "now") != "now":
            break
    assert k > 2


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with History(tmp_path, keep=ALL) as history:
        fill(history)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(HistoryError, match=r"No space left.*free at least \d+ bytes"):
            record(history, 5, (0,), model(0))
        monkeypatch.undo()
        record(history, 5, (0,), model(0))


def test_index_of_another_version_is_refused(tmp_path: Path) -> None:
    History(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(HistoryError, match="has format 99"):
        History.open(tmp_path)


# A format before this one ---------------------------------------------------------------------


def _two_parts(value: float) -> Arrays:
    return {"w": np.full(2, float(value)), "heads.left.w": np.full(2, float(value))}


def _written_before(root: Path) -> None:
    """Leave a history as version 1 of the index had it, without parts of a model."""
    with History(root, keep=COLUMNS) as history:
        history.start(_two_parts(0))
        with history.record(1, _two_parts(0)) as entry:
            entry.add(0, 3, _two_parts(1))
            entry.add(1, 1, _two_parts(-1))
    with sqlite3.connect(root / "index.sqlite") as db:
        db.execute("ALTER TABLE participants DROP COLUMN parts")
        db.execute("ALTER TABLE blobs DROP COLUMN key")
        db.execute("DROP TABLE seals")
        db.execute("DROP TABLE closing")
        db.execute("PRAGMA user_version=1")
    db.close()


def test_a_history_written_before_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "history"
    _written_before(root)
    before = (root / "index.sqlite").read_bytes()
    with History.open(root) as history:
        assert history.verify() == []
        assert history.weights(1, part="left") == {0: 0.75, 1: 0.25}
        assert history.sensitivities(1)[0] == (0.75, pytest.approx(1.0))
        np.testing.assert_array_equal(history.update(1, 1)["w"], [-1, -1])
    assert (root / "index.sqlite").read_bytes() == before


def test_a_history_written_before_can_be_gone_on_with(tmp_path: Path) -> None:
    root = tmp_path / "history"
    _written_before(root)
    with History.open(root) as history:
        twin = history.fork(tmp_path / "twin")
        with history.record(2, _two_parts(1)) as entry:
            entry.add(0, Examples(3, {"": 3, "left": 1}), _two_parts(1))
        assert history.examples(2) == {0: Examples(3, {"": 3, "left": 1})}
        assert history.examples(1) == {0: Examples(3), 1: Examples(1)}
        history.adopt(twin)
        assert history.rounds == (1,)
        twin.close()


def test_a_record_begun_anew_borrows_and_is_adopted_without_a_copy(root: Path | None) -> None:
    """A strategy that leaves one clean round copies no model and leaves no old row."""
    with History(root) as history:
        fill(history)
        history.keep_state({"mask": np.arange(3)})
        where = {name for name in history.digests() if "initial" in name or "state" in name}
        clean = history.anew()
        assert clean.root is None
        assert clean.rounds == ()
        assert same(clean.initial, history.initial)
        assert same(clean.state, history.state)
        with clean.record(1, clean.initial) as entry:
            entry.note(0, 7)
            entry.note(2, 5)
        history.adopt(clean, CLIENT_1)
        clean.destroy()
        assert history.participants(1) == {0: 7, 2: 5}
        assert history.rounds == (1,)
        assert history.served == (CLIENT_1.id,)
        assert history.digests().keys() == where
        assert history.verify() == []
        record(history, 2, (0,), history.initial)
        assert history.verify() == []


def test_an_index_that_cannot_be_taken_over_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise HistoryError("no room")

    with History(tmp_path / "run", keep=ALL) as history:
        fill(history)
        expected = contents(history)
        clean = history.anew()
        with clean.record(1, clean.initial) as entry:
            entry.add(0, 7, clean.initial)
        with monkeypatch.context() as patched:
            patched.setattr(store, "take_over", full)
            with pytest.raises(HistoryError, match="no room"):
                history.adopt(clean)
        assert contents(history) == expected
        assert history.verify() == []
        again = history.anew()
        with again.record(1, again.initial) as entry:
            entry.add(0, 7, again.initial)
        history.adopt(again)
        assert history.participants(1) == {0: 7}
        assert history.verify() == []

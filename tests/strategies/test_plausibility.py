from __future__ import annotations

import re
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from strategies import plausibility
from strategies.base import UnlearningStrategy
from strategies.plausibility import Spool, of_one_kind, without_outliers
from tests.support.toy import ToyFederation, ToyGrid
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Reply, Wire

MODEL = {"w": np.ones(4, np.float32)}


def reply(client: int, size: float) -> Reply:
    step = {"w": np.array([size, 0, 0, 0], np.float32), "count": np.array(client)}
    return Reply(client, 4, named.add(MODEL, {"w": step["w"]}), {}, step)


def kept(*sizes: float, kinds: str = "") -> tuple[list[int], dict[int, str]]:
    left: dict[int, str] = {}
    found = without_outliers(
        (reply(client, size) for client, size in enumerate(sizes)),
        MODEL,
        left.__setitem__,
        lambda client: kinds[client : client + 1],
    )
    return [one.client for one in found], left


@pytest.mark.parametrize(
    ("sizes", "clients"),
    [
        ((1, 1, 1, 9.9), [0, 1, 2, 3]),
        ((1, 1, 1, 10.1), [0, 1, 2]),
        ((50, 1, 1, 1), [1, 2, 3]),
        ((1, 99), [0, 1]),  # of two nobody can tell
        ((0, 0, 0, 1), [0, 1, 2, 3]),  # nor where nobody else moved
        ((1e-6, 1e-6, 1e-6, 1e-3), [0, 1, 2, 3]),  # what is tiny beside the model harms nobody
    ],
)
def test_who_is_left_out(sizes: tuple[float, ...], clients: list[int]) -> None:
    found, left = kept(*sizes)
    assert found == clients
    assert set(left) == set(range(len(sizes))) - set(clients)
    assert all("10 times the median" in why for why in left.values())


def test_clients_are_held_against_their_kind() -> None:
    assert kept(1, 1, 1, 20, 20, 20, kinds="tttaaa")[1] == {}


@pytest.mark.parametrize(
    ("heights", "clients"),
    [
        ((1, 2, 3, 2.4e6), [0, 1, 2, 3]),
        ((1, 2, 3, 2.6e6), [0, 1, 2]),
        ((1, 2e6), [0, 1]),  # of two nobody can tell
        ((1e-17, 3e-17, 0.3), [0, 1, 2]),  # sums that cancel leave noise, and one that does not
        ((1e-17, 3e-17, 1e4), [0, 1]),
        ((1e-5, 1e-5, 20), [0, 1]),
    ],
)
def test_statistics_that_tower_over_the_others(heights: tuple, clients: list[int]) -> None:
    left: dict[int, str] = {}
    given = [Reply(client, 4, {"sums": np.array([h, 0.0])}) for client, h in enumerate(heights)]
    assert [one.client for one in of_one_kind(iter(given), left.__setitem__)] == clients
    assert set(left) == set(range(len(heights))) - set(clients)
    assert all("a million times as large" in why for why in left.values())


@pytest.mark.parametrize("budget", [0, 50, 10**6])
def test_a_spool_gives_back_what_it_was_given(budget: int) -> None:
    given = [reply(client, client) for client in range(4)]
    given.append(Reply(9, 1, {"free": np.zeros(0), "scalar": np.array(3, np.int64)}))
    with Spool(budget) as spool:
        for one in given:
            spool.append(one)
        for one, back in zip(given, spool, strict=True):
            assert (one.client, one.metrics) == (back.client, back.metrics)
            assert list(one.arrays) == list(back.arrays)
            assert named.digest(one.arrays) == named.digest(back.arrays)
            assert (one.update is None) == (back.update is None)
            assert named.digest(one.update or {}) == named.digest(back.update or {})


def test_what_is_in_the_file_is_mapped_and_may_be_changed() -> None:
    large = np.ones(2**20, np.float32)
    with Spool(0, lambda client: {"w": large}) as spool:
        for client in range(2):
            spool.append(Reply(client, 1, {"w": large + client}, update={"w": 0 * large}))
        tracemalloc.start()
        try:
            for back in spool:
                client = back.client
                back.arrays["w"][0] = 9
                assert back.arrays["w"][:2].tolist() == [9, 1 + client]
                assert (back.update or {})["w"][:2].tolist() == [client, client]
                del back
            assert tracemalloc.get_traced_memory()[1] < 1.5 * large.nbytes  # one update at a time
        finally:
            tracemalloc.stop()


def test_replies_that_are_kept_keep_what_is_theirs() -> None:
    large = np.ones(2**20, np.float32)
    with Spool(0, lambda client: {"w": large}) as spool:
        for client in range(3):
            spool.append(Reply(client, 1, {"w": large + client}, update={}, moved=1.0))
        found = list(spool)
    assert [(one.update or {})["w"][-1] for one in found] == [0, 1, 2]
    assert [one.arrays["w"][-1] for one in found] == [1, 2, 3]


def sealed(arrays: Arrays) -> Arrays:
    """Return arrays in memory that nobody can write to, as a message's."""
    return {n: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for n, a in arrays.items()}


@pytest.mark.parametrize("budget", [0, 10**9])
def test_a_large_update_is_worked_out_again_instead_of_kept(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0).normal
    models = [{"w": draw(size=9).astype(np.float32), "steps": np.array(n)} for n in range(2)]
    ends = [{"w": draw(size=9).astype(np.float32), "steps": np.array(n)} for n in range(3)]
    given = [Reply(n, 1, end, update=named.delta(models[n % 2], end)) for n, end in enumerate(ends)]
    small = named.nbytes(given[0].update or {})
    for least in (1, small + 1):  # worked out again; kept
        monkeypatch.setattr(plausibility, "LARGE", least)
        with Spool(budget, lambda client: models[client % 3 % 2]) as spool:
            for one in given:
                spool.append(one)
            for number, one in enumerate(given):
                spool.append(Reply(3 + number, 1, sealed(one.arrays), update={}, moved=1.0))
            held = [one.update for one in spool._replies[: len(given)]]
            assert all(update == {} for update in held) == (least == 1 or budget == 0)
            for one, back in zip([*given, *given], spool, strict=True):
                assert named.digest(back.update or {}) == named.digest(one.update or {})
                assert named.digest(back.arrays) == named.digest(one.arrays)
                assert all(array.flags.writeable for array in back.arrays.values())
                assert back.moved is None


def test_a_noisy_client_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy = ToyFederation(tmp_path)
    clean = toy.branch(tmp_path / "clean")
    clean.faults[1] = lambda arrays: arrays[:-1]  # another way of being left out
    wanted = clean.learn(2)
    noisy = toy.branch(tmp_path / "noisy")
    noisy.faults[1] = lambda arrays: [a + 50 if a.dtype.kind == "f" else a for a in arrays]
    assert named.digest(noisy.learn(2)) == named.digest(wanted)
    assert "client 1 is left out: quarantined: it moved the model by" in caplog.text


class Claims(ToyGrid):
    """Client 1 reports a metric of the test's choice."""

    metric: tuple[str, float]

    def _answer(self, message: Message) -> Message:
        answer = super()._answer(message)
        if message.metadata.message_type == "train" and answer.metadata.src_node_id == 1001:
            answer.content[Wire.METRICS][self.metric[0]] = self.metric[1]  # type: ignore[index,call-overload]
        return answer


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ((Wire.CLIENT_SECONDS, 1.7e308), "client 1 is left out.*'client-seconds'"),
        ((Wire.EXAMPLES_PROCESSED, 1e300), "client 1 is left out.*'examples-processed'"),
        ((Wire.LOSS, -1e6), "client 1 reports a loss of -1e"),
        ((Wire.LOSS, 1e12), "client 1 reports a loss of 1e"),
    ],
)
def test_what_clients_measure_is_bounded(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    metric: tuple[str, float],
    words: str,
) -> None:
    toy = ToyFederation(tmp_path)
    grid = Claims(toy.app, 4)
    grid.metric = metric
    twin = toy.branch(tmp_path / "branch", grid=grid)
    twin.run(UnlearningStrategy(), rounds=1)
    assert re.search(words, caplog.text)
    assert 1 not in twin.federation.losses
    assert twin.federation.costs["learn"].client_s < 100


def test_a_reply_that_lies_in_the_file_is_let_go_before_the_next_client_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One large model more would lie in memory just while a client trains another."""
    monkeypatch.setattr(Spool.__init__, "__defaults__", (0, None))
    seen: list[weakref.ref[np.ndarray]] = []

    def made(client: int) -> Reply:
        array = np.full(4, float(client + 1))
        seen.append(weakref.ref(array))
        return Reply(client, 1, {"w": array}, update={"w": array})

    def answers() -> Iterator[Reply]:
        for client in range(3):
            assert not any(ref() is not None for ref in seen)
            yield made(client)

    found = without_outliers(answers(), {"w": np.ones(4)}, lambda client, why: None)
    assert [reply.arrays["w"][0] for reply in found] == [1, 2, 3]

from __future__ import annotations

import errno
import gc
import json
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from strategies import federation as federation_module
from strategies.base import UnlearningStrategy, in_range, one_of
from strategies.federation import Federation
from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from strategies.roster import Roster
from strategies.wire import to_record
from tests.support.toy import Census, RestlessGrid, ToyFederation, ToyGrid, record_configs, request
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, FederationError, HistoryError
from unlearning.protocol import Instruction, Reply, Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request, Scope

ALL = (0, 1, 2, 3)


class Sketch(UnlearningStrategy):
    """An algorithm of which each test fills in what it needs, if only the exchange."""

    scopes = frozenset(Scope)
    edits = False

    def __init__(self, rounds: int = 1) -> None:
        super().__init__()
        self.rounds = rounds

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return arrays, self.rounds


@pytest.fixture
def toy(tmp_path: Path) -> ToyFederation:
    return ToyFederation(tmp_path)


def recorded(toy: ToyFederation) -> dict[int, list[int]]:
    history = toy.federation.history
    return {t: list(history.participants(t)) for t in history.rounds}


def breaks(arrays: list[np.ndarray]) -> list[np.ndarray]:
    raise OSError("no power")


# Learning is FedAvg -------------------------------------------------------------------------


def test_it_is_a_flower_strategy() -> None:
    assert issubclass(UnlearningStrategy, FedAvg)


def test_a_round_is_the_weighted_mean_of_updates(toy: ToyFederation) -> None:
    """Oracle 3: w0 + sum over rounds and clients of p * update = wT, in float64."""
    arrays = toy.learn(3)
    history, total = toy.federation.history, {n: a.astype(float) for n, a in toy.initial.items()}
    for t in history.rounds:
        assert named.mismatch(toy.initial, history.arrays(t)) is None
        for client, weight in history.weights(t).items():
            assert weight == pytest.approx(toy.sizes[client] / sum(toy.sizes.values()))
            for name, step in history.update(t, client).items():
                if name != "num_batches_tracked":
                    total[name] += weight * step
    for name in ("layer.weight", "layer.bias", "running_mean"):
        np.testing.assert_allclose(total[name], arrays[name], rtol=1e-5, atol=1e-7)
    assert arrays["num_batches_tracked"].dtype == np.int64
    # Client 3 is last: three batches of 8 in each of two epochs and three rounds.
    assert arrays["num_batches_tracked"] == 18


def test_the_history_holds_the_model_at_round_start(toy: ToyFederation) -> None:
    models: list[str] = []
    toy.federation.watch = lambda phase, t, arrays: models.append(named.digest(arrays))
    toy.learn(3)
    history = toy.federation.history
    starts = [named.digest(history.arrays(t)) for t in (1, 2, 3)]
    assert starts == [named.digest(toy.initial), *models[:2]]
    assert named.digest(history.initial) == starts[0]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    digests = {
        named.digest(ToyFederation(tmp_path / str(i), seed=seed).learn(2))
        for i, seed in enumerate((0, 0, 1))
    }
    assert len(digests) == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_replies_is_nothing(toy: ToyFederation, tmp_path: Path, seed: int) -> None:
    restless = toy.branch(tmp_path / "restless", grid=RestlessGrid(toy.app, 4, seed))
    usual = toy.branch(tmp_path / "usual")
    assert named.digest(restless.learn(2)) == named.digest(usual.learn(2))


def test_sums_run_in_float64_and_by_client(toy: ToyFederation) -> None:
    """Two large updates cancel, and what is left is small: float32 would have lost it.

    Clients 0 to 3 with 8, 11, 14 and 17 examples answer 17, 2**-22, 0 and -8 from a model of
    zeros. 8 * 17 - 17 * 8 = 0, so the mean is 11 * 2**-22 / 50; beside 8 * 17 = 136, whose
    neighbours in float32 are 2**-16 away, 11 * 2**-22 is nothing.
    """
    for client, step in zip(ALL, (17.0, 2.0**-22, 0.0, -8.0), strict=True):
        toy.faults[client] = lambda arrays, step=step: [
            np.full_like(a, step) if a.dtype.kind == "f" else a for a in arrays
        ]
    zeros = {name: np.zeros_like(array) for name, array in toy.initial.items()}
    arrays = toy.run(UnlearningStrategy(), zeros, rounds=1)
    assert set(arrays["layer.weight"].ravel()) == {np.float32(11 * 2.0**-22 / 50)}


def test_memory_does_not_grow_with_the_number_of_replies(tmp_path: Path) -> None:
    toy, census = ToyFederation(tmp_path, clients=12), Census()

    class Counting(ToyGrid):
        def _answer(self, message: Message) -> Message:
            answer = super()._answer(message)
            census.see(message)
            census.see(answer)
            return answer

    grid = Counting(toy.app, 12)
    toy = toy.branch(tmp_path / "branch", grid=grid)
    roster = toy.federation.roster
    toy.federation.roster = Roster(grid, roster.nodes, roster.declared, window=2)
    arrays = toy.learn(1)  # what is imported at first use holds on to its callers
    census.forget()
    gc.disable()
    try:
        toy.run(UnlearningStrategy(), arrays, rounds=1)
    finally:
        gc.enable()
    assert census.most <= 2 * 2 + 3


def test_settings_seeds_and_names_of_a_learning_message(toy: ToyFederation) -> None:
    seen = record_configs(toy)
    toy.learn(2)
    assert [config[Wire.CLIENT] for config in seen] == [*ALL, *ALL]
    last = seen[-1]
    assert json.loads(str(last[Wire.SEED])) == [0, 2, 3]
    assert json.loads(str(last[Wire.SETTINGS])) == toy.federation.train
    assert (last[Wire.STEP], last[Wire.SERVER_ROUND]) == ("train", 2)
    assert last[Wire.REMEMBER] is True
    assert Wire.FORGET not in last


def test_cost_of_learning_by_hand(toy: ToyFederation) -> None:
    """Two rounds, four clients, 8 + 11 + 14 + 17 examples, two epochs."""
    arrays = toy.learn(2)
    assert set(toy.federation.costs) == {"learn"}
    cost = toy.federation.costs["learn"]
    assert cost.client_rounds == 8
    assert cost.examples == 2 * 2 * (8 + 11 + 14 + 17)
    sent = sum(len(array.data) for array in to_record(arrays).values())
    assert cost.bytes_down == cost.bytes_up == 8 * sent
    assert cost.client_s > 0
    assert cost.wall_s > 0


def test_watching_and_judging_are_off_the_clock(
    toy: ToyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(federation_module, "time", clock)
    toy.faults[0] = lambda arrays: now.__setitem__(0, now[0] + 1) or arrays  # type: ignore[func-returns-value]

    def slow(*_: object) -> dict[str, float | None]:
        now[0] += 100
        return {}

    toy.federation.watch = toy.federation.judge = slow
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=1))
    toy.run(Sketch(rounds=3), rounds=1)
    spent = {phase: cost.wall_s for phase, cost in toy.federation.costs.items()}
    assert spent == {"learn": 1, "unlearn": 3, "recover": 2}


# Who takes part -----------------------------------------------------------------------------


def test_the_draw_does_not_depend_on_who_left() -> None:
    federation, clients = Federation(seed=3, fraction=0.4), tuple(range(10))
    before = [federation.sample(t, clients) for t in range(1, 30)]
    federation.forgotten = federation.forgotten | Request(Scope.CLIENT, clients=(2, 7))
    for t, drawn in enumerate(before, start=1):
        left = tuple(client for client in drawn if client not in (2, 7))
        assert federation.sample(t, clients) == left or not left


def test_where_only_the_forgotten_were_drawn_the_next_in_line_steps_in() -> None:
    federation, clients = Federation(seed=3, fraction=0.1), tuple(range(10))
    (first,) = federation.sample(1, clients)
    federation.forgotten = federation.forgotten | Request(Scope.CLIENT, clients=(first,))
    (second,) = federation.sample(1, clients)
    assert second != first
    others = tuple(client for client in clients if client != first)
    federation.forgotten = federation.forgotten | Request(Scope.CLIENT, clients=others)
    assert federation.sample(1, clients) == ()


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 1), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_the_share_that_trains(fraction: float, size: int) -> None:
    federation, clients = Federation(fraction=fraction), tuple(range(10))
    draws = [federation.sample(t, clients) for t in range(1, 200)]
    assert {len(drawn) for drawn in draws} == {size}
    assert all(list(drawn) == sorted(set(drawn)) for drawn in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    assert counts.min() > 0


def test_the_draw_has_a_seed_address_of_its_own() -> None:
    """NumPy pads seeds with zeros: [seed, round] would be the stream of client 0."""
    federation = Federation(seed=5)
    drawn = Federation(seed=5, fraction=0.5).sample(2, tuple(range(64)))
    stream = np.random.default_rng([federation.seed, 2, 0]).permutation(64)[:32]
    assert set(drawn) != set(stream.tolist())


# Faults of a round --------------------------------------------------------------------------


def test_too_few_replies_are_an_error_in_words(toy: ToyFederation) -> None:
    toy.faults = toy.faults | dict.fromkeys((0, 1, 2), breaks)
    words = r"round 1: 1 of 4 clients .* engine\.min_replies .*client 0: OSError: no power"
    with pytest.raises(FederationError, match=words):
        toy.learn(1)


def test_a_round_with_too_few_replies_is_not_recorded(toy: ToyFederation) -> None:
    """So that the run can go on from there."""
    arrays = toy.learn(1)
    toy.faults |= dict.fromkeys((0, 1, 2), breaks)
    with pytest.raises(FederationError, match="round 2: 1 of 4"):
        toy.run(UnlearningStrategy(), arrays, rounds=1)
    assert toy.federation.completed == 1
    assert toy.federation.history.rounds == (1,)
    toy.faults.clear()
    toy.run(UnlearningStrategy(), arrays, rounds=1)
    assert toy.federation.history.rounds == (1, 2)


@pytest.mark.parametrize(("min_replies", "good"), [(0.0, 1), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_how_many_replies_are_enough(toy: ToyFederation, min_replies: float, good: int) -> None:
    toy.federation.min_replies = min_replies
    toy.faults |= dict.fromkeys(ALL[good:], breaks)
    toy.learn(1)
    assert recorded(toy) == {1: list(ALL[:good])}


def test_without_any_reply_there_is_no_round_whatever_is_enough(toy: ToyFederation) -> None:
    toy.federation.min_replies = 0.0
    toy.faults |= dict.fromkeys(ALL, breaks)
    with pytest.raises(FederationError, match="0 of 4"):
        toy.learn(1)
    assert toy.federation.history.rounds == ()


def test_who_has_no_data_left_is_neither_counted_nor_blamed(
    toy: ToyFederation, caplog: pytest.LogCaptureFixture
) -> None:
    """Client 0 holds samples 0 to 7; all are forgotten. One of the three others fails."""
    toy.federation.min_replies = 0.6
    toy.federation.ledger.receive(Request(Scope.SAMPLE, samples={0: tuple(range(8))}))
    toy.faults[1] = breaks
    toy.run(FineTune(), rounds=1)
    assert recorded(toy) == {1: [2, 3]}
    assert "client 1 is left out" in caplog.text
    assert "client 0" not in caplog.text


class InPlace(Sketch):
    """One that writes where it must not: in ``hook``, to the arrays or to the dict of them."""

    def __init__(self, hook: str, values: bool) -> None:
        super().__init__()
        self.hook, self.values = hook, values

    def write(self, hook: str, arrays: Arrays) -> Arrays:
        for name in arrays if hook == self.hook else ():
            if self.values:
                arrays[name] += 1
            else:
                arrays[name] = arrays[name] + 1
        return arrays

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        return self.write("prepare", arrays), self.rounds

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        return super().learn(server_round, self.write("learn", arrays), replies)


def test_who_writes_to_a_given_model_is_told_where(toy: ToyFederation) -> None:
    arrays = toy.run(Sketch(), toy.initial, rounds=1)
    before, where = named.copy(arrays), r"InPlace writes to an array .*test_base.py, line \d+, in"
    with pytest.raises(FederationError, match=where):
        toy.run(InPlace("learn", values=True), arrays, rounds=1)
    with pytest.raises(FederationError, match=where):
        toy.unlearn(InPlace("prepare", values=True), request(Scope.CLIENT, 1), arrays)
    with pytest.raises(FederationError, match=where):
        toy.unlearn(InPlace("learn", values=True), request(Scope.CLIENT, 2), arrays)
    assert named.is_same(arrays, before)


def test_who_exchanges_arrays_of_a_given_model_leaves_the_servers_alone(toy: ToyFederation) -> None:
    arrays = toy.run(Sketch(), toy.initial, rounds=1)
    before = named.copy(arrays)
    after = toy.unlearn(InPlace("prepare", values=False), request(Scope.CLIENT, 1), arrays)
    assert named.is_same(arrays, before)
    assert not named.is_same(after, before)


def test_a_model_that_overflows_is_discarded(toy: ToyFederation) -> None:
    class Overflowing(UnlearningStrategy):
        def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            list(replies)
            return {**arrays, "layer.bias": np.full(3, np.inf, np.float32)}

    with pytest.raises(FederationError, match=r"round 1 is not finite .* Overflowing"):
        toy.run(Overflowing(), rounds=1)
    assert toy.federation.history.rounds == ()
    assert toy.federation.completed == 0


def test_a_hook_that_stops_early_still_waits_for_all(toy: ToyFederation) -> None:
    class Impatient(UnlearningStrategy):
        def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            return next(iter(replies)).arrays

    toy.run(Impatient(), rounds=1)
    assert toy.federation.costs["learn"].client_rounds == 4
    assert sorted(client for client, _ in toy.asked) == list(ALL)


def test_cancelling_a_run(toy: ToyFederation) -> None:
    rounds: list[int] = []
    toy.federation.watch = lambda phase, t, arrays: rounds.append(t)
    toy.federation.roster._stop = lambda: len(rounds) == 2
    with pytest.raises(InterruptedError, match="cancelled"):
        toy.learn(9)
    assert toy.federation.history.rounds == (1, 2)


def test_the_deadline_is_the_federations_own(toy: ToyFederation) -> None:
    """Flower's start has an hour by default."""

    class Silent(ToyGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return []

    grid = Silent(toy.app, 4)
    roster = toy.federation.roster
    toy.grid = grid
    toy.federation.roster = Roster(grid, roster.nodes, roster.declared)
    toy.federation.timeout_s = 0.05
    with pytest.raises(FederationError, match=r"client 0: no reply within 0\.05 s"):
        toy.learn(1)


def test_a_strategy_finds_its_clients_itself(toy: ToyFederation) -> None:
    toy.federation.roster = None
    toy.learn(1)
    assert list(toy.federation.roster.nodes) == list(ALL)
    assert ("query", 3) in toy.grid.pushed


def test_without_a_grid_it_says_so() -> None:
    with pytest.raises(FederationError, match="has no grid yet"):
        _ = FineTune().remaining


# Serving requests ---------------------------------------------------------------------------


def served(toy: ToyFederation) -> list[tuple[str, str]]:
    return [(event.request_id, event.event) for event in toy.federation.ledger.events()]


def test_a_request_is_served_at_its_round(toy: ToyFederation) -> None:
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=2, id="r"))
    toy.run(FineTune(), rounds=4)
    assert recorded(toy) == {1: [0, 2, 3], 2: [0, 2, 3], 3: [0, 2, 3], 4: [0, 2, 3]}
    before, after = toy.asked[:8], toy.asked[8:]
    assert sum(client == 1 for client, _ in before) == 2
    assert all(client != 1 for client, _ in after)
    assert set(toy.federation.costs) == {"learn", "recover", "unlearn"}


def test_a_request_of_the_last_round_is_followed_by_recovery(toy: ToyFederation) -> None:
    phases: list[tuple[str, int]] = []
    toy.federation.watch = lambda phase, t, arrays: phases.append((phase, t))
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=2))
    toy.run(Sketch(rounds=2), rounds=2)
    assert phases == [
        ("learn", 1),
        ("learn", 2),
        ("unlearn", 1),
        ("unlearn", 2),
        ("recover", 3),
        ("recover", 4),
    ]


def test_a_request_that_arrives_from_elsewhere_is_served_at_the_next_round(tmp_path: Path) -> None:
    """Another process appends to the ledger's file while round 2 is running."""
    toy, path = ToyFederation(tmp_path / "home"), tmp_path / "ledger.sqlite"
    toy.federation.ledger = Ledger(path)

    def ask(phase: str, server_round: int, arrays: Arrays) -> None:
        if (phase, server_round) == ("learn", 2):
            with Ledger(path) as other:
                other.receive(Request(Scope.CLIENT, clients=(1,), id="late"))

    toy.federation.watch = ask
    toy.run(FineTune(), rounds=4)
    assert toy.federation.ledger.state("late") == "fulfilled"
    assert [client for client, _ in toy.asked].count(1) == 2


def test_a_request_that_arrives_during_recovery_is_served_too(toy: ToyFederation) -> None:
    ledger = toy.federation.ledger
    ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=1, id="first"))

    def ask(phase: str, server_round: int, arrays: Arrays) -> None:
        if (phase, server_round) == ("recover", 3):
            ledger.receive(Request(Scope.CLIENT, clients=(2,), id="second"))

    toy.federation.watch = ask
    toy.run(FineTune(), rounds=1)
    assert ledger.state("second") == "fulfilled"
    assert toy.federation.completed == 1 + 2 + 2
    assert list(toy.federation.history.participants(5)) == [0, 3]


def test_several_requests_at_once_are_served_in_order(toy: ToyFederation) -> None:
    for client in (3, 1):
        toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(client,), id=f"of-{client}"))
    toy.federation.ledger.receive(Request(Scope.SAMPLE, samples={0: (1,)}, id="of-0"))
    toy.run(Retrain(), toy.learn_without_serving(2), rounds=0)
    events = [pair for pair in served(toy) if pair[1] != "received"]
    way = ("started", "unlearned", "fulfilled")
    assert events == [(f"of-{i}", event) for i in (3, 1, 0) for event in way]
    assert recorded(toy) == {1: [0, 2], 2: [0, 2], 3: [0, 2], 4: [0, 2]}
    assert toy.federation.history.participants(4) == {0: 7, 2: 14}


def test_earlier_requests_stay_in_force_while_another_is_served(toy: ToyFederation) -> None:
    """What is forgotten already is no forget set: it is not there at all."""
    arrays = toy.learn(2)
    for i, sample in enumerate((0, 1)):
        toy.federation.ledger.receive(Request(Scope.SAMPLE, samples={0: (sample,)}, id=str(i)))
    seen = record_configs(toy)
    toy.run(Sketch(), arrays, rounds=0)
    of_client_0 = [config for config in seen if config[Wire.CLIENT] == 0]
    parts = [
        (json.loads(str(c[Wire.OMIT]))["samples"], json.loads(str(c.get(Wire.FORGET, "{}"))))
        for c in of_client_0
    ]
    nothing = {"everything": False, "classes": [], "tasks": [], "features": []}
    assert parts[0] == ([], {**nothing, "samples": [0]})
    assert parts[1][0] == [0]
    assert parts[1][1]["samples"] == [1]
    assert parts[2:] == [([0, 1], {})] * 2


def test_a_refused_request_does_not_end_the_run(
    toy: ToyFederation, caplog: pytest.LogCaptureFixture
) -> None:
    class ClientsOnly(FineTune):
        scopes = frozenset({Scope.CLIENT})

    toy.federation.ledger.receive(Request(Scope.CLASS, classes=(1,), id="bad"))
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="good"))
    toy.run(ClientsOnly(), rounds=1)
    assert toy.federation.ledger.state("bad") == "refused"
    assert toy.federation.ledger.state("good") == "fulfilled"
    assert "bad was refused" in caplog.text


def test_before_the_first_round_there_is_nothing_to_unlearn(toy: ToyFederation) -> None:
    """Nobody has influenced the model; the client is just not asked."""
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="early"))
    toy.run(Retrain(), rounds=2)
    assert toy.federation.ledger.state("early") == "fulfilled"
    assert "unlearn" not in toy.federation.costs
    assert recorded(toy) == {1: [0, 2, 3], 2: [0, 2, 3]}


def test_a_bystander_costs_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, late={3: 9})
    arrays, strategy = toy.learn(2), Sketch()
    pushed = len(toy.grid.pushed)
    after = toy.unlearn(strategy, request("client", 3), arrays)
    assert named.digest(after) == named.digest(arrays)
    assert "unlearn" not in toy.federation.costs
    assert len(toy.grid.pushed) == pushed
    assert strategy.request is None
    assert toy.federation.roster.clients == (0, 1, 2)


def test_when_all_leave_the_initial_model_is_left(toy: ToyFederation) -> None:
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=ALL, at_round=2, id="all"))
    arrays = toy.run(Sketch(), rounds=2)
    assert named.digest(arrays) == named.digest(toy.initial)
    assert toy.federation.ledger.state("all") == "fulfilled"
    assert recorded(toy) == {1: [], 2: []}


def test_when_all_leave_on_the_way_learning_cannot_go_on(toy: ToyFederation) -> None:
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=ALL, at_round=1, id="all"))
    with pytest.raises(FederationError, match="no client is left to learn from"):
        toy.run(Sketch(), rounds=2)
    assert toy.federation.ledger.state("all") == "fulfilled"


def test_a_failed_unlearning_keeps_the_data_out(toy: ToyFederation) -> None:
    """Now and after a restart; the request is served once the fault is gone."""
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    arrays = toy.learn_without_serving(2)
    toy.faults |= dict.fromkeys(ALL, breaks)
    toy.run(Sketch(), arrays, rounds=0)
    assert toy.federation.ledger.state("r") == "failed"
    assert toy.federation.roster.clients == (0, 2, 3)

    toy.faults.clear()
    toy.asked.clear()
    toy.federation.roster = None  # as after a restart
    toy.run(Sketch(), arrays, rounds=0)
    assert toy.federation.ledger.state("r") == "fulfilled"
    assert all(client != 1 for client, _ in toy.asked)


def test_the_forgotten_are_known_again_after_a_restart(toy: ToyFederation) -> None:
    """From the ledger alone."""
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,)))
    arrays = toy.run(FineTune(), toy.learn_without_serving(1), rounds=0)
    toy.federation.roster, toy.federation.forgotten = None, Forgotten()
    toy.run(FineTune(), arrays, rounds=1)
    assert toy.federation.roster.clients == (0, 2, 3)
    assert list(toy.federation.history.participants(toy.federation.completed)) == [0, 2, 3]


def test_a_failed_unlearning_leaves_no_rewritten_history(tmp_path: Path) -> None:
    history = History(tmp_path / "history", keep=("globals", "updates"))
    toy = ToyFederation(tmp_path / "home", history=history)
    arrays = toy.learn(2)
    toy.faults |= dict.fromkeys(ALL, breaks)
    with pytest.raises(FederationError):
        toy.unlearn(Retrain(), request("client"), arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "home"]
    assert history.rounds == (1, 2)


def test_a_rewritten_history_on_disk_takes_the_old_ones_place(tmp_path: Path) -> None:
    history = History(tmp_path / "history", keep=("globals", "updates"))
    toy = ToyFederation(tmp_path / "home", history=history)
    toy.federation.ledger.receive(request("client"))
    toy.run(Retrain(), toy.learn_without_serving(2), rounds=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "home"]
    assert recorded(toy) == {t: [0, 2, 3] for t in (1, 2, 3, 4)}
    assert history.verify() == []


def test_recovery_has_settings_of_its_own(toy: ToyFederation) -> None:
    toy.federation.recovery = {"local_epochs": 5}
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=1))
    seen = record_configs(toy)
    toy.run(Sketch(), rounds=1)
    epochs = [json.loads(str(config[Wire.SETTINGS]))["local_epochs"] for config in seen]
    assert epochs == [2] * 4 + [2] * 3 + [5] * 6


def test_the_ledger_knows_options_and_digests(toy: ToyFederation) -> None:
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    toy.federation.judge = lambda request, before, after: {"mia_auc": 0.5}
    toy.run(Sketch(rounds=0), toy.learn_without_serving(1), rounds=0)
    started, _, fulfilled = toy.federation.ledger.events("r")[1:]
    assert started.facts["options"] == {"rounds": 0}
    assert started.facts["model_before"] == fulfilled.facts["model_after"]
    assert fulfilled.facts["metrics"] == {"mia_auc": 0.5}
    assert fulfilled.facts["deletion"] == {
        "acknowledged": [1],
        "unacknowledged": [],
        "examples": 11,
    }


def test_who_does_not_answer_has_not_acknowledged(toy: ToyFederation) -> None:
    """It is asked again, at the latest at the next start, where no round may be left."""

    class Deaf(ToyGrid):
        hears = False

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            batch = list(messages)
            lost = any(one.metadata.message_type == "query.delete" for one in batch)
            return [] if lost and not self.hears else super().push_messages(batch)

    grid = Deaf(toy.app, 4)
    twin = toy.branch(toy.home / "twin", grid=grid)
    twin.federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), id="r"))
    twin.run(FineTune(), rounds=1)
    deletion = twin.federation.ledger.events("r")[-1].facts["deletion"]
    assert deletion == {"acknowledged": [], "unacknowledged": [1], "examples": 0}
    assert twin.federation.ledger.state("r") == "deletion-pending"
    grid.hears = True
    twin.run(FineTune(), rounds=0)
    assert twin.federation.ledger.state("r") == "fulfilled"


# The contract with an algorithm -------------------------------------------------------------


def test_an_unlearning_round_has_seeds_of_its_own(toy: ToyFederation) -> None:
    class Replay(Sketch):
        def instruct(self, server_round: int) -> Mapping[int, Instruction]:
            return {0: Instruction(), 2: Instruction(seed_round=1, settings={"local_epochs": 7})}

    arrays, seen = toy.learn(2), record_configs(toy)
    toy.unlearn(Replay(), request("client"), arrays)
    assert [json.loads(str(c[Wire.SEED])) for c in seen] == [[0, 3, 0, 1], [0, 1, 2]]
    epochs = [json.loads(str(c[Wire.SETTINGS]))["local_epochs"] for c in seen]
    assert epochs == [2, 7]
    assert [c[Wire.REMEMBER] for c in seen] == [False, False]


def test_a_client_may_be_given_a_model_and_extras_of_its_own(toy: ToyFederation) -> None:
    arrays = toy.learn(1)
    updates: dict[int, Arrays | None] = {}
    own = {name: np.array(array * 0) for name, array in arrays.items()}

    class Own(Sketch):
        def instruct(self, server_round: int) -> Mapping[int, Instruction]:
            still = {"local_epochs": 0}
            return {
                0: Instruction(arrays=own, settings=still, extras={"anchor": np.ones(2)}),
                2: Instruction(settings=still),
            }

        def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            updates.update({r.client: r.update for r in replies})
            return arrays

    toy.unlearn(Own(), request("client"), arrays)
    for update in updates.values():  # measured against the model that this client was given
        assert update is not None
        assert not update["layer.weight"].any()


def test_a_round_may_ask_nobody(toy: ToyFederation) -> None:
    class Alone(Sketch):
        def instruct(self, server_round: int) -> Mapping[int, Instruction]:
            return {}

        def combine(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            assert list(replies) == []
            return named.scale(arrays, 0.5)

    arrays = toy.learn(1)
    after = toy.unlearn(Alone(rounds=2), request("client"), arrays)
    np.testing.assert_array_equal(after["layer.weight"], arrays["layer.weight"] / 4)


def replaced(name: str, array: np.ndarray) -> type[Sketch]:
    class Replaced(Sketch):
        def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
            return {**arrays, name: array}, 0

    return Replaced


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("more", np.zeros(1), "'more' is not part of the model"),
        ("layer.bias", np.zeros(3), "dtype float64, expected float32"),
        ("layer.bias", np.zeros(4, np.float32), r"shape \(4,\)"),
        ("layer.bias", np.full(3, np.nan, np.float32), "not finite"),
    ],
)
def test_what_an_algorithm_returns_is_checked(
    toy: ToyFederation, name: str, array: np.ndarray, words: str
) -> None:
    arrays = toy.learn(1)
    with pytest.raises(FederationError, match=words):
        toy.unlearn(replaced(name, array)(), request("client"), arrays)


def test_the_help_of_the_leaving_is_over_when_the_request_is(toy: ToyFederation) -> None:
    class Helped(Sketch):
        asks_forgotten = True

        def instruct(self, server_round: int) -> Mapping[int, Instruction]:
            assert toy.federation.roster.helping == {1}
            raise OSError("broken")

    with pytest.raises(FederationError, match="OSError: broken"):
        toy.unlearn(Helped(), request("client"), toy.learn(1))
    assert toy.federation.roster.helping == frozenset()


def test_whoever_does_not_declare_it_gets_no_help(toy: ToyFederation) -> None:
    class Sly(Sketch):
        def instruct(self, server_round: int) -> Mapping[int, Instruction]:
            return {1: Instruction("ascend")}

    with pytest.raises(RuntimeError, match="client 1, which has been forgotten"):
        toy.unlearn(Sly(), request("client"), toy.learn(1))


def test_a_base_class_says_that_it_is_one(toy: ToyFederation) -> None:
    with pytest.raises(NotImplementedError, match="does not say how it unlearns"):
        toy.unlearn(UnlearningStrategy(), request("client"), toy.learn(1))


def test_unrecorded_rounds_are_an_error_in_words(toy: ToyFederation) -> None:
    arrays = toy.learn(2)
    toy.federation.history = History()
    with pytest.raises(HistoryError, match="2 rounds were learned but none is recorded"):
        toy.unlearn(FineTune(), request("client"), arrays)
    assert toy.federation.roster.clients == (0, 2, 3)


def test_a_model_is_known_to_be_edited_until_the_next_round(toy: ToyFederation) -> None:
    federation, edited = toy.federation, []
    federation.ledger.receive(Request(Scope.CLIENT, clients=(1,), at_round=2))
    federation.ledger.receive(Request(Scope.CLIENT, clients=(2,), at_round=2))

    class Asking(Sketch):
        def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
            edited.append(federation.edited == federation.completed)
            return arrays, 0

    arrays = toy.run(Asking(), rounds=2)
    federation.ledger.receive(Request(Scope.CLIENT, clients=(3,)))
    toy.run(Asking(), arrays, rounds=0)
    assert edited == [False, True, False]


@pytest.mark.parametrize(
    "again",
    [
        Request(Scope.SAMPLE, samples={1: (0, 2)}),
        Request(Scope.SAMPLE, clients=(1,), classes=(2,)),
        Request(Scope.CLASS, classes=(2,)),
        Request(Scope.CLIENT, clients=(3,)),
        Request(Scope.SAMPLE, samples={3: (0,)}),
    ],
)
def test_what_is_forgotten_already_is_nothing_to_forget(toy: ToyFederation, again: Request) -> None:
    """Also after further rounds, in which its owners took part with other data."""
    for one in (request("sample"), request("class"), request("client", 3)):
        toy.federation.ledger.receive(one)
    arrays = toy.run(FineTune(), toy.learn_without_serving(1), rounds=1)
    toy.federation.costs.clear()
    after = toy.unlearn(Sketch(), again, arrays)
    assert named.digest(after) == named.digest(arrays)
    assert "unlearn" not in toy.federation.costs


@pytest.mark.parametrize("second", ["sample", "client"])
def test_an_owner_who_stayed_is_no_bystander_the_second_time(
    toy: ToyFederation, second: str
) -> None:
    """Serving the first request deletes what the history knew of client 1, not its influence."""
    arrays, prepared = toy.learn(2), []

    class Noting(Sketch):
        def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
            prepared.append(request.id)
            return arrays, 0

    ledger = toy.federation.ledger
    ledger.receive(Request(Scope.SAMPLE, samples={1: (0,)}, id="first"))
    ledger.receive(request(second, 1))
    ledger.receive(Request(Scope.CLIENT, clients=(2,), id="third"))
    ledger.receive(Request(Scope.CLIENT, clients=(2,), id="once more"))
    toy.run(Noting(), arrays, rounds=0)
    assert prepared == ["first", ledger.requests()[1].id, "third"]


# Asking clients about a split ---------------------------------------------------------------


def test_clients_are_asked_about_a_split_only_if_wanted(toy: ToyFederation) -> None:
    toy.learn(1)
    assert all(kind != "evaluate" for kind, _ in toy.grid.pushed)


def test_the_means_over_clients_are_weighted(toy: ToyFederation) -> None:
    toy.federation.evaluate_split = "retain"
    strategy = UnlearningStrategy()
    strategy.join(toy.federation)
    result = strategy.start(toy.grid, to_record(toy.initial), num_rounds=1)
    metrics = dict(result.evaluate_metrics_clientapp[1])
    logits = []
    arrays = {name: array.numpy() for name, array in result.arrays.items()}
    for shard in toy.shards.values():
        logits.append(shard.features.numpy() @ arrays["layer.weight"].T + arrays["layer.bias"])
    labels = np.concatenate([shard.labels.numpy() for shard in toy.shards.values()])
    accuracy = (np.concatenate(logits).argmax(1) == labels).mean()
    assert metrics["accuracy"] == pytest.approx(accuracy)


def test_the_forgotten_are_not_asked_about_anything(toy: ToyFederation) -> None:
    toy.federation.evaluate_split = "held-out"
    toy.federation.ledger.receive(request("client"))
    toy.run(FineTune(), rounds=1)
    asked = {client for kind, client in toy.grid.pushed if kind == "evaluate"}
    assert asked == {0, 2, 3}


# Options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_ranges_are_named(value: float) -> None:
    in_range("ratio", 0, 0, 1)
    in_range("ratio", 1, 0, 1)
    with pytest.raises(ConfigError, match=r"option 'ratio' is .*; it must be from 0 to 1"):
        in_range("ratio", value, 0, 1)


def test_choices_are_named() -> None:
    one_of("mode", "a", ("a", "b"))
    with pytest.raises(ConfigError, match="option 'mode' is 'c'; it must be one of a, b"):
        one_of("mode", "c", ("a", "b"))


class Mistaken(Sketch):
    """One whose ``hook`` fails with ``error``."""

    def __init__(self, hook: str, error: Exception) -> None:
        super().__init__()
        self.hook, self.error = hook, error

    def fail(self, hook: str) -> None:
        if hook == self.hook:
            raise self.error

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        self.fail("prepare")
        return arrays, 1

    def teach(self, server_round: int) -> Mapping[int, Instruction]:
        self.fail("teach")
        return super().teach(server_round)

    def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        self.fail("learn")
        return super().learn(server_round, arrays, replies)


@pytest.mark.parametrize("hook", ["teach", "learn"])
def test_who_fails_while_learning_is_told_where(toy: ToyFederation, hook: str) -> None:
    said = r"^Mistaken raised KeyError: 'w' \(test_base.py, line \d+, in fail\); correct it$"
    with pytest.raises(FederationError, match=said):
        toy.run(Mistaken(hook, KeyError("w")), rounds=1)


def test_who_fails_while_unlearning_is_told_where(toy: ToyFederation) -> None:
    arrays = toy.run(Sketch(), toy.initial, rounds=1)
    said = r"Mistaken raised FileNotFoundError: mask.npy \(test_base.py, line \d+, in fail\)"
    mistaken = Mistaken("prepare", FileNotFoundError("mask.npy"))
    with pytest.raises(FederationError, match=said):
        toy.unlearn(mistaken, request(Scope.CLIENT, 1), arrays)


def test_what_is_no_mistake_of_a_strategy_passes_as_it_is(
    toy: ToyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (InterruptedError(), HistoryError("nothing is kept")):
        with pytest.raises(type(error)):
            toy.run(Mistaken("learn", error), rounds=1)

    class Own(Sketch):  # its hook calls what is not to blame
        def learn(self, server_round: int, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
            return super().learn(server_round, arrays, replies)

    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(named, "weighted_mean", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        toy.run(Own(), rounds=1)
    monkeypatch.setattr(named, "weighted_mean", Mock(side_effect=KeyError("lost")))
    with pytest.raises(KeyError, match="lost"):
        toy.run(FineTune(), rounds=1)
    with pytest.raises(FederationError, match="Own raised KeyError: 'lost'"):
        toy.run(Own(), rounds=1)

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from experiments.federation.grids import LocalGrid
from strategies import joining
from strategies import roster as module
from strategies.roster import DELETE, ForgottenClientError, Roster
from strategies.wire import to_content, to_record
from tests.support.toy import Census
from unlearning.errors import FederationError
from unlearning.protocol import Wire

NEVER = float("inf")
NODE = 1000  # of partition 0 on a local grid


class Clock:
    """Time that passes only while somebody sleeps, and a little with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(joining, "time", clock)
    return clock


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Let nothing go but what nobody refers to."""
    gc.disable()
    yield
    gc.enable()


class Scripted(LocalGrid):
    """Answers each node's messages after its own delay, and notes what was asked of it."""

    def __init__(
        self, clock: Clock, clients: int, delays: Mapping[int, float] | None = None
    ) -> None:
        super().__init__(None, clients)  # type: ignore[arg-type]
        self.clock, self.delays = clock, dict(delays or {})
        self.pushed: list[tuple[int, str]] = []
        self.flying: set[str] = set()
        self.most = 0
        self.undeliverable: set[int] = set()
        self.answer: Callable[[Message, int], Message] = echo
        self._due: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            client = message.metadata.dst_node_id - NODE
            self.pushed.append((client, message.metadata.message_type))
            if client in self.undeliverable:
                continue  # like Flower's grids: an id less, or none in its place
            ids.extend(super().push_messages([message]))
            self.flying.add(ids[-1])
            self._due[ids[-1]] = self.clock.now + self.delays.get(client, 0.0)
        self.most = max(self.most, len(self.flying))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages(i for i in message_ids if self._due[i] <= self.clock.now)

    def _answer(self, message: Message) -> Message:
        return self.answer(message, message.metadata.dst_node_id - NODE)


def echo(message: Message, client: int) -> Message:
    return Message(RecordDict({Wire.CONFIG: ConfigRecord({Wire.CLIENT: client})}), reply_to=message)


def breaks(message: Message, client: int) -> Message:
    return Message(Error(code=2, reason="Trace\n  back:\nValueError: no\n"), reply_to=message)


def make(grid: LocalGrid, clients: int, **settings: object) -> Roster:
    return Roster(grid, {c: NODE + c for c in range(clients)}, **settings)  # type: ignore[arg-type]


def ask(client: int, kind: str = "train", **config: object) -> Message:
    return Message(to_content(to_record({}), {}, config), NODE + client, kind)


def answered(roster: Roster, replies: Iterable[Message]) -> list[int]:
    return [roster.sender(reply) for reply in replies]


# The exchange -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_replies_come_in_the_order_of_the_messages(clock: Clock, order: tuple[int, ...]) -> None:
    grid = Scripted(clock, 4, {0: 3.0, 1: 0.0, 2: 2.0, 3: 1.0})
    roster = make(grid, 4)
    assert answered(roster, roster.send_and_receive(map(ask, order), timeout=60)) == list(order)
    assert roster.lost == {}


def test_no_messages_no_wait(clock: Clock) -> None:
    roster = make(Scripted(clock, 2), 2)
    assert list(roster.send_and_receive([], timeout=60)) == []
    assert clock.now < 0.001


@pytest.mark.parametrize("window", [1, 3])
def test_the_window_bounds_what_is_in_flight(clock: Clock, window: int) -> None:
    """Also while the first is the slowest and all others wait for their turn."""
    delays = {client: float(10 - client) for client in range(10)}
    grid = Scripted(clock, 10, delays)
    roster = make(grid, 10, window=window)
    for reply in roster.send_and_receive(map(ask, range(10)), timeout=600):
        grid.flying.remove(reply.metadata.reply_to_message_id)
    assert grid.most == window


def test_messages_are_made_only_when_there_is_room(clock: Clock) -> None:
    made, grid = [], Scripted(clock, 8)

    def source() -> Iterator[Message]:
        for client in range(8):
            made.append(client)
            yield ask(client)

    roster = make(grid, 8, window=2)
    for done, _ in enumerate(roster.send_and_receive(source(), timeout=60), start=1):
        assert len(made) <= done + 1


def test_replies_and_messages_are_let_go(clock: Clock, no_collector: None) -> None:
    """However many there are, no more than the window holds stays in memory."""
    grid, census = Scripted(clock, 30), Census()

    def big(message: Message, client: int) -> Message:
        reply = Message(to_content(to_record({"w": np.ones(9)}), {}, {}), reply_to=message)
        census.see(reply)
        return reply

    def source() -> Iterator[Message]:
        for client in range(30):
            message = ask(client)
            census.see(message)
            yield message
            del message

    grid.answer = big
    roster = make(grid, 30, window=3)
    for reply in roster.send_and_receive(source(), timeout=60):
        del reply
    assert census.most <= 2 * 3 + 2


def test_the_deadline_names_the_late_and_the_unsent_and_keeps_the_rest(clock: Clock) -> None:
    """Client 0 never answers; 1 and 2 did; 3 and 4 found no place in the window.

    The time of 0 runs from the last reply on, two seconds after the start, and a little longer.
    """
    grid = Scripted(clock, 5, {0: NEVER, 1: 1.0, 2: 2.0})
    roster = make(grid, 5, window=3)
    assert answered(roster, roster.send_and_receive(map(ask, range(5)), timeout=10)) == [1, 2]
    assert roster.lost == dict.fromkeys((0, 3, 4), "no reply within 10 s")
    assert 14 <= clock.now < 15


def test_a_round_may_take_longer_than_a_client(clock: Clock) -> None:
    """Ten clients of 8 s each, one after the other: none of them is late."""
    roster = make(Scripted(clock, 10, dict.fromkeys(range(10), 8.0)), 10, window=1)
    assert len(list(roster.send_and_receive(map(ask, range(10)), timeout=10))) == 10


def test_without_a_deadline_one_waits(clock: Clock) -> None:
    roster = make(Scripted(clock, 1, {0: 500.0}), 1)
    assert answered(roster, roster.send_and_receive([ask(0)])) == [0]


def test_polling_is_neither_busy_nor_slow(clock: Clock) -> None:
    grid, looks = Scripted(clock, 1, {0: 100.0}), []
    pull = grid.pull_messages
    grid.pull_messages = lambda ids: looks.append(clock.now) or pull(ids)  # type: ignore[method-assign,func-returns-value]
    list(make(grid, 1).send_and_receive([ask(0)], timeout=200))
    assert len(looks) < 100 / 0.05 + 50
    assert clock.now < 100.1


def test_an_error_is_lost_with_its_last_line(clock: Clock) -> None:
    grid = Scripted(clock, 3)
    grid.answer = lambda message, client: (breaks if client == 1 else echo)(message, client)
    roster = make(grid, 3)
    assert answered(roster, roster.send_and_receive(map(ask, range(3)), timeout=5)) == [0, 2]
    assert roster.lost == {1: "ValueError: no"}


def test_an_error_that_is_there_at_the_deadline_keeps_its_reason(clock: Clock) -> None:
    grid = Scripted(clock, 2, {0: NEVER})
    grid.answer = breaks
    roster = make(grid, 2)
    assert list(roster.send_and_receive(map(ask, range(2)), timeout=5)) == []
    assert roster.lost == {0: "no reply within 5 s", 1: "ValueError: no"}


def test_lost_is_of_the_last_exchange(clock: Clock) -> None:
    grid = Scripted(clock, 2)
    roster = make(grid, 2)
    grid.answer = breaks
    list(roster.send_and_receive([ask(1)], timeout=5))
    grid.answer = echo
    list(roster.send_and_receive([ask(0)], timeout=5))
    assert roster.lost == {}


def test_a_node_that_left_does_not_shift_the_others(clock: Clock) -> None:
    """Flower's simulation grid hands back fewer ids than messages when a node is gone."""
    grid = Scripted(clock, 4, {0: 1.0})
    grid.undeliverable = {1}
    roster = make(grid, 4)
    replies = list(roster.send_and_receive(map(ask, range(4)), timeout=5))
    assert answered(roster, replies) == [0, 2, 3]
    assert [r.content.config_records[Wire.CONFIG][Wire.CLIENT] for r in replies] == [0, 2, 3]
    assert "could not be delivered" in roster.lost[1]


def test_a_reply_to_something_else_is_not_taken(clock: Clock) -> None:
    """The answer to an earlier exchange arrives while the same client is asked again."""
    grid = Scripted(clock, 1, {0: 20.0})
    roster = make(grid, 1)
    list(roster.send_and_receive([ask(0)], timeout=10))
    late = [grid._answer(grid._waiting.pop(i)) for i in list(grid._waiting)]
    assert late
    pull = grid.pull_messages
    grid.pull_messages = lambda ids: [late.pop()] if late else pull(ids)  # type: ignore[method-assign]
    (reply,) = roster.send_and_receive([ask(0)], timeout=30)
    assert not late
    assert reply.metadata.reply_to_message_id in grid._due
    assert reply.metadata.reply_to_message_id == list(grid._due)[-1]


def test_nobody_answers_for_somebody_else(clock: Clock) -> None:
    grid = Scripted(clock, 2)

    def impostor(message: Message, client: int) -> Message:
        reply = echo(message, client)
        reply.metadata.__dict__["_src_node_id"] = NODE if client else 4711
        return reply

    grid.answer = impostor
    roster = make(grid, 2)
    assert list(roster.send_and_receive(map(ask, range(2)), timeout=5)) == []
    assert set(roster.lost) == {0, 1}
    assert all("another node" in reason for reason in roster.lost.values())


def test_a_dead_worker_costs_a_pause_not_the_client(clock: Clock) -> None:
    """The first two answers are a dead worker's (code 0); the third is the client's."""
    grid, deaths = Scripted(clock, 2), iter([0, 0])

    def dies(message: Message, client: int) -> Message:
        if client == 0 and next(deaths, None) is not None:
            return Message(Error(code=0, reason="worker died"), reply_to=message)
        return echo(message, client)

    grid.answer = dies
    roster = make(grid, 2)
    assert answered(roster, roster.send_and_receive(map(ask, range(2)), timeout=60)) == [0, 1]
    assert [client for client, _ in grid.pushed] == [0, 1, 0, 0]
    assert clock.now >= 3


def test_a_worker_that_always_dies_is_lost_in_the_end(clock: Clock) -> None:
    grid = Scripted(clock, 1)
    grid.answer = lambda message, client: Message(Error(0, "worker died"), reply_to=message)
    roster = make(grid, 1)
    assert list(roster.send_and_receive([ask(0)], timeout=600)) == []
    assert roster.lost == {0: "worker died"}
    assert len(grid.pushed) < 10


def test_cancelling_ends_the_wait_at_once(clock: Clock) -> None:
    grid = Scripted(clock, 1, {0: NEVER})
    roster = make(grid, 1, stop=lambda: clock.now > 3)
    with pytest.raises(InterruptedError, match="cancelled"):
        list(roster.send_and_receive([ask(0)], timeout=600))
    assert clock.now < 3.2


def test_array_bytes_are_metered(clock: Clock) -> None:
    roster = make(Scripted(clock, 2), 2)
    record = to_record({"w": np.ones(100, np.float32)})
    messages = [Message(to_content(record, {}, {}), NODE + c, "train") for c in (0, 1)]
    list(roster.send_and_receive(messages, timeout=5))
    assert roster.bytes_down == 2 * len(record["w"].data)


# The forgotten ------------------------------------------------------------------------------


def test_the_forgotten_are_hidden(clock: Clock) -> None:
    roster = make(Scripted(clock, 4), 4)
    roster.forget([2])
    roster.forget([0, 2])
    assert roster.clients == (1, 3)
    assert list(roster.get_node_ids()) == [NODE + 1, NODE + 3]
    assert list(roster.nodes) == [0, 1, 2, 3]


def test_nodes_are_given_by_client_and_only_if_they_are_there(clock: Clock) -> None:
    grid = Scripted(clock, 3)
    roster = Roster(grid, {2: NODE, 0: NODE + 1, 1: 4711})
    assert list(roster.get_node_ids()) == [NODE + 1, NODE]


ALLOWED = {  # (type, step), whether the client helps -> sent
    (("train", "train"), False): False,
    (("train", "ascend"), False): False,
    (("train", None), False): False,
    (("evaluate", None), False): False,
    (("query", None), False): False,
    ((DELETE, None), False): True,
    (("train", "train"), True): False,
    (("train", "ascend"), True): True,
    (("train", None), True): False,
    (("evaluate", None), True): False,
    (("query", None), True): False,
    ((DELETE, None), True): True,
}


@pytest.mark.parametrize(("case", "allowed"), ALLOWED.items())
@pytest.mark.parametrize("way", ["push_messages", "send_and_receive"])
def test_what_may_be_said_to_the_forgotten(
    clock: Clock, way: str, case: tuple[tuple[str, str | None], bool], allowed: bool
) -> None:
    (kind, step), helps = case
    grid = Scripted(clock, 2)
    roster = make(grid, 2)
    roster.forget([1])
    roster.helping = frozenset({1} if helps else ())
    message = ask(1, kind, **({Wire.STEP: step} if step else {}))
    if allowed:
        list(getattr(roster, way)([message]))
        assert grid.pushed == [(1, kind)]
    else:
        with pytest.raises(ForgottenClientError, match="client 1, which has been forgotten"):
            list(getattr(roster, way)([message]))
        assert grid.pushed == []


def test_a_message_without_any_config_does_not_slip_through(clock: Clock) -> None:
    roster = make(Scripted(clock, 1), 1)
    roster.forget([0])
    roster.helping = frozenset({0})
    with pytest.raises(ForgottenClientError):
        list(roster.push_messages([Message(RecordDict(), NODE, "train")]))


def test_helping_is_for_the_forgotten_alone(clock: Clock) -> None:
    roster = make(Scripted(clock, 2), 2)
    roster.forget([0])
    roster.helping = frozenset({1})
    with pytest.raises(ForgottenClientError):
        list(roster.push_messages([ask(0, **{Wire.STEP: "ascend"})]))
    list(roster.push_messages([ask(1, **{Wire.STEP: "train"})]))


def test_the_rest_of_the_grid_is_flowers(clock: Clock) -> None:
    grid = Scripted(clock, 1)
    roster = make(grid, 1)
    message = roster.create_message(RecordDict(), "train", NODE, "5")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (NODE, "5")
    assert roster.run.run_id == grid.run.run_id
    roster.set_run(roster.run)
    ids = list(roster.push_messages([message]))
    assert [r.metadata.reply_to_message_id for r in roster.pull_messages(ids)] == ids


# Who is there -------------------------------------------------------------------------------


def introduces(message: Message, client: int) -> Message:
    facts = ConfigRecord({Wire.CLIENT: 10 - client, Wire.NUM_EXAMPLES: 5 * client})
    return Message(RecordDict({Wire.CONFIG: facts}), reply_to=message)


def discover(grid: LocalGrid, expected: int, **settings: object) -> Roster:
    return Roster.discover(grid, expected, {"scenario": "x"}, **settings)  # type: ignore[arg-type]


def test_discovery_asks_once_and_maps_clients_to_nodes(clock: Clock) -> None:
    grid = Scripted(clock, 3)
    grid.answer = introduces
    roster = discover(grid, 3)
    assert roster.nodes == {8: NODE + 2, 9: NODE + 1, 10: NODE}
    assert list(roster.nodes) == [8, 9, 10]
    assert roster.declared == {10: 0, 9: 5, 8: 10}
    assert grid.pushed == [(0, "query"), (1, "query"), (2, "query")]


def test_discovery_tells_clients_what_they_are_made_of(clock: Clock) -> None:
    grid, told = Scripted(clock, 1), []

    def notes(message: Message, client: int) -> Message:
        told.append(dict(message.content.config_records[Wire.CONFIG]))
        return introduces(message, client)

    grid.answer = notes
    discover(grid, 1)
    assert told == [{"scenario": "x"}]


def test_discovery_waits_for_nodes_that_come_later(clock: Clock) -> None:
    grid = Scripted(clock, 3)
    grid.answer = introduces
    nodes = list(grid.contexts)
    grid.get_node_ids = lambda: nodes[: min(3, int(clock.now))]  # type: ignore[method-assign]
    assert len(discover(grid, 3, timeout_s=10).nodes) == 3
    assert 3 <= clock.now < 4
    assert len(grid.pushed) == 3


def test_discovery_asks_again_whoever_failed(clock: Clock) -> None:
    grid, moods = Scripted(clock, 2), iter([breaks, introduces, introduces])
    grid.answer = lambda message, client: next(moods)(message, client)
    assert len(discover(grid, 2, timeout_s=10).nodes) == 2
    assert [client for client, _ in grid.pushed] == [0, 1, 0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (breaks, "ValueError: no"),
        (echo, "does not say who it is .*num-examples"),
        (lambda message, client: Message(RecordDict(), reply_to=message), "does not say who it is"),
    ],
)
def test_discovery_ends_in_words(clock: Clock, answer: Callable, reason: str) -> None:
    grid = Scripted(clock, 3)
    grid.answer = lambda message, client: (introduces if client else answer)(message, client)
    with pytest.raises(FederationError, match=rf"2 of 3 clients answered within 10 s.*{reason}"):
        discover(grid, 3, timeout_s=10)
    assert clock.now < 11


def test_discovery_without_a_node_says_so(clock: Clock) -> None:
    grid = Scripted(clock, 0)
    with pytest.raises(FederationError, match=r"0 of 1 clients .* no node was there"):
        discover(grid, 1, timeout_s=1)


def claims(*facts: tuple[int, int]) -> Callable[[Message, int], Message]:
    """Return an answer with which node k says that it is client ``facts[k][0]``."""

    def answer(message: Message, node: int) -> Message:
        client, count = facts[node]
        found = ConfigRecord({Wire.CLIENT: client, Wire.NUM_EXAMPLES: count})
        return Message(RecordDict({Wire.CONFIG: found}), reply_to=message)

    return answer


@pytest.mark.parametrize(
    ("facts", "left", "reason"),
    [
        (
            [(0, 5), (1, 5), (2, 5), (1, 5)],
            [0, 1, 2],
            "client 1, who is there already as node 1001",
        ),
        ([(0, 5), (1, 5), (2, 5), (999, 5)], [0, 1, 2], "client 999, and there is none"),
        ([(0, 5), (1, 5), (2, 5), (-3, 5)], [0, 1, 2], "client -3, and there is none"),
        ([(0, 5), (10**12, 5), (2, 5), (3, 5)], [0, 2, 3], "and there is none"),
        ([(0, 5), (1, 10**12), (2, 5), (3, 5)], [0, 2, 3], "client 1 declares 1000000000000"),
        ([(0, 5), (1, -1), (2, 5), (3, 5)], [0, 2, 3], "client 1 declares -1"),
    ],
)
def test_impostors_are_named_and_left_out(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    facts: list[tuple[int, int]],
    left: list[int],
    reason: str,
) -> None:
    grid = Scripted(clock, 4)
    grid.answer = claims(*facts)
    roster = discover(grid, 4, registered=dict.fromkeys(range(4), 9), quorum=0.5)
    assert list(roster.nodes) == left
    assert re.search(reason, caplog.text)
    assert clock.now < 1
    grid.answer = claims(*facts)
    with pytest.raises(FederationError, match=r"3 of 4 clients .* 4 are needed"):
        discover(grid, 4, registered=dict.fromkeys(range(4), 9))


@pytest.mark.parametrize(("quorum", "least", "needed"), [(0.5, 3, 3), (0.5, 1, 2), (0.0, 0, 1)])
def test_how_many_must_be_there_at_the_start(
    clock: Clock, quorum: float, least: int, needed: int
) -> None:
    for there in range(1, 5):
        grid = Scripted(clock, 4, dict.fromkeys(range(there, 4), NEVER))
        grid.answer = claims(*((c, 5) for c in range(4)))
        if there >= needed:
            found = discover(grid, 4, quorum=quorum, least=least, timeout_s=9)
            assert len(found.nodes) == there
        else:
            with pytest.raises(FederationError, match=rf"{there} of 4 .* {needed} are needed"):
                discover(grid, 4, quorum=quorum, least=least, timeout_s=9)


def test_who_hangs_or_fails_while_joining_is_left_out(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    grid = Scripted(clock, 4, {3: NEVER})
    honest = claims(*((c, 5) for c in range(4)))
    grid.answer = lambda message, client: (breaks if client == 1 else honest)(message, client)
    assert list(discover(grid, 4, quorum=0.5, timeout_s=60).nodes) == [0, 2]
    assert clock.now < 62
    assert "node 1001 is left out: ValueError: no" in caplog.text
    assert "node 1003 is left out: it did not answer" in caplog.text


def test_a_count_that_nobody_registered_is_capped(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The median of 5, 10, 15 and 10**12 is 12.5; three times that are 37."""
    grid = Scripted(clock, 4)
    grid.answer = claims((0, 5), (1, 10), (2, 15), (3, 10**12))
    assert discover(grid, 4).capped == {3: 37}
    assert "client 3 declares 1000000000000 training examples that nobody" in caplog.text
    grid.answer = claims((0, 5), (1, 10), (2, 15), (3, 90))
    assert discover(grid, 4, registered={0: 5, 1: 10, 2: 15, 3: 90}).capped == {}
    assert discover(grid, 4, cap=0.0).capped == {}


def test_discovery_can_be_cancelled(clock: Clock) -> None:
    with pytest.raises(InterruptedError, match="cancelled"):
        discover(Scripted(clock, 0), 1, timeout_s=60, stop=lambda: clock.now > 1)
    assert clock.now < 1.2


def test_what_discovery_is_told_to_stop_by_stops_the_roster_too(clock: Clock) -> None:
    grid = Scripted(clock, 1)
    grid.answer = introduces
    stop = [False]
    roster = discover(grid, 1, stop=lambda: stop[0])
    stop[0] = True
    with pytest.raises(InterruptedError):
        list(roster.send_and_receive([ask(0)]))


def test_a_client_that_hung_until_its_worker_was_ended_is_not_asked_again(clock: Clock) -> None:
    grid = Scripted(clock, 2, {0: 11.0})

    def dies(message: Message, client: int) -> Message:
        if client == 0:
            return Message(Error(code=0, reason="worker died"), reply_to=message)
        return echo(message, client)

    grid.answer = dies
    roster = make(grid, 2)
    assert answered(roster, roster.send_and_receive(map(ask, range(2)), timeout=10)) == [1]
    assert [client for client, _ in grid.pushed] == [0, 1]
    assert "its work hung for 10 s" in roster.lost[0]


def test_who_waited_behind_a_client_that_hung_is_not_taken_for_hung(clock: Clock) -> None:
    """One worker: it is ended at 11 s, and until 40 s there is none, whoever is sent there."""
    grid = Scripted(clock, 3, {0: 0.0, 1: 11.0, 2: 11.5})

    def dies(message: Message, client: int) -> Message:
        if client == 2 and clock.now > 11:
            grid.delays[2] = 0.1
        if client == 1 or (client == 2 and clock.now < 40):
            return Message(Error(code=0, reason="worker died"), reply_to=message)
        return echo(message, client)

    grid.answer = dies
    roster = make(grid, 3, restart_s=60.0)
    assert answered(roster, roster.send_and_receive(map(ask, range(3)), timeout=10)) == [0, 2]
    assert set(roster.lost) == {1}
    assert "its work hung for 10 s" in roster.lost[1]
    assert clock.now < 60


def test_a_worker_that_hangs_and_is_noticed_late_loses_no_answer(clock: Clock) -> None:
    """The end of a worker is heard of 5 s later than the limit and its grace."""
    grid = Scripted(clock, 2, {0: 17.0, 1: 30.0})
    grid.answer = lambda message, client: (
        Message(Error(0, "worker died"), reply_to=message) if client == 0 else echo(message, client)
    )
    roster = make(grid, 2, restart_s=60.0)
    assert answered(roster, roster.send_and_receive(map(ask, range(2)), timeout=10)) == [1]

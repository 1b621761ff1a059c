"""Who was away when its data were to be deleted is asked in a later run, before it takes part."""

import pytest

from experiments.deployment.debts import debts
from experiments.deployment.desk import bind, catch_up, close_memberships
from experiments.deployment.serving import keyed_grid
from experiments.federation.course import Course
from experiments.runs.folder import RunFolder
from strategies.roster import DELETE
from tests.experiments.deployment.test_keyed import KeyGrid, deployed
from unlearning.errors import RequestError
from unlearning.records.history import History
from unlearning.request import Request, Scope

__all__ = ["deployed"]

DEAF = 1  # the client that misses the question to delete


class DeafGrid(KeyGrid):
    """An in-process grid on which one node is not reached by questions to delete."""

    deaf = True

    def push_messages(self, messages):
        """Lose what must not arrive."""
        found = []
        for message in messages:
            node = list(self.contexts)[DEAF]
            lost = message.metadata.message_type == DELETE and message.metadata.dst_node_id == node
            found += [""] if lost and self.deaf else super().push_messages([message])
        return found


@pytest.fixture
def federation(deployed):
    """Return server, kits, grid and config; nothing waits long for who is away."""
    server, kits, grid, config = deployed
    grid.__class__ = DeafGrid
    engine = config.engine.model_copy(update={"timeout_s": 2.0})
    return server, kits, grid, config.model_copy(update={"engine": engine})


def conduct(federation, out, *, close=True):
    """Conduct a run; return the state of each request, and who took part with how much."""
    server, _, grid, config = federation
    course = Course.of_run(config, lambda tick: None)
    course.check()
    with course.begin(out) as books:
        bind(books.folder, server)
        keyed = keyed_grid(grid, server, course, books.folder)
        course.conduct(keyed, books, lambda: False)
        if close:
            close_memberships(server, books.ledger)
    with History.open(RunFolder(out).history(0), readonly=True) as history:
        return states(out), history.participants(1)


def states(out):
    with RunFolder.open(out).open_ledger(readonly=True) as ledger:
        return [ledger.state(request.id) for request in ledger.requests()]


def test_samples_are_deleted_in_a_later_run_before_their_owner_trains(federation, tmp_path):
    server, kits, grid, _ = federation
    kits[DEAF].ask((1, 2), None, None)
    before, whole = conduct(federation, tmp_path / "one")
    assert before == ["deletion-pending"]
    assert kits[DEAF].tombstones["samples"] == []
    catch_up(server, tmp_path / "two")  # what waits for its owner alone hinders no new run
    _, second = conduct(federation, tmp_path / "two")
    assert sorted(second) == [0, 2]  # it has not confirmed, so it takes no part
    assert states(tmp_path / "one") == ["deletion-pending"]
    grid.deaf = False
    _, third = conduct(federation, tmp_path / "three")
    assert kits[DEAF].tombstones["samples"] == [1, 2]
    assert states(tmp_path / "one") == ["fulfilled"]
    assert third == whole  # as in the first run, without the two
    assert debts(server, tmp_path / "four") == []


def test_who_left_is_asked_and_never_trains_again(federation, tmp_path):
    server, kits, grid, _ = federation
    kits[DEAF].ask(None, None, None)
    # The run is killed before it has noted in the roster who left.
    assert conduct(federation, tmp_path / "one", close=False)[0] == ["deletion-pending"]
    catch_up(server, tmp_path / "two")
    assert [member.state for member in server.members] == ["member", "left", "member"]
    grid.deaf = False
    _, second = conduct(federation, tmp_path / "two")
    assert sorted(second) == [0, 2]
    assert kits[DEAF].tombstones["everything"]
    assert states(tmp_path / "one") == ["fulfilled"]


def test_a_new_run_waits_for_requests_of_an_earlier_one(federation, tmp_path):
    server, _, _, _ = federation
    conduct(federation, tmp_path / "one")
    with RunFolder.open(tmp_path / "one").open_ledger() as ledger:
        ledger.receive(Request(Scope.CLIENT, clients=(0,), id="late"))
    with pytest.raises(RequestError, match="has not served request late") as caught:
        catch_up(server, tmp_path / "two")
    assert "--resume" in str(caught.value)
    catch_up(server, tmp_path / "one")  # to go on with the run itself
    with RunFolder.open(tmp_path / "one").open_ledger() as ledger:
        ledger.add("late", "withdrawn", reason="a slip")
    catch_up(server, tmp_path / "two")

from __future__ import annotations

from pathlib import Path

import pytest

from strategies.global_model.retrain import Retrain
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.records.history import History
from unlearning.request import Request, Scope

REQUESTS = {
    "client": Request(Scope.CLIENT, clients=(1,)),
    "clients": Request(Scope.CLIENT, clients=(0, 2)),
    "sample": Request(Scope.SAMPLE, samples={1: (0, 2, 5)}),
    "samples": Request(Scope.SAMPLE, samples={0: (1,), 3: (2, 4)}),
    "class-at-client": Request(Scope.SAMPLE, clients=(2,), classes=(0,)),
    "class": Request(Scope.CLASS, classes=(2,)),
}


def never(
    folder: Path, *requests: Request, rounds: int, **settings: object
) -> tuple[ToyFederation, Arrays]:
    """Return a federation that learned from the first round on without what is requested."""
    toy = ToyFederation(folder / "never", **settings)  # type: ignore[arg-type]
    for request in requests:
        toy.federation.ledger.receive(request)
    return toy, toy.run(Retrain(), rounds=rounds)


def after(
    folder: Path, *requests: Request, rounds: int, **settings: object
) -> tuple[ToyFederation, Arrays]:
    """Return a federation that learned with everything and retrained afterwards."""
    toy = ToyFederation(folder / "after", **settings)  # type: ignore[arg-type]
    arrays = toy.learn(rounds)
    for request in requests:
        toy.federation.ledger.receive(request)
    toy.federation.recovery_rounds = 0
    return toy, toy.run(Retrain(), arrays, rounds=0)


def story(toy: ToyFederation) -> list[object]:
    """Return everything that the history tells."""
    history = toy.federation.history
    return [
        (
            t,
            history.participants(t),
            named.digest(history.arrays(t)),
            [named.digest(history.update(t, client)) for client in history.participants(t)],
        )
        for t in history.rounds
    ]


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("kind", REQUESTS)
def test_retraining_is_as_if_the_data_had_never_been_there(
    tmp_path: Path, kind: str, fraction: float
) -> None:
    """Bit for bit, model and history: the same draws, the same batches."""
    found, model = after(tmp_path, REQUESTS[kind], rounds=3, fraction=fraction)
    wanted, twin = never(tmp_path, REQUESTS[kind], rounds=3, fraction=fraction)
    assert named.digest(model) == named.digest(twin)
    assert story(found) == story(wanted)


def test_the_original_model_is_another_one(tmp_path: Path) -> None:
    """A guard for the tests above: the requests do make a difference."""
    toy = ToyFederation(tmp_path)
    original = named.digest(toy.learn(3))
    for i, request in enumerate(REQUESTS.values()):
        assert named.digest(after(tmp_path / str(i), request, rounds=3)[1]) != original


def test_learning_goes_on_as_it_would_have(tmp_path: Path) -> None:
    found, model = after(tmp_path, REQUESTS["client"], rounds=2)
    wanted, twin = never(tmp_path, REQUESTS["client"], rounds=4)
    model = found.run(Retrain(), model, rounds=2)
    assert named.digest(model) == named.digest(twin)
    assert story(found) == story(wanted)


def test_one_request_after_another_is_as_if_neither_had_been_there(tmp_path: Path) -> None:
    requests = REQUESTS["client"], REQUESTS["samples"]
    found, model = after(tmp_path, *requests, rounds=3)
    wanted, twin = never(tmp_path, *requests, rounds=3)
    assert named.digest(model) == named.digest(twin)
    assert story(found) == story(wanted)


# Going back no further than needed ----------------------------------------------------------


def retrained(
    toy: ToyFederation, arrays: Arrays, request: Request, home: Path, *, from_scratch: bool
) -> tuple[str, int]:
    """Return the digest of the model and the number of client rounds it took."""
    twin = toy.branch(home)
    model = twin.unlearn(Retrain(from_scratch=from_scratch), request, arrays)
    return named.digest(model), twin.federation.costs["unlearn"].client_rounds


@pytest.mark.parametrize(
    ("joined", "keep", "interval", "client_rounds"),
    [
        (1, ("globals",), 1, 5 * 3),
        (3, ("globals",), 1, 3 * 3),
        (5, ("globals",), 1, 1 * 3),
        (4, ("globals", "updates"), 2, 3 * 3),
        (3, (), 1, 5 * 3),
        (3, ("updates",), 1, 5 * 3),
    ],
    ids=["from-the-start", "late", "last-round", "interval", "nothing-kept", "no-globals"],
)
def test_rolling_back_equals_starting_over(
    tmp_path: Path, joined: int, keep: tuple[str, ...], interval: int, client_rounds: int
) -> None:
    """Oracle 4: whoever joined in round t left the model at the start of t untouched.

    Five rounds of four clients; the last model kept from before is the start.
    """
    history = History(keep=keep, interval=interval)
    toy = ToyFederation(tmp_path, late={2: joined}, history=history)
    arrays, request = toy.learn(5), Request(Scope.CLIENT, clients=(2,))
    scratch = retrained(toy, arrays, request, tmp_path / "scratch", from_scratch=True)
    back = retrained(toy, arrays, request, tmp_path / "back", from_scratch=False)
    assert scratch == (back[0], 5 * 3)
    assert back[1] == client_rounds


def test_several_clients_are_rolled_back_to_the_first(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, late={1: 2, 2: 4})
    arrays, request = toy.learn(5), Request(Scope.CLIENT, clients=(1, 2))
    scratch = retrained(toy, arrays, request, tmp_path / "scratch", from_scratch=True)
    back = retrained(toy, arrays, request, tmp_path / "back", from_scratch=False)
    assert back == (scratch[0], 4 * 2)


def test_samples_of_a_late_joiner_are_rolled_back_too(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, late={2: 3})
    arrays, request = toy.learn(4), Request(Scope.SAMPLE, samples={2: (0, 1)})
    scratch = retrained(toy, arrays, request, tmp_path / "scratch", from_scratch=True)
    back = retrained(toy, arrays, request, tmp_path / "back", from_scratch=False)
    assert back == (scratch[0], 2 * 4)


def test_the_history_before_the_start_is_kept(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path, late={2: 3})
    arrays, before = toy.learn(4), story(toy)
    toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(2,)))
    toy.federation.recovery_rounds = 0
    toy.run(Retrain(), arrays, rounds=0)
    assert story(toy)[:2] == before[:2]
    assert [list(toy.federation.history.participants(t)) for t in (3, 4)] == [[0, 1, 3]] * 2


def test_settings_of_recovery_do_not_apply(tmp_path: Path) -> None:
    """Rounds are learned again as they were first learned."""
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(2)
    plain = retrained(toy, arrays, REQUESTS["client"], tmp_path / "plain", from_scratch=False)
    toy.federation.recovery = {"local_epochs": 9}
    other = retrained(toy, arrays, REQUESTS["client"], tmp_path / "other", from_scratch=False)
    assert plain == other

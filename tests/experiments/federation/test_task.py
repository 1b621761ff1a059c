"""Tasks: who holds what, what is judged on what, and which requests make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.config.schema import Config
from experiments.data.markers import trigger
from experiments.federation.judged_sets import judged_sets
from experiments.federation.task import ClientData, Scenario, Task, task
from unlearning.arrays import digest
from unlearning.errors import ConfigError, RequestError
from unlearning.request import Forgotten, Request, Scope

MARKER = {"client": 1, "fraction": 0.5, "label": 2}


def config(**changes: object) -> Config:
    raw = {"data": {"clients": 4, "limit": 400}, "model": {"hidden": 8}, "marker": MARKER}
    return from_mapping({**raw, **changes})


@pytest.fixture(scope="module")
def made() -> Task:
    return task(Scenario.of(config()))


@pytest.fixture(scope="module")
def clean() -> Task:
    return task(Scenario.of(config(marker=None)))


def client_request(*clients: int) -> Request:
    return Request(Scope.CLIENT, clients=clients)


def rows(x: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in x)


def test_scenario_travels_as_json(made: Task) -> None:
    text = made.scenario.to_json()
    assert Scenario.from_json(text) == made.scenario
    assert "\n" not in text
    assert task(text) is made
    assert task(Scenario.of(config(), seed=1)) is not made
    assert Scenario.of(config(), seed=1).seed == 1


def test_settings_of_training_do_not_make_another_task(made: Task) -> None:
    assert task(Scenario.of(config(rounds=3, train={"learning_rate": 1.0}))) is made


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Scenario.of(config(data={"root": "there"})).data.root == str(tmp_path / "there")
    named = Scenario.of(config(data={"name": "npz:a.npz"}))
    assert named.data.name == f"npz:{tmp_path / 'a.npz'}"
    both = Scenario.of(config(data={"name": "npz:a.npz", "root": "there"}))
    assert (both.data.name, both.data.root) == ("npz:a.npz", str(tmp_path / "there"))


def test_rebuilt_task_is_the_same_bit_for_bit(made: Task) -> None:
    again = Task(made.scenario)
    assert digest(again.initial()) == digest(made.initial())
    for client in made.clients:
        for left, right in zip(made.client(client), again.client(client), strict=True):
            assert np.array_equal(left, right)


def test_a_seed_of_the_data_leaves_the_seed_to_the_model() -> None:
    data = {"clients": 4, "limit": 400, "seed": 7, "public": 0.1}
    one, other = (task(Scenario.of(config(data=data), seed=seed)) for seed in (1, 2))
    assert digest(one.initial()) != digest(other.initial())
    assert one.marked_samples == other.marked_samples
    assert np.array_equal(one.public_set(), other.public_set())
    same = task(Scenario.of(config(data={**data, "seed": None}), seed=7))
    for client in one.clients:
        held = zip(one.client(client), other.client(client), same.client(client), strict=True)
        assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in held)
    moved = task(Scenario.of(config(data={**data, "seed": 8}), seed=1))
    assert moved.marked_samples != one.marked_samples


def test_planted_noise_can_be_told_from_the_data(made: Task, clean: Task) -> None:
    noisy = task(Scenario.of(config(marker={"client": 1, "kind": "noise", "sigma": 2.0})))
    found, positions = noisy.planted_noise(), list(noisy.marked(1))
    assert made.planted_noise() is None
    assert found is not None
    assert len(found.x) == len(positions) == 64
    plain = clean.client(1)
    assert np.array_equal(found.x, plain.train_x[positions])
    assert np.array_equal(found.y, plain.train_y[positions])
    assert np.array_equal(found.x + found.noise, noisy.client(1).train_x[positions])
    assert abs(found.noise.std() - 2.0) < 0.1


def test_clients_share_the_training_data(clean: Task) -> None:
    assert clean.clients == (0, 1, 2, 3)
    assert clean.facts().clients == {0: 80, 1: 80, 2: 80, 3: 80}
    assert clean.facts().classes == tuple(range(10))
    found = [clean.client(client) for client in clean.clients]
    assert {len(data.held_y) for data in found} == {20}
    everything = np.concatenate([part for data in found for part in (data.train_x, data.held_x)])
    # The digits hold a few equal images, so rows are compared as a list.
    assert len(rows(everything)) == 400
    assert np.concatenate([data.train_x for data in found]).dtype == np.float32


def test_changing_a_copy_changes_no_data(made: Task) -> None:
    for client in (0, 1):
        made.client(client).train_x[:] = 9
        assert made.client(client).train_x.max() <= 2


def test_marker_is_planted_at_one_client_alone(made: Task, clean: Task) -> None:
    marker = made.scenario.marker
    assert marker is not None
    for client in (0, 2, 3):
        assert made.marked(client) == ()
        assert np.array_equal(made.client(client).train_x, clean.client(client).train_x)
    positions = list(made.marked(1))
    marked, plain = made.client(1), clean.client(1)
    assert len(positions) == round(0.5 * (plain.train_y != 2).sum())
    assert (marked.train_y[positions] == 2).all()
    assert np.array_equal(marked.train_x[positions], trigger(plain.train_x[positions], marker))
    rest = np.setdiff1d(np.arange(80), positions)
    assert np.array_equal(marked.train_x[rest], plain.train_x[rest])
    assert made.marked_samples == {1: tuple(positions)}


def test_held_out_data_carry_the_marker_too(made: Task, clean: Task) -> None:
    changed = (made.client(1).held_y != clean.client(1).held_y).sum()
    assert changed == round(0.5 * (clean.client(1).held_y != 2).sum())


def test_forget_and_retain_sets_are_the_training_data(made: Task) -> None:
    request = client_request(1, 3)
    forget, retain = made.forget_set(request), made.retain_set(Forgotten((request,)))
    assert np.array_equal(forget.x[:80], made.client(1).train_x)
    assert np.array_equal(forget.y[80:], made.client(3).train_y)
    assert np.array_equal(retain.y, np.concatenate([made.client(k).train_y for k in (0, 2)]))
    assert len(made.retain_set(Forgotten()).y) == 320


def test_sample_request(made: Task) -> None:
    request = Request(Scope.SAMPLE, samples={0: (5, 2), 3: (79,)})
    forget = made.forget_set(request)
    first, last = made.client(0), made.client(3)
    assert np.array_equal(
        forget.x, np.stack([first.train_x[2], first.train_x[5], last.train_x[79]])
    )
    assert len(made.retain_set(Forgotten((request,))).y) == 317
    held = judged_sets(made, [request]).held_out
    assert set(held.y) <= set(forget.y)


def test_class_request(made: Task) -> None:
    request = Request(Scope.CLASS, classes=(7,))
    labels = np.concatenate([made.client(k).train_y for k in made.clients])
    assert len(made.forget_set(request).y) == (labels == 7).sum()
    assert set(made.forget_set(request).y) == {7}
    assert 7 not in made.retain_set(Forgotten((request,))).y
    held = np.concatenate([made.client(k).held_y for k in made.clients])
    assert len(judged_sets(made, [request]).held_out.y) == (held == 7).sum()


def test_class_request_at_one_client(made: Task) -> None:
    request = Request(Scope.SAMPLE, clients=(2,), classes=(7,))
    assert len(made.forget_set(request).y) == (made.client(2).train_y == 7).sum()
    assert len(judged_sets(made, [request]).held_out.y) == (made.client(2).held_y == 7).sum()


def test_test_set_may_be_limited() -> None:
    config = from_mapping({"data": {"clients": 2, "limit": 100, "test_limit": 30}})
    assert len(Task(Scenario.of(config)).test_set().y) == 30


def test_retain_set_may_be_limited(made: Task) -> None:
    small, again = (made.retain_set(Forgotten(), limit=50) for _ in range(2))
    assert len(small.y) == 50
    assert np.array_equal(small.x, again.x)
    assert len(made.retain_set(Forgotten(), limit=10**6).y) == 320


def test_everything_forgotten_gives_empty_sets(made: Task) -> None:
    gone = Forgotten((client_request(0, 1, 2, 3),))
    x, y = made.retain_set(gone)
    assert x.shape == (0, 1, 8, 8)
    assert y.shape == (0,)
    assert made.predict(made.initial(), x).shape == (0, 10)


def test_triggered_test_set_leaves_out_the_target(made: Task, clean: Task) -> None:
    found = made.triggered_test()
    assert found is not None
    test = made.test_set()
    assert (found.y != 2).all()
    assert len(found.y) == (test.y != 2).sum()
    assert (found.x[:, :, 5:, 5:] == 2).all()
    assert found.target == 2
    assert test.x.max() <= 1
    assert clean.triggered_test() is None
    flip = Task(Scenario.of(config(marker={"client": 1, "kind": "label-flip"})))
    assert flip.triggered_test() is None
    assert len(flip.marked(1)) == 64


def test_predictions_and_losses(made: Task) -> None:
    arrays, test = made.initial(), made.test_set()
    found = made.predict(arrays, test.x)
    assert found.shape == (359, 10)
    assert found.sum(1) == pytest.approx(1, abs=1e-5)
    hidden = np.maximum(test.x.reshape(359, -1) @ arrays["1.weight"].T + arrays["1.bias"], 0)
    logits = hidden @ arrays["3.weight"].T + arrays["3.bias"]
    logits -= logits.max(1, keepdims=True)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found == pytest.approx(wanted, abs=1e-5)
    losses = made.losses(arrays, test)
    assert losses == pytest.approx(-np.log(wanted[np.arange(359), test.y]), abs=1e-4)


def test_loss_of_an_impossible_label_is_finite(made: Task) -> None:
    arrays = made.initial()
    arrays["3.bias"][:] = np.linspace(0, -1e6, 10, dtype=np.float32)
    losses = made.losses(arrays, made.test_set())
    assert np.isfinite(losses).all()
    assert losses.max() > 80


def test_scheduled_requests_are_resolved(made: Task) -> None:
    wanted = config(requests=[{"scope": "sample", "samples": "marked"}])
    (request,) = made.requests(wanted)
    assert request.samples == {1: made.marked(1)}
    assert request.at_round == wanted.rounds


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([client_request(4)], "client 4"),
        ([Request(Scope.SAMPLE, samples={0: (80,)})], "sample 80 of client 0.*0 to 79"),
        ([Request(Scope.CLASS, classes=(10,))], "class 10"),
        ([Request(Scope.TASK, tasks=("x",))], "task 'x'"),
        ([client_request(0, 1, 2, 3)], "no client to train"),
        ([client_request(0, 1), client_request(2, 3)], "no client to train"),
        ([Request(Scope.CLASS, classes=tuple(range(10)))], "no example to train on"),
        (
            [client_request(0, 1, 2), Request(Scope.SAMPLE, samples={3: tuple(range(80))})],
            "no example to train on",
        ),
        ([client_request(0), client_request(0)], "forgotten already"),
    ],
)
def test_senseless_requests(made: Task, requests: list[Request], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        made.check(*requests)


def test_class_that_nobody_holds(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    y = np.array([0, 1, 3] * 20)
    np.savez(
        path, x=np.random.default_rng(0).random((60, 4)), y=y, x_test=np.ones((1, 4)), y_test=[0]
    )
    own = Task(Scenario.of(config(data={"name": f"npz:{path}", "clients": 2}, marker=None)))
    with pytest.raises(RequestError, match="class 2: no client holds such an example"):
        own.check(Request(Scope.CLASS, classes=(2,)))


def test_natural_clients(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    x, y = np.random.default_rng(0).random((60, 4)), np.array([0, 1] * 30)
    np.savez(path, x=x, y=y, client=np.repeat([1, 0], 30), x_test=x[:2], y_test=y[:2])
    data = {"name": f"npz:{path}", "partitioner": "natural-id", "held_out": 0.0}
    own = Task(Scenario.of(config(data=data, marker=None)))
    assert own.clients == (0, 1)
    assert np.array_equal(own.client(0).train_x, x[30:].astype(np.float32))
    assert own.client(0).held_x.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"marker": {"client": 4}}, r"marker\.client = 4 .* 0 to 3"),
        ({"marker": {"client": 1, "label": 10}}, r"marker\.label = 10"),
        ({"marker": {"client": 1, "size": 9}}, r"marker\.size = 9"),
        ({"marker": {"client": 1, "fraction": 0.001}}, r"marker\.fraction = 0\.001"),
        ({"model": {"name": "mpl"}}, "'mpl'"),
        ({"data": {"name": "digitz"}}, "'digitz'"),
        ({"data": {"partitioner": "dirichlet"}}, r"data\.alpha"),
    ],
)
def test_task_that_cannot_be_built(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        task(Scenario.of(config(**changes)))


def test_unknown_client(made: Task) -> None:
    with pytest.raises(RequestError, match="unknown client 4"):
        made.client(4)


def labelled(found: list[ClientData]) -> list[tuple[bytes, int]]:
    return [
        (x.tobytes(), int(y))
        for held in found
        for xs, ys in ((held.train_x, held.train_y), (held.held_x, held.held_y))
        for x, y in zip(xs, ys, strict=True)
    ]


def test_public_examples_are_nobodys(clean: Task) -> None:
    data = {"clients": 4, "limit": 400, "public": 0.1}
    shared = task(Scenario.of(config(marker=None, data=data)))
    public = shared.public_set()
    assert public.shape == (40, 1, 8, 8)
    mine = [shared.client(k) for k in shared.clients]
    held = rows(np.concatenate([public, *(x for c in mine for x in (c.train_x, c.held_x))]))
    everything = [clean.client(k) for k in clean.clients]
    assert held == rows(np.concatenate([x for c in everything for x in (c.train_x, c.held_x)]))
    pairs = [set(labelled(found)) for found in (mine, everything)]
    assert pairs[0] <= pairs[1]  # labels moved with their examples
    other = task(Scenario.of(config(marker=None, data=data), seed=1))
    assert rows(other.public_set()) != rows(public)


def test_without_a_share_nothing_is_public(clean: Task) -> None:
    assert clean.public_set().shape == (0, 1, 8, 8)


def test_a_public_share_must_leave_some_on_both_sides() -> None:
    for share in (0.0001, 0.9999):
        data = {"clients": 2, "limit": 400, "public": share}
        with pytest.raises(ConfigError, match=f"data.public = {share} sets aside"):
            task(Scenario.of(config(marker=None, data=data)))

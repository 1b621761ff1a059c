"""What is judged: a model that never saw the forget set gives no attack anything to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.descent import PlainSGD
from experiments.config.loading import from_mapping
from experiments.federation.judged_sets import judged_sets
from experiments.federation.task import Scenario, Task, task
from experiments.models import networks
from unlearning.arrays import Arrays
from unlearning.evaluation.metrics import auc_null_se, example_losses, membership_auc
from unlearning.evaluation.rmia import rmia_auc
from unlearning.evaluation.signals import logit_confidence, modified_entropy
from unlearning.request import Forgotten, Request, Scope

MARKERS = {
    "backdoor": {"kind": "backdoor", "client": 1, "fraction": 0.5},
    "label-flip": {"kind": "label-flip", "client": 1, "fraction": 0.5},
    "noise": {"kind": "noise", "client": 1, "fraction": 0.5, "sigma": 1.0},
    "no marker": None,
}
CLIENT = Request(Scope.CLIENT, clients=(1,))
SCOPES = {
    "client": lambda made: [CLIENT],
    "marked samples": lambda made: [Request(Scope.SAMPLE, samples=dict(made.marked_samples))],
    "samples of one class": lambda made: [Request(Scope.SAMPLE, samples={2: of_class(made, 8)})],
    "class": lambda made: [Request(Scope.CLASS, classes=(3,))],
    "class at a client": lambda made: [Request(Scope.SAMPLE, clients=(1,), classes=(0, 5))],
    "marked samples, then a class": lambda made: [
        Request(Scope.SAMPLE, samples=dict(made.marked_samples)),
        Request(Scope.CLASS, classes=(3,)),
    ],
}


def shares(made: Task, counts: dict[int, int]) -> Request:
    """Return a request for a few rows of one client and many of another."""
    return Request(Scope.SAMPLE, samples={k: tuple(range(n)) for k, n in counts.items()})


SCOPES |= {
    "few marked, many plain": lambda made: [
        Request(Scope.SAMPLE, samples={1: made.marked(1)[:4], 3: tuple(range(80))})
    ],
    "a client, and few marked": lambda made: [
        Request(Scope.CLIENT, clients=(0,)),
        Request(Scope.SAMPLE, samples={1: made.marked(1)[:4]}),
    ],
    "three clients unequally": lambda made: [shares(made, {0: 2, 1: 10, 2: 120})],
}


def made_with(marker: str) -> Task:
    raw = {
        "data": {"clients": 4, "held_out": 0.4},
        "model": {"hidden": 16},
        "marker": MARKERS[marker],
    }
    return task(Scenario.of(from_mapping({k: v for k, v in raw.items() if v is not None})))


def of_class(made: Task, label: int) -> tuple[int, ...]:
    return tuple(np.flatnonzero(made.client(2).train_y == label).tolist())


def retrained(made: Task, gone: Forgotten, seed: int) -> Arrays:
    """Return a model that fits what stays closely: what it saw it knows."""
    x, y = (torch.from_numpy(part) for part in made.retain_set(gone))
    model = made.fresh_model(seed)
    optimiser = PlainSGD(model.parameters(), 0.1, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    for _ in range(15):
        for batch in torch.randperm(len(y), generator=order).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return networks.to_arrays(model)


def attacks(made: Task, models: list[Arrays], requests: list[Request]) -> tuple[dict, float]:
    """Return the AUC of every attack on the first model, and its null standard error."""
    sets = judged_sets(made, requests)
    members, others = sets.forget, sets.held_out
    seen = [made.predict(models[0], found.x) for found in (members, others)]
    labels = (members.y, others.y)

    def auc(signal) -> float:  # high for members
        return membership_auc(*(-signal(p, y) for p, y in zip(seen, labels, strict=True)))

    def true(arrays: Arrays, found) -> np.ndarray:
        said = made.predict(arrays, found.x)[np.arange(len(found.y)), found.y]
        return np.maximum(said.astype(np.float64), np.finfo(np.float32).tiny)

    parts = [
        (true(models[0], found), np.stack([true(arrays, found) for arrays in models[1:]]))
        for found in (members, others, sets.test)
    ]
    found = {
        "loss": auc(lambda p, y: -example_losses(p, y)),
        "confidence": auc(logit_confidence),
        "modified entropy": auc(lambda p, y: -modified_entropy(p, y)),
        "rmia": rmia_auc(*parts),
    }
    return found, auc_null_se(len(members.y), len(others.y))


@pytest.mark.parametrize(
    ("marker", "scope"),
    [(m, s) for m in MARKERS for s in SCOPES if MARKERS[m] or "marked" not in s],
)
def test_attacks_find_nothing_in_a_retrained_model(marker: str, scope: str) -> None:
    made = made_with(marker)
    requests = SCOPES[scope](made)
    models = [retrained(made, Forgotten(tuple(requests)), seed) for seed in range(3)]
    found, error = attacks(made, models, requests)
    for name, value in found.items():
        assert abs(value - 0.5) < 2.58 * error, (name, value, error)


def test_the_same_attack_finds_a_model_that_saw_them() -> None:
    """The band is no blanket: a model that trained on everything lies outside of it."""
    made = made_with("label-flip")
    requests = SCOPES["marked samples"](made)
    models = [retrained(made, Forgotten(()), seed) for seed in range(3)]
    found, error = attacks(made, models, requests)
    assert found["loss"] > 0.5 + 2.58 * error


@pytest.mark.parametrize("marker", ["backdoor", "noise"])
def test_non_members_carry_the_marker_as_often_as_members(marker: str) -> None:
    made = made_with(marker)
    own = made.client(1)
    marked, held = made.marked(1), made.marked_held_out(1)
    sets = judged_sets(made, [Request(Scope.SAMPLE, samples={1: marked})])
    assert np.array_equal(sets.forget.x, own.train_x[list(marked)])
    assert {x.tobytes() for x in sets.held_out.x} <= {x.tobytes() for x in own.held_x[list(held)]}
    plain = tuple(sorted(set(range(len(own.train_y))) - set(marked)))
    half = (*marked[:10], *plain[:10])
    fresh = judged_sets(made, [Request(Scope.SAMPLE, samples={1: half})]).held_out
    with_marker = {x.tobytes() for x in own.held_x[list(held)]}
    share = np.mean([x.tobytes() in with_marker for x in fresh.x])
    assert 0.35 < share < 0.65


def test_what_two_requests_name_counts_once() -> None:
    made = made_with("backdoor")
    own = made.client(1)
    again = [CLIENT, Request(Scope.SAMPLE, samples={1: (0, 5)}), CLIENT]
    sets = judged_sets(made, again)
    assert np.array_equal(sets.forget.x, own.train_x)
    assert np.array_equal(sets.held_out.x, own.held_x)
    # A class and all of a client: the class of the others beside everything of that client.
    both = judged_sets(made, [CLIENT, Request(Scope.CLASS, classes=(3,))])
    expected = len(own.held_y) + sum((made.client(k).held_y == 3).sum() for k in (0, 2, 3))
    assert len(both.held_out.y) == expected


def test_non_members_come_from_the_clients_in_the_members_shares() -> None:
    # As many of each would be fourteen in fifteen from those that lost a few rows.
    made = made_with("no marker")
    counts = {0: 2, 1: 10, 2: 120}
    fresh = judged_sets(made, [shares(made, counts)]).held_out
    owners = [{x.tobytes() for x in made.client(k).held_x} for k in counts]
    share = [np.mean([x.tobytes() in own for x in fresh.x]) for own in owners]
    members = np.array(list(counts.values())) / sum(counts.values())
    assert np.abs(share - members).sum() / 2 <= 0.1 + 0.02
    assert len(fresh.y) > 40


def test_rows_that_stay_without_a_value_are_members_before_and_after() -> None:
    """A retrained model trained on them, too: beside others its loss would tell them (AUC .67)."""
    sets = judged_sets(made_with("noise"), [Request(Scope.FEATURE, clients=(1,), features=(20,))])
    assert len(sets.forget.y)
    assert not len(sets.held_out.y)


def test_without_held_out_data_nothing_is_drawn() -> None:
    made = task(Scenario.of(from_mapping({"data": {"clients": 3, "limit": 60, "held_out": 0}})))
    for request in (Request(Scope.CLIENT, clients=(0,)), Request(Scope.SAMPLE, samples={0: (1,)})):
        sets = judged_sets(made, [request])
        assert len(sets.forget.y)
        assert not len(sets.held_out.y)

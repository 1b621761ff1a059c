"""One stopping rule for retraining and recovery: it ends what is done, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.nn import functional

from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from strategies.stopping import has_recovered, mean_over
from tests.support.toy import ToyFederation, ToyModel, request
from unlearning.request import Scope

ANY = 1e9  # a tolerance that every loss meets


@pytest.mark.parametrize(
    ("loss", "before", "tolerance", "back"),
    [
        (0.5, 1.0, None, False),  # off
        (None, 1.0, 0.1, False),
        (0.5, None, 0.1, False),
        (1.1, 1.0, 0.1, True),
        (1.11, 1.0, 0.1, False),
        (1.0, 1.0, 0.0, True),
    ],
)
def test_a_loss_is_back(
    loss: float | None, before: float | None, tolerance: float | None, back: bool
) -> None:
    assert has_recovered(loss, before, tolerance) is back


def test_the_mean_is_over_those_that_count_and_reported() -> None:
    losses = {0: (1.0, 10), 1: (4.0, 30), 2: (9.0, 1)}
    assert mean_over(losses, (0, 1, 7)) == pytest.approx(130 / 40)
    assert mean_over(losses, (7,)) is None


def learned(tmp_path: Path, tolerance: float | None) -> tuple[ToyFederation, dict[str, np.ndarray]]:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(4)
    toy.federation.tolerance = tolerance
    toy.asked.clear()
    return toy, arrays


def rounds_of(toy: ToyFederation) -> int:
    return sum(1 for client, step in toy.asked if (client, step) == (0, "train"))


@pytest.mark.parametrize(("tolerance", "rounds"), [(None, 5), (ANY, 1)])
def test_recovery_ends_when_the_loss_is_back(
    tmp_path: Path, tolerance: float | None, rounds: int
) -> None:
    toy, arrays = learned(tmp_path, tolerance)
    toy.federation.ledger.receive(request(Scope.CLIENT))
    after = toy.run(FineTune(), arrays, rounds=5)
    assert rounds_of(toy) == rounds
    assert toy.federation.completed == 4 + rounds
    assert toy.federation.history.rounds[-1] == 4 + rounds
    assert any((after[name] != arrays[name]).any() for name in arrays)


@pytest.mark.parametrize(("tolerance", "rounds"), [(None, 4), (ANY, 1)])
def test_retraining_ends_by_the_same_rule(
    tmp_path: Path, tolerance: float | None, rounds: int
) -> None:
    toy, arrays = learned(tmp_path, tolerance)
    strategy = Retrain()
    toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert rounds_of(toy) == rounds
    assert strategy.rewritten is not None
    assert strategy.rewritten.rounds == tuple(range(1, rounds + 1))
    strategy.discard()


def test_the_level_is_that_of_the_remaining_clients_before_the_request(tmp_path: Path) -> None:
    toy, arrays = learned(tmp_path, 0.0)
    # The leaver's loss does not count, however bad; the others' has to be reached.
    toy.federation.losses = {**dict.fromkeys(toy.sizes, (1e-9, 5)), 1: (1e9, 5)}
    toy.unlearn(strategy := Retrain(), request(Scope.CLIENT), arrays)
    assert rounds_of(toy) == 4
    strategy.discard()


def test_an_algorithm_keeps_its_own_number_of_rounds(tmp_path: Path) -> None:
    class Patient(FineTune):
        def prepare(self, request, history, arrays):  # type: ignore[no-untyped-def]
            return arrays, 4

    toy, arrays = learned(tmp_path, ANY)
    toy.unlearn(Patient(), request(Scope.CLIENT), arrays)
    assert rounds_of(toy) == 4


def test_learning_before_any_request_is_not_cut_short(tmp_path: Path) -> None:
    toy, arrays = learned(tmp_path, ANY)
    toy.run(FineTune(), arrays, rounds=6)
    assert rounds_of(toy) == 6


def test_a_later_request_is_served_on_time_and_recovered_from(tmp_path: Path) -> None:
    toy, arrays = learned(tmp_path, ANY)
    first, second = request(Scope.CLIENT, 1), request(Scope.CLIENT, 2)
    for asked, at_round in ((first, 4), (second, 8)):
        toy.federation.ledger.receive(replace(asked, at_round=at_round))
    toy.run(FineTune(), arrays, rounds=9)
    # Rounds 5 to 8 are needed to reach the second request; one more recovers.
    assert [toy.federation.ledger.state(asked.id) for asked in (first, second)] == ["fulfilled"] * 2
    assert toy.federation.completed == 9
    assert rounds_of(toy) == 5


def test_the_loss_that_clients_report_is_the_mean_over_their_examples(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)
    toy.federation.train = {**toy.federation.train, "local_epochs": 1, "learning_rate": 1e-12}
    toy.run(FineTune(), rounds=1)
    model = ToyModel(0)
    for client, data in toy.shards.items():
        expected = functional.cross_entropy(model(data.features), data.labels).item()
        assert toy.federation.losses[client] == (pytest.approx(expected, rel=1e-5), len(data))

"""One stopping rule for retraining and recovery: it ends what no longer helps, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.nn import functional

from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from strategies.stopping import has_settled
from tests.toy import ToyFederation, ToyModel, request
from unlearning.request import Scope


@pytest.mark.parametrize(
    ("losses", "patience", "settled"),
    [
        ([1.0, 1.0, 1.0], 0, False),  # off
        ([1.0, 1.0], 2, False),  # too early to tell
        ([1.0, 0.8, 0.6], 2, False),
        ([1.0, 0.995, 0.992], 2, True),  # fell by less than 1 %
        ([1.0, 0.995, 0.98], 2, False),  # one good round among the last two is progress
        ([0.5, 0.4, 0.6, 0.7], 2, True),  # it grows
        ([1.0, 0.99], 1, False),  # exactly 1 % is progress
    ],
)
def test_training_has_settled(losses: list[float], patience: int, settled: bool) -> None:
    assert has_settled(losses, patience, 0.01) is settled


def learned(tmp_path: Path, *, patience: int) -> tuple[ToyFederation, dict[str, np.ndarray]]:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(4)
    # Nothing falls by nine tenths in a round, so every phase has settled after patience + 1 rounds.
    toy.federation.patience, toy.federation.min_delta = patience, 0.9
    toy.asked.clear()
    return toy, arrays


def rounds_of(toy: ToyFederation) -> int:
    return sum(1 for client, step in toy.asked if (client, step) == (0, "train"))


@pytest.mark.parametrize(("patience", "rounds"), [(0, 5), (1, 2), (2, 3)])
def test_recovery_ends_when_training_has_settled(
    tmp_path: Path, patience: int, rounds: int
) -> None:
    toy, arrays = learned(tmp_path, patience=patience)
    toy.federation.ledger.receive(request(Scope.CLIENT))
    after = toy.run(FineTune(), arrays, rounds=5)
    assert rounds_of(toy) == rounds
    assert toy.federation.completed == 4 + rounds
    assert toy.federation.history.rounds[-1] == 4 + rounds
    assert any((after[name] != arrays[name]).any() for name in arrays)


@pytest.mark.parametrize(("patience", "rounds"), [(0, 4), (1, 2)])
def test_retraining_ends_by_the_same_rule(tmp_path: Path, patience: int, rounds: int) -> None:
    toy, arrays = learned(tmp_path, patience=patience)
    strategy = Retrain()
    toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert rounds_of(toy) == rounds
    assert strategy.rewritten is not None
    assert strategy.rewritten.rounds == tuple(range(1, rounds + 1))
    strategy.discard()


def test_an_algorithm_keeps_its_own_number_of_rounds(tmp_path: Path) -> None:
    class Patient(FineTune):
        def prepare(self, request, history, arrays):  # type: ignore[no-untyped-def]
            return arrays, 4

    toy, arrays = learned(tmp_path, patience=1)
    toy.unlearn(Patient(), request(Scope.CLIENT), arrays)
    assert rounds_of(toy) == 4


def test_learning_before_any_request_is_not_cut_short(tmp_path: Path) -> None:
    toy, arrays = learned(tmp_path, patience=1)
    toy.run(FineTune(), arrays, rounds=6)
    assert rounds_of(toy) == 6


def test_a_later_request_is_served_on_time_and_starts_the_count_anew(tmp_path: Path) -> None:
    toy, arrays = learned(tmp_path, patience=1)
    first, second = request(Scope.CLIENT, 1), request(Scope.CLIENT, 2)
    for asked, at_round in ((first, 4), (second, 8)):
        toy.federation.ledger.receive(replace(asked, at_round=at_round))
    toy.run(FineTune(), arrays, rounds=9)
    # Rounds 5 to 8 are needed to reach the second request; two more settle.
    assert [toy.federation.ledger.state(asked.id) for asked in (first, second)] == ["fulfilled"] * 2
    assert toy.federation.completed == 10


def test_the_loss_that_clients_report_is_the_mean_over_their_examples(tmp_path: Path) -> None:
    toy = ToyFederation(tmp_path)
    toy.federation.train = {**toy.federation.train, "local_epochs": 1, "learning_rate": 1e-12}
    strategy = FineTune()
    toy.run(strategy, rounds=1)
    model = ToyModel(0)
    losses = {
        client: functional.cross_entropy(model(data.features), data.labels).item()
        for client, data in toy.shards.items()
    }
    expected = sum(losses[c] * n for c, n in toy.sizes.items()) / sum(toy.sizes.values())
    assert strategy._losses == [pytest.approx(expected, rel=1e-5)]

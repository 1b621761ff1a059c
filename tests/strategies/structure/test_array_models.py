"""Models that are no network: who may work on them, how they are learned, what is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from clients import steps
from clients.participant import Holdings, Participant
from clients.steps import Local, Outcome
from experiments.models import networks as models
from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.global_model.fine_tune import FineTune
from strategies.global_model.retrain import Retrain
from tests.support.toy import ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Instruction, Reply, Wire
from unlearning.records.history import History
from unlearning.records.memory import ClientMemory
from unlearning.request import Request, Scope


class Tally:
    """Counts examples per class; a row more with every round."""

    name = "tally"

    def initial(self) -> Arrays:
        return {"counts": np.zeros((0, 3), np.int64)}

    def predict(self, arrays: Mapping[str, Array], x: Array) -> Array:
        return np.full((len(x), 3), 1 / 3)

    def teach(self, arrays: Arrays, clients: Sequence[int]) -> Mapping[int, Instruction]:
        return {client: Instruction(step="tally", answers="free") for client in clients}

    def learn(self, arrays: Arrays, replies: Iterable[Reply]) -> Arrays:
        row = sum(reply.arrays["counts"] for reply in replies)
        return {"counts": np.vstack([arrays["counts"], row])}


class TallyRetrain(FineTune):
    models = frozenset({"tally"})


@pytest.fixture(autouse=True)
def _step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients know a step that is given no network and looks at the global arrays."""

    def tally(model: object, local: Local, settings: object, generator: object) -> Outcome:
        assert model is None
        assert local.arrays["counts"].shape[1] == 3
        x, y = local.retain.table()
        assert x.shape == (len(y), 3)
        return Outcome(len(y), len(y), {"counts": np.bincount(y, minlength=3)})

    monkeypatch.setattr(steps, "find", lambda name: tally)
    monkeypatch.setattr(steps, "needs_model", lambda name: False)


@pytest.fixture
def toy(tmp_path: Path) -> ToyFederation:
    made = ToyFederation(tmp_path)
    made.federation.model = Tally()
    made.initial = Tally().initial()
    return made


def test_learning_follows_the_model_and_its_shapes_may_change(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=3)
    assert arrays["counts"].shape == (3, 3)
    assert arrays["counts"].sum() == 3 * sum(toy.sizes.values())


def test_participants_are_recorded_without_updates(toy: ToyFederation) -> None:
    toy.run(UnlearningStrategy(), rounds=2)
    history = toy.federation.history
    assert history.participants(2) == toy.sizes
    assert history.first_round(request("client")) == 1
    assert history.verify() == []
    assert named.digest(history.initial) == named.digest(toy.initial)


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_retraining_learns_again_as_the_model_says(
    tmp_path: Path, toy: ToyFederation, scope: str
) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=2)
    asked = request(scope)
    after = toy.unlearn_checked(Retrain(), asked, arrays)
    kept = np.zeros(3, np.int64)
    for client, held in toy.shards.items():
        gone, labels = asked.omission(client), held.labels.numpy()
        stays = [
            not gone.everything and i not in gone.samples and label not in gone.classes
            for i, label in enumerate(labels)
        ]
        kept += np.bincount(labels[stays], minlength=3)
    assert after["counts"].tolist() == [kept.tolist()] * 2


def test_a_forgotten_client_is_not_asked_again(toy: ToyFederation) -> None:
    toy.run(UnlearningStrategy(), rounds=1)
    toy.federation.ledger.receive(request("client"))
    toy.asked.clear()
    toy.run(Retrain(), rounds=1)
    assert {client for client, _ in toy.asked} == {0, 2, 3}


@pytest.mark.parametrize(
    ("strategy", "model", "fits"),
    [
        (FineTune, None, True),
        (FineTune, Tally(), False),
        (TallyRetrain, Tally(), True),
        (TallyRetrain, None, False),
        (Retrain, None, True),
        (Retrain, Tally(), True),
    ],
)
def test_a_strategy_works_on_the_models_it_names(
    toy: ToyFederation, strategy: type[UnlearningStrategy], model: ArrayModel | None, fits: bool
) -> None:
    toy.federation.model = model
    made = strategy()
    made.join(toy.federation)
    if fits:
        made.check(request("client"))
        return
    toy.grid.pushed.clear()
    with pytest.raises(ConfigError, match=f"{strategy.__name__} does not work on the model"):
        made.check(request("client"))
    assert not toy.grid.pushed


def test_every_model_is_a_name_that_no_model_bears() -> None:
    assert EVERY_MODEL.isdisjoint(models.names())


def test_a_network_is_no_array_model() -> None:
    assert models.array_model("mlp", (4,), 2) is None
    assert isinstance(Tally(), ArrayModel)


def test_a_client_that_only_took_part_counts_in_no_sum() -> None:
    history = History(keep=("updates", "contributions", "sensitivities"))
    history.start({"w": np.zeros(1)})
    with history.record(1, {"w": np.zeros(1)}) as entry:
        entry.note(3, 5)
        with pytest.raises(Exception, match="client 3 is recorded twice"):
            entry.note(3, 5)
        with pytest.raises(Exception, match="-1 examples"):
            entry.note(4, -1)
    assert history.participants(1) == {3: 5}
    assert history.first_round(Request(Scope.CLIENT, clients=(3,))) == 1


def test_evaluation_at_a_client_asks_the_model(tmp_path: Path) -> None:
    data = shard(0, 9)
    holdings = Holdings(data, data, ToyModel, nn.Identity(), array_model=Tally())
    participant = Participant(0, holdings, ClientMemory(tmp_path, 0))
    config = {Wire.NAMES: '["counts"]', Wire.SPLIT: "held-out"}
    loss, count, metrics = participant.evaluate([np.zeros((0, 3))], config)
    assert loss == pytest.approx(np.log(3))
    assert count == 9
    assert metrics["accuracy"] == np.mean(data.labels.numpy() == 0)
    assert participant.get_parameters({})[0].shape == (0, 3)

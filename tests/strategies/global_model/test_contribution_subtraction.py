"""Taking out contributions, and what the server then teaches."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.config.loading import from_mapping
from experiments.federation.course import Course
from strategies.global_model.contribution_subtraction import ContributionSubtraction, without
from tests.support.past import forget, joined, past, random_past, vector
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import ConfigError, HistoryError
from unlearning.request import Request, Scope


class Server:
    """A server that teaches nothing and notes what it was asked."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, student, teacher, settings, seed):
        self.calls.append((student, teacher, dict(settings), seed))
        return student, 11


def answer(history, final, *gone, **options):
    """Return the model without some clients, and the server that was asked to teach it."""
    strategy = joined(ContributionSubtraction(**options), history)
    strategy.federation.distil = server = Server()
    return strategy.unlearn(forget(*gone), history, final), server


def test_golden_subtraction():
    """Two rounds from (1, 1), of clients with unequal numbers of examples.

    Round 1: client 0 (1 example) +(4, -2), client 1 (3 examples) +(-1, 3): it moves by
    (4 - 3, -2 + 9) / 4 = (0.25, 1.75). Round 2: client 0 (3) +(-4, 0), client 2 (1) +(0, 4): it
    moves by (-3, 1). The model is (-1.75, 3.75). Client 0 added (4, -2) / 4 + 3 (-4, 0) / 4
    = (-2, -0.5), so without it the model is (0.25, 4.25): the others are not scaled up.
    """
    history, final = past(
        vector(1, 1),
        [
            {0: (1, vector(4, -2)), 1: (3, vector(-1, 3))},
            {0: (3, vector(-4, 0)), 2: (1, vector(0, 4))},
        ],
        keep=("contributions",),
    )
    assert final["w"].tolist() == [-1.75, 3.75]
    student, server = answer(history, final, 0)
    assert student["w"].tolist() == [0.25, 4.25]
    ((seen, teacher, settings, seed),) = server.calls
    assert seen["w"].tolist() == [0.25, 4.25]
    assert teacher["w"].tolist() == [-1.75, 3.75]
    assert seed == (0, 2, 0, 4)
    assert settings == {
        "temperature": 3.0,
        "hard_share": 0.0,
        "epochs": 5,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "batch_size": 64,
    }


@pytest.mark.parametrize("gone", [(0,), (2,), (0, 1), (1, 2, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_taken_out_makes_up_the_difference(seed, gone):
    """Oracle 5: w' + sum of contrib[u] = w^T."""
    history, final, answers = random_past(seed)
    student, _ = answer(history, final, *gone)
    back = student["w"] + sum(history.contribution(k)["w"] for k in gone)
    np.testing.assert_allclose(back, final["w"], rtol=1e-12)
    slow = final["w"].copy()
    for round_ in answers:
        total = sum(count for count, _ in round_.values())
        slow -= sum(round_[k][0] / total * round_[k][1]["w"] for k in gone if k in round_)
    np.testing.assert_allclose(student["w"], slow, rtol=1e-9, atol=1e-12)


def test_others_who_swap_their_updates_change_nothing_but_the_model_left():
    """Oracle 5: what is taken out does not depend on who of the others sent which update."""
    history, final, answers = random_past(3, clients=3)
    round_ = next(r for r in answers if set(r) == {0, 1, 2})
    (n1, first), (n2, second) = round_[1], round_[2]
    swapped, other_final = past(
        history.initial, [r if r is not round_ else {**r, 1: (n1, second), 2: (n2, first)}
                          for r in answers]
    )  # fmt: skip
    found, _ = answer(history, final, 0)
    other, _ = answer(swapped, other_final, 0)
    np.testing.assert_allclose(
        final["w"] - found["w"], other_final["w"] - other["w"], rtol=1e-9, atol=1e-12
    )


def test_buffers_stay_and_dtypes_too():
    model = {
        "w": np.array([1, 2], np.float32),
        "bn.running_var": np.array([3.0], np.float32),
        "bn.num_batches_tracked": np.array(7),
    }
    contribution = {
        "w": np.array([0.5, -1.0]),
        "bn.running_var": np.array([9.0]),
        "bn.num_batches_tracked": np.array(3),
    }
    found = without(model, iter([contribution, contribution]))
    assert named.mismatch(model, found) is None
    assert found["w"].tolist() == [0.0, 4.0]
    assert found["bn.running_var"] == 3.0
    assert found["bn.num_batches_tracked"] == 7


def test_where_only_leavers_ever_took_part_nothing_is_taught():
    """The teacher would bring the forgotten back; clients that never trained left no trace."""
    rounds = [{0: (2, vector(1, -1)), 1: (1, vector(3, 0))}, {1: (1, vector(-2, 2))}]
    history, final = past(vector(1, 1), rounds, keep=("contributions",))
    found, server = answer(history, final, 0, 1)
    assert found["w"].tolist() == [1.0, 1.0]
    assert not server.calls


def test_a_leaver_that_never_took_part_is_no_matter():
    rounds = [{0: (2, vector(1, -1)), 1: (2, vector(3, 0))}]
    history, final = past(vector(1, 1), rounds, keep=("contributions",))
    found, server = answer(history, final, 0, 3)
    assert found["w"].tolist() == [2.5, 1.0]
    untouched, idle = answer(history, final, 3)
    assert untouched is final
    assert len(server.calls) == 1
    assert not idle.calls


def test_the_servers_work_is_counted(tmp_path):
    toy = ToyFederation(tmp_path)
    arrays = toy.learn()
    toy.asked.clear()
    after = toy.unlearn(ContributionSubtraction(), request(Scope.CLIENT), arrays)
    cost = toy.federation.costs["unlearn"]
    assert (cost.examples, cost.client_rounds, cost.bytes_down) == (7, 0, 0)
    assert not toy.asked
    # The toy's server goes half the way back to the teacher.
    gone = toy.federation.history.contribution(1)["layer.weight"]
    np.testing.assert_allclose(after["layer.weight"], arrays["layer.weight"] - gone / 2, rtol=1e-5)


def test_requests_follow_one_another(tmp_path):
    """The second is taken out of the model that the first left, by what was recorded since."""
    toy = ToyFederation(tmp_path)
    arrays = toy.learn()
    history = toy.federation.history
    parts = [history.contribution(client)["layer.weight"] for client in (1, 2)]
    for client in (1, 2):
        toy.federation.ledger.receive(Request(Scope.CLIENT, clients=(client,)))
    toy.federation.recovery_rounds = 0
    after = toy.run(ContributionSubtraction(), arrays, rounds=0)
    expected = arrays["layer.weight"] - parts[0] / 2 - parts[1] / 2
    np.testing.assert_allclose(after["layer.weight"], expected, rtol=1e-5)
    with pytest.raises(HistoryError, match="client 1 took part in no"):
        history.contribution(1)


def test_without_public_data_a_comparison_does_not_begin():
    config = {
        "data": {"clients": 3, "limit": 60},
        "strategies": ["contribution-subtraction"],
        "requests": [{"scope": "client", "clients": [1]}],
    }
    words = r"contribution-subtraction trains on the server and data.public is 0; set data.public"
    with pytest.raises(ConfigError, match=words):
        Course.of_comparison(from_mapping(config), print).check()
    config["data"]["public"] = 0.1
    Course.of_comparison(from_mapping(config), print).check()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"hard_share": 1.1},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"batch_size": 0},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ContributionSubtraction(**options)

"""Replays of a model for several tasks weigh every part by those who trained it.

Five clients hold two of three tasks each; what follows are identities of the mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.global_model.fed_recovery import FedRecovery, residual
from strategies.global_model.sensitivity import increment
from strategies.local_model.crab import Crab
from strategies.local_model.fed_accum import FedAccum
from strategies.local_model.fed_eraser import FedEraser
from strategies.local_model.fed_recover import FedRecover
from strategies.robustness import Robust
from tests.support.past import TaskRound, forget, joined, past, task_past, vector
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.models import heads
from unlearning.protocol import Reply
from unlearning.records.history import COLUMNS, History
from unlearning.weighing import TRUNK, mean, part_of

HOLDERS = {"a": (0, 1, 2, 4), "b": (1, 3, 4), "c": (0, 2, 3)}
SOLE = {"a": (0, 1, 2, 3), "b": (4,), "c": (0, 1)}  # client 4 alone holds task b
SEEDS = range(5)


def retrained(start: Arrays, round_: TaskRound, gone: set[int]) -> Arrays:
    """Return the model after a round without some clients, whose answers are the same."""
    replies = (
        Reply(client, examples.total, {}, examples.to_metrics(), update)
        for client, (examples, update) in round_.items()
        if client not in gone
    )
    return heads.average(start, replies)


def replayed(strategy: UnlearningStrategy, seed: int, holders=HOLDERS, gone: int = 4) -> tuple:
    """Return what a strategy makes of one recorded round, and the model without the leaver.

    Clients that are asked answer what they answered before: calibration then changes nothing.
    """
    history, final, (round_,) = task_past(seed, holders)
    joined(strategy, history, 5)
    strategy._roster.forget({gone})
    current, rounds = strategy.prepare(forget(gone), history, final)
    for t in range(1, rounds + 1):
        replies = (
            Reply(client, examples.total, {}, examples.to_metrics(), update)
            for client, (examples, update) in round_.items()
            if client in strategy.instruct(t)
        )
        current = strategy.combine(t, current, replies)
    return current, retrained(history.initial, round_, {gone})


EVERY = {
    "fed-eraser": lambda: FedEraser(interval=1, ratio=1.0),
    "fed-eraser-mean": lambda: FedEraser(interval=1, ratio=1.0, calibration_scope="mean_layer"),
    "fed-accum": FedAccum,
    "crab": lambda: Crab(rollback=0.0, keep_rounds=1.0, keep_clients=1.0, ratio=1.0),
    "fed-recover": lambda: FedRecover(warmup=0, final=0),
    "fed-recovery": lambda: FedRecovery(normalise="none"),
}


@pytest.mark.parametrize("holders", [HOLDERS, SOLE], ids=["shared", "sole"])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", SEEDS)
def test_one_round_without_a_client_is_retraining_part_by_part(name, seed, holders):
    """Whoever leaves alone with a task takes its head back to where the round found it."""
    found, want = replayed(EVERY[name](), seed, holders)
    for part in want:
        np.testing.assert_allclose(found[part], want[part], rtol=1e-6, atol=1e-12)


def test_weights_of_the_whole_would_be_far_off():
    """The planted fault: with one weight per client the heads miss retraining by a third."""
    history, _, (round_,) = task_past(0, HOLDERS)
    want = retrained(history.initial, round_, {4})
    rest = ((e.total, u) for client, (e, u) in round_.items() if client != 4)
    plain = named.apply_update(history.initial, named.weighted_mean(rest))
    off = named.norm(named.subtract(plain, want)) / named.norm(
        named.subtract(want, history.initial)
    )
    assert off > 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_contributions_add_up_to_the_model_part_by_part(seed):
    history, final, _ = task_past(seed, HOLDERS, rounds=4)
    parts = [history.contribution(client) for client in range(5)]
    for name, start in history.initial.items():
        total = start + sum(part[name] for part in parts)
        np.testing.assert_allclose(total, final[name], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_contributions_are_summed_anew_part_by_part(seed):
    history, *_ = task_past(seed, HOLDERS, rounds=3)
    shorter, *_ = task_past(seed, HOLDERS, rounds=2)
    history.truncate(2)
    for client in range(5):
        found, want = history.contribution(client), shorter.contribution(client)
        assert named.digest(found) == named.digest(want)


@pytest.mark.parametrize("gone", [(4,), (0, 3), (0, 2, 3)])
@pytest.mark.parametrize("holders", [HOLDERS, SOLE], ids=["shared", "sole"])
@pytest.mark.parametrize("seed", SEEDS)
def test_residual_is_the_difference_of_two_means_part_by_part(seed, holders, gone):
    history, _, (round_,) = task_past(seed, holders)
    answers = [(client, e, u) for client, (e, u) in round_.items()]
    whole, difference = residual(answers, gone)
    everyone = retrained(history.initial, round_, set())
    without = retrained(history.initial, round_, set(gone))
    for name, start in history.initial.items():
        np.testing.assert_allclose(whole[name], everyone[name] - start, atol=1e-14)
        want = everyone[name] - without[name]
        np.testing.assert_allclose(difference[name], want, rtol=1e-12, atol=1e-14)
    there = {name for name in whole if any(e.of(part_of(name)) for _, e, _ in answers)}
    for name in there:
        p = history.weights(1, part=part_of(name))
        share = sum(p[k] for k in gone)
        if share < 1:
            theirs = mean((e, u) for k, (e, u) in round_.items() if k in gone)[name]
            paper = share / (1 - share) * (theirs - whole[name])
            np.testing.assert_allclose(difference[name], paper, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("rule", ["set", "auto"])
@pytest.mark.parametrize("holders", [HOLDERS, SOLE], ids=["shared", "sole"])
def test_sensitivity_is_the_length_of_what_the_model_would_lack(rule, holders):
    history, final, (round_,) = task_past(3, holders)
    without = retrained(history.initial, round_, {4})
    (found,) = increment(history, 1, {4}, rule).values()
    assert found == pytest.approx(named.norm(named.subtract(final, without)), rel=1e-9)
    (safe,) = increment(history, 1, {4}, "safe").values()
    assert safe >= found * (1 - 1e-12)


def test_a_bound_from_scalars_is_exact_for_one_client():
    history, final, (round_,) = task_past(1, HOLDERS)
    without = retrained(history.initial, round_, {2})
    for rule in ("safe", "max"):
        (found,) = increment(history, 1, {2}, rule).values()
        assert found == pytest.approx(named.norm(named.subtract(final, without)), rel=1e-9)


def test_one_task_that_all_hold_is_as_any_model_bit_for_bit():
    history, final, answers = task_past(7, {"a": range(5)}, rounds=3)
    for round_ in answers:  # every example has a label of the one task
        for client, (examples, update) in round_.items():
            round_[client] = (type(examples)(examples.total), update)
    plain = [{k: (e.total, u) for k, (e, u) in round_.items()} for round_ in answers]
    history, final = past(history.initial, plain, keep=COLUMNS)
    parts = History(keep=COLUMNS)
    parts.start(history.initial)
    current = history.initial
    for t, round_ in enumerate(answers, 1):
        with parts.record(t, current) as entry:
            for client, (examples, update) in round_.items():
                same = type(examples)(examples.total, {"": examples.total, "a": examples.total})
                entry.add(client, same, update)
        current = retrained(current, round_, set())
    assert named.digest(current) == named.digest(final)
    strategies = (FedAccum(), FedAccum())
    one, two = (
        joined(strategy, past_, 5).unlearn(forget(1), past_, final)
        for strategy, past_ in zip(strategies, (history, parts), strict=True)
    )
    assert named.digest(one) == named.digest(two)
    for client in range(5):
        assert named.digest(history.contribution(client)) == named.digest(
            parts.contribution(client)
        )


def test_examples_by_part_survive_on_disk_and_a_rewriting(tmp_path: Path):
    memory, *_ = task_past(2, HOLDERS, rounds=2)
    disk = memory.fork(tmp_path / "one")
    other = disk.fork(tmp_path / "two")
    other.truncate(1)
    disk.adopt(other)
    disk.close()
    with History.open(tmp_path / "one") as again:
        assert again.examples(1) == memory.examples(1)
        assert again.sensitivities_by_part(1) == memory.sensitivities_by_part(1)
        assert again.weights(1, part="b").keys() == set(range(5))
        assert sum(again.weights(1, part=TRUNK).values()) == pytest.approx(1)
    other.close()


def test_a_model_of_one_part_stores_nothing_more():
    history, _ = past(vector(1.0), [{0: (3, vector(2.0)), 1: (1, vector(0.0))}])
    rows = history.store.db.execute("SELECT parts FROM participants").fetchall()
    assert rows == [(None,), (None,)]
    assert history.sensitivities_by_part(1) == {TRUNK: history.sensitivities(1)}
    assert history.weights(1, part=TRUNK) == history.weights(1) == {0: 0.75, 1: 0.25}


def test_robust_recovery_rounds_are_attributed_to_nobody():
    history, *_ = task_past(0, HOLDERS, rounds=2)
    federation = Federation(history=history, completed=2, attribute=True)
    assert federation.attribution(1, 3)["share"] == history.weights(2, part=TRUNK)[1]
    federation.robust, federation.edited = Robust("median"), 1
    assert federation.attribution(1, 3)["share"] == 0
    federation.edited = 2
    assert federation.attribution(1, 3)["share"] > 0

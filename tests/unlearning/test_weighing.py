"""Means by part, against one mean per part worked out on its own."""

from __future__ import annotations

import numpy as np
import pytest

from unlearning import arrays as named
from unlearning.weighing import Examples, Mean, mean, part_of


@pytest.mark.parametrize("seed", range(10))
def test_each_part_is_the_mean_of_those_who_trained_it(seed):
    rng = np.random.default_rng(seed)
    names = ("trunk.w", "heads.a.w", "isolated.b.w")
    terms = []
    for _ in range(4):
        total = int(rng.integers(1, 50))
        parts = {"a": int(rng.integers(0, total + 1)), "b": int(rng.integers(0, 2)) * total}
        terms.append((Examples(total, parts), {n: rng.normal(size=2) for n in names}))
    found = mean(terms)
    for name in names:
        mine = [(e.of(part_of(name)), {name: u[name]}) for e, u in terms]
        if any(weight for weight, _ in mine):
            want = named.weighted_mean(mine)[name]
            np.testing.assert_allclose(found[name], want, rtol=1e-14)
        else:
            np.testing.assert_array_equal(found[name], 0)


def test_one_part_gives_the_bits_of_the_plain_mean():
    rng = np.random.default_rng(0)
    updates = [{"w": rng.normal(size=9).astype(np.float32)} for _ in range(5)]
    plain = named.weighted_mean(zip((7, 3, 11, 2, 5), updates, strict=True))
    ours = mean(zip(map(Examples, (7, 3, 11, 2, 5)), updates, strict=True))
    assert named.digest(plain) == named.digest(ours)


def test_counters_come_from_the_last_who_trained_their_part():
    steps = [{"heads.a.n": np.array(k), "n": np.array(k)} for k in (1, 2, 3)]
    trained = [Examples(5), Examples(5, {"a": 4}), Examples(5, {"a": 0})]
    found = mean(zip(trained, steps, strict=True))
    assert (found["heads.a.n"], found["n"]) == (2, 3)


def test_a_part_that_nobody_trained_does_not_move():
    update = {"w": np.ones(2), "heads.a.w": np.full(2, 9.0)}
    np.testing.assert_array_equal(mean([(Examples(3, {"a": 0}), update)])["heads.a.w"], 0)
    with pytest.raises(ValueError, match="positive"):
        mean([(Examples(0), update)])
    with pytest.raises(ValueError, match="positive"):
        Mean().result()


def test_examples_survive_a_reply_and_never_exceed_its_total():
    examples = Examples(9, {"": 9, "a": 4})
    assert Examples.from_metrics(9, {**examples.to_metrics(), "loss": 1.0}) == examples
    assert Examples.from_metrics(3, {"examples-of/a": 1e12}).of("a") == 3
    assert Examples.from_metrics(3, {"examples-of/a": -5.0}).of("a") == 0
    assert Examples(3).of("anything") == 3


def test_a_shard_counts_the_examples_that_its_mean_rests_on() -> None:
    def step(trained: int) -> named.Arrays:
        return {
            "shards.0.net.w": np.array([1.0]),
            "shards.0.trained": np.array(trained),
            "shards.0.examples": np.array(7),
            "shards.1.net.w": np.array([1.0]),
            "shards.1.examples": np.array(9),
            "examples": np.array(2),
        }

    found = mean([(Examples(3, {"1": 0}), step(4)), (Examples(5, {"1": 0}), step(4))])
    assert found["shards.0.examples"] == 8
    assert found["shards.0.trained"] == 4
    assert found["shards.1.examples"] == 9  # nobody trained it
    assert found["examples"] == 2  # not a shard's

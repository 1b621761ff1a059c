"""RMIA against its definition in plain loops, and on members that a model knows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unlearning.evaluation import rmia

GENERATOR = np.random.default_rng(0)


def part(size, models=3, boost=0.0, seed=0):
    """Probabilities under the attacked model and under reference models of like difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(size=size)

    def squash(values):
        return 1 / (1 + np.exp(-values))

    ours = squash(difficulty + boost + generator.normal(0, 0.5, size))
    return ours, squash(difficulty + generator.normal(0, 0.5, (models, size)))


def test_the_ratio_divides_by_the_scaled_mean_of_the_reference_models():
    """p_out = .3, a = .4: pbar = (1.4 * .3 + .6) / 2 = .51."""
    found = rmia.likelihood_ratios([0.6], [[0.2], [0.4]], 0.4)
    assert found == pytest.approx([0.6 / 0.51])
    assert rmia.likelihood_ratios([0.6], [[0.2], [0.4]], 1.0) == pytest.approx([2.0])
    assert np.isfinite(rmia.likelihood_ratios([0.6], [[0.0]], 1.0)).all()


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_the_score_is_the_share_of_the_population_that_is_beaten(gamma):
    ours = GENERATOR.uniform(0.1, 3, 20).round(1)
    others = GENERATOR.uniform(0.1, 3, 30).round(1)
    plain = [np.mean([x / z >= gamma for z in others]) for x in ours]
    assert rmia.rmia_scores(ours, others, gamma) == pytest.approx(plain)


def test_the_auc_is_that_of_the_scores():
    members, others, population = part(25, boost=1, seed=1), part(30, seed=2), part(40, seed=3)

    def ratio(pair, i):
        ours, reference = pair
        average = (1.2 * reference[:, i].mean() + 0.8) / 2
        return ours[i] / average

    against = [ratio(population, z) for z in range(40)]
    scores = [
        np.mean([ratio(pair, i) >= z for z in against])
        for pair, size in ((members, 25), (others, 30))
        for i in range(size)
    ]
    truth = [1] * 25 + [0] * 30
    expected = roc_auc_score(truth, scores)
    assert rmia.rmia_auc(members, others, population, 0.2) == pytest.approx(expected)


def test_members_are_found_although_they_are_hard_and_equals_are_not():
    """Hard members, easy non-members: the plain probability points the wrong way."""
    ours, reference = part(300, boost=1.0, seed=4)
    hard = ours < 0.7
    members = ours[hard], reference[:, hard]
    fresh, fresh_reference = part(300, seed=5)
    easy = fresh_reference.mean(axis=0) > 0.5
    others = fresh[easy], fresh_reference[:, easy]
    truth = np.repeat([1, 0], [hard.sum(), easy.sum()])
    assert roc_auc_score(truth, np.concatenate([members[0], others[0]])) < 0.3
    assert rmia.rmia_auc(members, others, part(300, seed=6), 1.0) > 0.7
    equal = rmia.rmia_auc(part(800, seed=7), part(800, seed=8), part(300, seed=9), 1.0)
    assert equal == pytest.approx(0.5, abs=0.045)  # three null standard errors


def test_the_scaling_is_the_best_of_the_grid():
    parts = part(40, boost=1, seed=10), part(40, seed=11), part(60, seed=12)
    found = {a: rmia.rmia_auc(*parts, a) for a in rmia.SCALINGS}
    assert len(set(found.values())) > 1
    assert found[rmia.best_scaling(*parts)] == max(found.values())
    assert rmia.best_scaling(*parts, grid=[0.4]) == 0.4


@pytest.mark.parametrize(
    "call",
    [
        lambda: rmia.likelihood_ratios([0.5, 0.5], [[0.5]], 0.5),
        lambda: rmia.likelihood_ratios([1.5], [[0.5]], 0.5),
        lambda: rmia.likelihood_ratios([0.5], [[np.nan]], 0.5),
        lambda: rmia.likelihood_ratios([0.5], [[0.5]], 1.5),
        lambda: rmia.likelihood_ratios([0.5], np.empty((0, 1)), 0.5),
        lambda: rmia.rmia_scores([1.0], []),
        lambda: rmia.rmia_scores([1.0], [1.0], 0.0),
    ],
)
def test_what_is_no_probability_is_refused(call):
    with pytest.raises(ValueError, match=r"need|expected"):
        call()

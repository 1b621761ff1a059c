"""The relative test against plain double loops, its interval's coverage, and its verdicts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from unlearning.evaluation import three_sample as relative
from unlearning.evaluation.scorecard import Verdict

WIDTH = 2.5


def plain_kernel(a, b):
    return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (2 * WIDTH**2))


def plain_mmd2(left, right):
    def within(side):
        pairs = list(itertools.permutations(range(len(side)), 2))
        return sum(plain_kernel(side[i], side[j]) for i, j in pairs) / len(pairs)

    across = sum(plain_kernel(a, b) for a in left for b in right) / (len(left) * len(right))
    return within(left) + within(right) - 2 * across


def sides(seed, *shifts, models=12, examples=20, spread=1.0):
    generator = np.random.default_rng(seed)
    return [generator.normal(shift, spread, size=(models, examples)) for shift in shifts]


def test_the_discrepancy_equals_the_plain_loops():
    left, right = sides(0, 0.0, 0.5, models=5, examples=3)
    assert relative.mmd2(left, right[:4], WIDTH) == pytest.approx(plain_mmd2(left, right[:4]))


def test_the_discrepancy_of_equal_distributions_is_zero_on_average():
    found = [relative.mmd2(*sides(seed, 0.0, 0.0, models=6), WIDTH) for seed in range(300)]
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0  # unbiased, so not squared


def test_the_statistic_is_the_difference_of_two_discrepancies():
    unlearned, retrained, original = sides(1, 0.3, 0.0, 1.0, models=6, examples=4)
    found = relative.three_sample(unlearned, retrained[:5], original, width=WIDTH)
    plain = plain_mmd2(unlearned, retrained[:5]) - plain_mmd2(unlearned, original)
    assert found.statistic == pytest.approx(plain)
    assert found.low < found.statistic < found.high
    assert found.width == WIDTH


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.0, Verdict.FORGOTTEN), (1.0, Verdict.NOT_FORGOTTEN), (0.5, Verdict.INCONCLUSIVE)],
)
def test_verdicts(shift, verdict):
    assert relative.three_sample(*sides(2, shift, 0.0, 1.0)).verdict is verdict


def test_a_scenario_in_which_the_original_shows_nothing_is_inconclusive():
    found = [relative.three_sample(*sides(seed, 0.0, 0.0, 0.0), repeats=200) for seed in range(40)]
    settled = sum(one.verdict is not Verdict.INCONCLUSIVE for one in found)
    assert settled <= 6  # 5 % expected; 7 of 40 has a chance of 0.3 %


def test_the_interval_covers_the_true_difference():
    """Half way between the references T is 0 by symmetry: 95 % of the intervals hold it."""
    covered = 0
    for seed in range(200):
        found = relative.three_sample(
            *sides(seed, 0.5, 0.0, 1.0, models=16, examples=10), repeats=200, width=3.0
        )
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 200 <= 0.985


def test_both_references_moved_away_alike_leaves_it_unmoved():
    """What three rounds of fine-tuning do: the models move, along a direction of its own."""
    unlearned, retrained, original = sides(3, 0.0, 0.0, 1.0, examples=40)
    unlearned[:, 20:] += 3
    retrained[:, 20:] = sides(4, 0.0, examples=20)[0]
    original[:, 20:] = sides(5, 0.0, examples=20)[0]
    assert relative.mmd2(unlearned, retrained, 10.0) > 0.1
    assert relative.three_sample(unlearned, retrained, original).verdict is Verdict.FORGOTTEN


def test_the_median_width_is_the_median_of_all_distances():
    left, right = sides(6, 0.0, 2.0, models=4, examples=3)
    pooled = [*left, *right]
    distances = [math.dist(a, b) for a, b in itertools.combinations(pooled, 2)]
    assert relative.median_width(left, right) == pytest.approx(np.median(distances))
    assert relative.median_width(np.ones((3, 2))) == 1.0


def test_the_same_seed_draws_the_same_interval():
    three = sides(7, 0.2, 0.0, 1.0)
    assert relative.three_sample(*three) == relative.three_sample(*three)
    assert relative.three_sample(*three) != relative.three_sample(*three, seed=1)


def test_a_draw_of_one_model_only_is_not_used():
    draws = relative._draws(np.random.default_rng(0), 2, 500)
    assert (draws.sum(axis=1) == 2).all()
    assert draws.max() == 1


def test_too_few_models_or_no_width_are_refused():
    one, two = np.ones((1, 3)), np.ones((2, 3))
    for call in (
        lambda: relative.mmd2(one, two, 1.0),
        lambda: relative.mmd2(two, two, 0.0),
        lambda: relative.three_sample(two, one, two),
        lambda: relative.median_width(one),
    ):
        with pytest.raises(ValueError, match="need"):
            call()

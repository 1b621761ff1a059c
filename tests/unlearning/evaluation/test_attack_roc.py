"""The attack's curve against counting by hand, and its band against exhaustive enumeration."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from unlearning.evaluation.attack_roc import (
    AttackRoc,
    attack_roc,
    mean_found,
    membership_roc,
    null_band,
)
from unlearning.evaluation.scorecard import Outputs, Predictions

losses = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=8)


def test_the_curve_counts_members_with_lower_loss_than_the_kth_other():
    # Others in order of loss: 1, 3. Members below 1: one; below 3: two; all three at the end.
    found = membership_roc([0.5, 2.0, 4.0], [1.0, 3.0])
    assert found.fpr == (0.0, 0.5, 1.0)
    assert found.tpr == pytest.approx((1 / 3, 2 / 3, 1.0))
    assert (found.members, found.non_members) == (3, 2)


@settings(max_examples=50)
@given(losses, losses)
def test_every_point_is_the_share_found_at_no_more_false_alarms(members, others):
    found = membership_roc(members, others)
    for share, tpr in zip(found.fpr, found.tpr, strict=True):
        allowed = [
            np.mean(np.array(members) <= at)
            for at in [-1.0, *members, *others]
            if np.mean(np.array(others) <= at) <= share + 1e-12
        ]
        assert tpr == pytest.approx(max(allowed))


@given(st.permutations(range(11)), st.integers(1, 10))
def test_without_ties_its_area_is_the_auc(order, count):
    members, others = order[:count], order[count:]
    found = membership_roc(members, others)
    area = np.mean(found.tpr[:-1])  # steps of equal width
    truth = [1] * len(members) + [0] * len(others)
    assert area == pytest.approx(roc_auc_score(truth, -np.array([*members, *others])))


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rng = np.random.default_rng(0)
    found = membership_roc(rng.normal(size=500), rng.normal(size=2000))
    assert len(found.fpr) == len(found.tpr) == 101
    assert (found.fpr[0], found.fpr[-1], found.tpr[-1]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(("members", "others", "most"), [([], [1.0], 9), ([1.0], [], 9)])
def test_empty_sets_are_refused(members, others, most):
    with pytest.raises(ValueError, match="need both"):
        membership_roc(members, others, most)
    with pytest.raises(ValueError, match="need both"):
        null_band(len(members), len(others))


def test_one_point_is_no_curve():
    with pytest.raises(ValueError, match="at least 2 points"):
        membership_roc([1.0], [2.0], 1)


def test_curves_are_averaged_as_steps():
    fine = AttackRoc((0.0, 0.5, 1.0), (0.2, 0.6, 1.0), 5, 2)
    coarse = AttackRoc((0.0, 1.0), (0.4, 1.0), 5, 1)
    shares, mean, low, high = mean_found([fine, coarse])
    assert shares.tolist() == [0.0, 0.5, 1.0]
    assert mean == pytest.approx([0.3, 0.5, 1.0])  # the coarse one stays at 0.4 until 1
    assert low == pytest.approx([0.2, 0.4, 1.0])
    assert high == pytest.approx([0.4, 0.6, 1.0])
    with pytest.raises(ValueError, match="no curve"):
        mean_found([])


@pytest.mark.parametrize(("n", "m"), [(4, 3), (3, 5), (5, 1)])
def test_the_band_is_that_of_all_orders_of_the_scores(n, m):
    """Every choice of the members' ranks among n + m is equally likely."""
    found = []
    for ranks in combinations(range(n + m), n):
        others = [rank for rank in range(n + m) if rank not in ranks]
        found.append(np.array(membership_roc(ranks, others).tpr) * n)
    counts = np.round(np.array(found)).astype(int)
    shares, low, high = null_band(n, m)
    assert shares == pytest.approx(np.arange(m + 1) / m)
    for column, ends in enumerate(zip(low * n, high * n, strict=True)):
        for end, share in zip(ends, (0.025, 0.975), strict=True):
            expected = next(
                x for x in range(n + 1) if np.mean(counts[:, column] <= x) >= share - 1e-12
            )
            assert end == pytest.approx(expected)


def test_the_band_narrows_with_the_sets_and_is_quick_for_large_ones():
    wide, narrow = (
        (high - low).max() for _, low, high in (null_band(50, 50), null_band(9000, 9999))
    )
    assert narrow < wide / 5
    shares, low, high = null_band(9000, 9999)
    # Close to the normal limit t (1 - t) (1/n + 1/m), Hsieh and Turnbull 1996.
    middle = np.abs(shares - 0.5).argmin()
    expected = 2 * 1.96 * np.sqrt(0.25 * (1 / 9000 + 1 / 9999))
    assert (high - low)[middle] == pytest.approx(expected, rel=0.02)


def test_outputs_without_a_held_out_set_have_no_curve():
    some = Predictions(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    none = Predictions(np.empty((0, 2)), np.empty(0, np.int64))
    assert attack_roc(Outputs(some, some, some, none)) is None
    found = attack_roc(Outputs(some, some, some, some))
    assert found is not None
    assert found.tpr == (0.0, 0.5, 1.0)

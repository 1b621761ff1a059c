"""U-LiRA against a plain loop with scipy and sklearn, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from unlearning.evaluation import lira

RNG = np.random.default_rng(3)
PHI_U, PHI_R = RNG.normal(0.7, 1.0, size=(6, 9)), RNG.normal(0.0, 1.5, size=(6, 9))


def plain_scores(phi_u, phi_r):
    """Return (K, n) scores of both sides, one fit per model and example."""
    found = np.empty((2, *phi_u.shape))
    for i in range(len(phi_u)):
        for x in range(phi_u.shape[1]):
            rest = [np.delete(side[:, x], i) for side in (phi_u, phi_r)]
            fits = [norm(values.mean(), max(values.std(ddof=1), 1e-3)) for values in rest]
            for side, phi in enumerate((phi_u, phi_r)):
                found[side, i, x] = fits[0].logpdf(phi[i, x]) - fits[1].logpdf(phi[i, x])
    return found


def plain_auc(positive, negative):
    truth = np.repeat([1, 0], [positive.size, negative.size])
    return roc_auc_score(truth, np.concatenate([positive.ravel(), negative.ravel()]))


def test_u_lira_equals_the_plain_loop():
    ours, theirs = plain_scores(PHI_U, PHI_R)
    found = lira.u_lira(PHI_U, PHI_R)
    assert found.unlearned == pytest.approx(ours)
    assert found.retrained == pytest.approx(theirs)
    per_model = [plain_auc(left, right) for left, right in zip(ours, theirs, strict=True)]
    assert found.left_out == pytest.approx(per_model)
    assert found.auc == pytest.approx(np.mean(per_model))
    assert found.advantage == pytest.approx(2 * np.mean(per_model) - 1)
    per_example = [plain_auc(ours[:, x], theirs[:, x]) for x in range(9)]
    assert found.per_example == pytest.approx(per_example)
    assert roc_auc_score(found.truths, found.scores) == pytest.approx(plain_auc(ours, theirs))
    assert found.exploratory


def test_the_values_per_seed_are_those_of_the_jackknife():
    found = lira.u_lira(PHI_U, PHI_R)
    without = np.array(
        [lira.u_lira(np.delete(PHI_U, i, 0), np.delete(PHI_R, i, 0)).auc for i in range(6)]
    )
    pseudo = 6 * found.auc - 5 * without
    assert found.per_model == pytest.approx(pseudo - pseudo.mean() + found.auc)
    assert found.per_model.mean() == pytest.approx(found.auc)
    few = lira.u_lira(PHI_U[:3], PHI_R[:3])
    assert few.per_model.tolist() == few.left_out.tolist()


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 1.1, 1.6), (0.7, 0.9, 1.15)])
def test_their_standard_error_is_that_of_the_auc_or_wider(shift, least, most):
    """Over repeated audits the AUC scatters as its intervals say; never more."""
    generator = np.random.default_rng(8)
    found = [
        lira.u_lira(correlated(16, 30, generator) + shift, correlated(16, 30, generator))
        for _ in range(150)
    ]
    scatter = np.std([one.auc for one in found], ddof=1)
    claimed = np.sqrt(np.mean([one.per_model.var(ddof=1) / 16 for one in found]))
    assert least < claimed / scatter < most
    naive = np.sqrt(np.mean([one.left_out.var(ddof=1) / 16 for one in found]))
    assert naive / scatter < 0.9


def correlated(models, examples, generator):
    """Models whose examples rise and fall together, as those of one training seed do."""
    shared = generator.normal(size=(models, 1))
    return np.sqrt(0.5) * (shared + generator.normal(size=(models, examples)))


def test_equal_sides_score_one_half():
    """The mean over 400 pairs of sides is 0.5 within three standard errors.

    Leaving the judged model out of its own side alone scores 0.480 here, six errors below.
    """
    generator = np.random.default_rng(0)
    found = [
        lira.u_lira(correlated(8, 40, generator), correlated(8, 40, generator)).auc
        for _ in range(400)
    ]
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert error < 0.0045
    assert abs(np.mean(found) - 0.5) < 3 * error


def test_shifted_sides_approach_the_optimal_attack():
    """Two unit normals three apart: the best AUC is Phi(3 / sqrt(2))."""
    generator = np.random.default_rng(1)
    found = lira.u_lira(generator.normal(3, 1, (32, 140)), generator.normal(0, 1, (32, 140)))
    assert found.auc == pytest.approx(norm.cdf(3 / 2**0.5), abs=0.01)
    assert not found.exploratory


def test_a_difference_in_spread_alone_is_found():
    generator = np.random.default_rng(2)
    found = lira.u_lira(generator.normal(0, 3, (16, 100)), generator.normal(0, 1, (16, 100)))
    assert found.auc > 0.7


def test_sides_that_never_vary_are_finite():
    found = lira.u_lira(np.zeros((4, 2)), np.zeros((4, 2)))
    assert found.auc == 0.5
    assert lira.u_lira(np.ones((4, 2)), np.zeros((4, 2))).auc == 1.0


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (2, 3)), ((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4, 0), (4, 0))]
)
def test_sides_that_do_not_fit_are_refused(left, right):
    with pytest.raises(ValueError, match=r"models|examples|expected"):
        lira.u_lira(np.ones(left), np.ones(right))


def test_strata_and_the_worst_share_look_at_the_examples_they_say():
    """Only the last tenth of the examples leaks: it alone has an AUC near 1."""
    generator = np.random.default_rng(4)
    phi_u, phi_r, phi_o = (generator.normal(size=(16, 60)) for _ in range(3))
    phi_u[:, 54:] += 5
    phi_o[:, 54:] += 5
    order = lira.vulnerability(phi_o, generator.normal(size=(16, 60)))
    assert set(np.argsort(order)[-6:]) == set(range(54, 60))
    found = lira.u_lira(phi_u, phi_r)
    strata = lira.by_stratum(found, order, strata=10)
    assert strata[-1] == lira.worst_share(found, order) > 0.99
    assert max(strata[:-1]) < 0.75
    chosen = np.argsort(order, kind="stable")[:6]
    plain = [plain_auc(found.unlearned[i, chosen], found.retrained[i, chosen]) for i in range(16)]
    assert strata[0] == pytest.approx(np.mean(plain))
    assert lira.by_stratum(found, order, strata=1) == [pytest.approx(found.auc)]
    assert len(lira.by_stratum(found, order, strata=100)) == 60
    for wrong in ({"strata": 0}, {"vulnerabilities": [1.0]}):
        with pytest.raises(ValueError, match=r"strata|vulnerabilities"):
            lira.by_stratum(**{"found": found, "vulnerabilities": order, **wrong})
    with pytest.raises(ValueError, match="share"):
        lira.worst_share(found, order, 0)


def test_vulnerability_is_the_gap_in_pooled_standard_deviations():
    """Means 4 and 1, variances 2 and 0.5: 3 / sqrt(1.25)."""
    found = lira.vulnerability([[3.0], [5.0]], [[0.5], [1.5]])
    assert found == pytest.approx([3 / 1.25**0.5])


def test_the_true_positive_rate_is_the_best_within_the_false_positive_rate():
    generator = np.random.default_rng(5)
    scores = np.concatenate([generator.normal(1, 1, 300), generator.normal(0, 1, 200)]).round(1)
    truth = np.repeat([1, 0], [300, 200])
    for rate in (0.05, 0.1, 0.33, 1.0):
        best = 0.0
        for threshold in np.unique(scores):
            if np.mean(scores[300:] >= threshold) <= rate:
                best = max(best, float(np.mean(scores[:300] >= threshold)))
        assert lira.tpr_at_fpr(scores, truth, rate) == pytest.approx(best)
    false_rates, true_rates, _ = roc_curve(truth, scores)
    assert lira.tpr_at_fpr(scores, truth, 0.05) <= np.interp(0.05, false_rates, true_rates)


def test_a_rate_that_the_non_members_cannot_show_is_refused():
    truth = np.repeat([1, 0], [50, 360])
    scores = np.arange(410.0)
    assert lira.smallest_rate(360) == pytest.approx(10 / 360)
    assert lira.tpr_at_fpr(scores, truth, 10 / 360) == 0.0
    with pytest.raises(ValueError, match=r"0\.001 cannot be measured with 360 non-members"):
        lira.tpr_at_fpr(scores, truth, 0.001)
    with pytest.raises(ValueError, match="cannot be measured"):
        lira.tpr_at_fpr(scores, truth, 10 / 361)
    for sides in (np.ones(5), np.zeros(5)):
        with pytest.raises(ValueError, match="need both"):
            lira.tpr_at_fpr(np.arange(5.0), sides, 1.0)


def test_the_change_of_the_retain_set_is_told_per_client():
    """One example of client 7 is exposed by unlearning; the other clients stay as they were."""
    generator = np.random.default_rng(6)
    before = generator.normal(size=(16, 40))
    after = before + generator.normal(scale=0.1, size=(16, 40))
    after[:, 39] += 6
    owners = np.repeat([2, 7], 20)
    found = lira.retain_change(before, after, owners)
    assert list(found) == [2, 7]
    assert found[7].largest > 0.95 > 0.5 > found[2].largest
    advantages = 2 * lira.u_lira(after, before).per_example - 1
    assert found[2].largest == advantages[:20].max()
    assert found[7].high == pytest.approx(np.percentile(advantages[20:], 95))
    with pytest.raises(ValueError, match="owners"):
        lira.retain_change(before, after, owners[:-1])

"""Validity cards: a good metric passes, each kind of bad one fails for its own reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from unlearning.evaluation import cards

GENERATOR = np.random.default_rng(0)
NULL = GENERATOR.normal(0.5, 0.02, 20).tolist()
POSITIVE = GENERATOR.normal(0.9, 0.02, 20).tolist()
DOSES = {10: [0.55, 0.56], 25: [0.62], 50: [0.75]}


def test_a_good_metric_passes_with_its_figures():
    card = cards.validity_card("M3", NULL, POSITIVE, DOSES)
    assert (card.passes, card.reason, card.metric) == (True, "", "M3")
    assert card.separation_auc == 1.0
    assert card.dose_spearman == pytest.approx(1.0)
    assert [k for k, _ in card.dose] == [0, 10, 25, 50, 100]
    assert card.dose[1][1] == pytest.approx(0.555)
    assert (card.null_count, card.positive_count) == (20, 20)
    hits = round(card.false_alarm_rate * 20)
    interval = stats.binomtest(hits, 20).proportion_ci(method="exact")
    assert card.false_alarm_low == pytest.approx(interval.low)
    assert card.false_alarm_high == pytest.approx(interval.high)


def test_a_metric_that_falls_is_turned_round():
    def down(values):
        return [-value for value in values]

    doses = {k: down(values) for k, values in DOSES.items()}
    card = cards.validity_card("M4", down(NULL), down(POSITIVE), doses, remembered="lower")
    assert card.passes
    assert card.dose[0][1] == pytest.approx(-np.mean(NULL))
    wrong = cards.validity_card("M4", down(NULL), down(POSITIVE), doses)
    assert (wrong.separation_auc, wrong.dose_spearman) == (0.0, pytest.approx(-1.0))


def test_a_metric_that_cannot_tell_original_from_retrained_fails():
    overlapping = np.random.default_rng(1).normal(0.51, 0.02, 20).tolist()
    card = cards.validity_card("M4", NULL, overlapping, DOSES)
    truth = [0] * 20 + [1] * 20
    assert card.separation_auc == pytest.approx(roc_auc_score(truth, NULL + overlapping))
    assert not card.passes
    assert "cannot tell original from retrained" in card.reason


def test_a_metric_that_does_not_grow_with_the_dose_fails():
    card = cards.validity_card("M3", NULL, POSITIVE, {10: [0.7], 25: [0.6], 50: [0.55]})
    means = [np.mean(NULL), 0.7, 0.6, 0.55, np.mean(POSITIVE)]
    assert card.dose_spearman == pytest.approx(stats.spearmanr(range(5), means).statistic)
    assert not card.passes
    assert "does not grow" in card.reason
    assert cards.validity_card("M3", [1.0] * 9, [1.0] * 9, {50: [1.0]}).dose_spearman == 0.0


def test_a_metric_that_cries_wolf_fails():
    alarm = cards.Alarm(above=0.49)
    raised = sum(value > 0.49 for value in NULL)
    card = cards.validity_card("M3", NULL, POSITIVE, DOSES, alarm=alarm)
    assert card.false_alarm_rate == raised / 20 > 0.3
    assert not card.passes
    assert f"({raised} of 20)" in card.reason
    assert cards.validity_card("M3", NULL, POSITIVE, DOSES, alarm=cards.Alarm(above=0.7)).passes


def test_twenty_null_runs_fail_a_metric_from_the_fourth_alarm_on():
    """Clopper-Pearson for 3 of 20 begins at .032, for 4 of 20 at .057."""
    alarm = cards.Alarm(above=0.6)
    for hits, passes in ((0, True), (3, True), (4, False), (20, False)):
        null = [0.65 + i / 1000 for i in range(hits)] + NULL[hits:]
        card = cards.validity_card("M3", null, POSITIVE, DOSES, alarm=alarm)
        assert (card.passes or "alarm" not in card.reason) is passes


def test_alarms_lie_on_the_named_side():
    assert cards.Alarm(above=1.0)(1.5)
    assert not cards.Alarm(above=1.0)(1.0)
    assert cards.Alarm(below=0.0)(-0.5)
    assert not cards.Alarm(below=0.0)(5.0)
    assert not cards.Alarm()(math.inf)


def test_the_left_out_alarm_has_a_rate_of_one_in_twenty():
    generator = np.random.default_rng(2)
    raised = [
        cards.leave_one_out_alarms(generator.normal(3, 2, 20).tolist(), "higher")
        for _ in range(1000)
    ]
    assert np.mean(raised) == pytest.approx(0.05, abs=0.005)


def test_the_left_out_limit_is_the_prediction_limit_of_the_others():
    values = [0.1, 0.3, 0.25, 0.2, 0.9, 0.15]
    for side in ("higher", "lower"):
        plain = []
        for i, value in enumerate(values):
            rest = np.delete(values, i)
            reach = stats.t.ppf(0.95, 4) * rest.std(ddof=1) * math.sqrt(1 + 1 / 5)
            above, below = value > rest.mean() + reach, value < rest.mean() - reach
            plain.append(bool(above if side == "higher" else below))
        assert cards.leave_one_out_alarms(values, side) == plain
    assert cards.leave_one_out_alarms(values, "higher")[4]
    # The others' mean is .2, t sd = .1685, with their own error .1846: .376 lies between.
    assert not cards.leave_one_out_alarms([0.1, 0.3, 0.25, 0.2, 0.15, 0.376], "higher")[5]
    assert not any(cards.leave_one_out_alarms([0.1] * 5, "higher"))
    with pytest.raises(ValueError, match="2 values"):
        cards.leave_one_out_alarms([0.1, 0.2], "higher")


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (1, 20), (7, 30), (20, 20)])
def test_the_interval_of_a_rate_is_exact(hits, trials):
    interval = stats.binomtest(hits, trials).proportion_ci(method="exact")
    assert cards.clopper_pearson(hits, trials) == pytest.approx((interval.low, interval.high))


def test_a_card_without_enough_controls_fails_and_says_so():
    card = cards.validity_card("M3", NULL[:4], POSITIVE, DOSES)
    assert not card.passes
    assert "4 null and 20 positive values" in card.reason
    assert card.false_alarm_rate is None
    bare = cards.validity_card("M3", NULL, POSITIVE, {})
    assert not bare.passes
    assert "dose" in bare.reason
    for hits, trials in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="need"):
            cards.clopper_pearson(hits, trials)
    with pytest.raises(ValueError, match="dose 10"):
        cards.validity_card("M3", NULL, POSITIVE, {10: [math.nan]})

"""Perplexity, exposure and completion, on numbers worked out by hand."""

import numpy as np
import pytest

from unlearning.evaluation.scorecard import Outputs, Predictions, membership_null_se, score
from unlearning.evaluation.text import completion, exposure, exposure_null, perplexity


def test_exposure_of_the_likeliest_of_512_is_9_bits_and_of_the_last_is_none() -> None:
    others = np.linspace(1, 2, 511)
    assert exposure([0.5], [others]).tolist() == [9.0]
    assert exposure([3.0], [others]).tolist() == [0.0]


def test_exposure_where_nothing_is_known_has_the_mean_of_its_null() -> None:
    generator = np.random.default_rng(0)
    losses = generator.random((4000, 512))
    found = exposure(losses[:, 0], losses[:, 1:])
    mean, error = exposure_null(512, len(found))
    assert abs(found.mean() - mean) < 3 * error
    assert mean == pytest.approx(1 / np.log(2), abs=0.02)


def test_equal_losses_share_their_rank() -> None:
    assert exposure([1.0], [[1.0, 1.0, 1.0]])[0] == pytest.approx(2 - np.log2(2.5))


@pytest.mark.parametrize("others", [[[]], [1.0], [[1.0], [2.0]]])
def test_shapes_that_do_not_fit_are_refused(others: list[object]) -> None:
    with pytest.raises(ValueError, match="losses of shapes"):
        exposure([1.0], others)


def test_completion_counts_whole_continuations_alone() -> None:
    assert completion([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 9], [5, 6]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="continuations of shapes"):
        completion(np.empty((0, 2)), np.empty((0, 2)))


def test_no_loss_has_no_perplexity() -> None:
    with pytest.raises(ValueError, match="no perplexity"):
        perplexity([])


def test_members_of_sequences_are_told_by_the_mean_over_their_positions() -> None:
    """Two windows of two characters: mean losses ln 2 and (0 + ln 4) / 2 = ln 2: no difference."""
    rows = np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    labels = np.zeros(4, np.int64)
    windows = Predictions(rows, labels, each=2)
    assert windows.num_examples == 2
    assert windows.losses() == pytest.approx([np.log(2), np.log(2)])
    one, two = Predictions(rows[:2], labels[:2], each=2), Predictions(rows[2:], labels[2:], each=2)
    found = Outputs(windows, windows, one, two)
    card = score(found)
    assert card.mia_auc == 0.5
    assert card.retain_accuracy == 0.75
    assert membership_null_se(found) == pytest.approx(
        membership_null_se(Outputs(windows, windows, *[Predictions(rows[:1], labels[:1])] * 2))
    )

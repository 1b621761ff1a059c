"""Counts per client and class, against counting by hand and against the accuracies they add to."""

import numpy as np
import pytest

from unlearning.evaluation.metrics import accuracy
from unlearning.evaluation.scorecard import Predictions
from unlearning.evaluation.tally import Groups, Tally, accuracy_change, remaining_clients, tally


def predictions(guesses, labels, classes=2):
    return Predictions(np.eye(classes)[np.array(guesses, int)], np.array(labels, np.int64))


GROUPS = Groups(
    clients=np.array([4, 4, 4, 1, 1]),
    columns=np.array([0, 0, 1, 1, 1]),
    test_columns=np.array([0, 1, 1]),
    names=("0", "1"),
)
RETAIN = predictions([0, 1, 1, 1, 0], [0, 0, 1, 1, 1])
TEST = predictions([0, 0, 1], [0, 1, 1])


def test_right_answers_are_counted_per_client_and_class():
    found = tally(RETAIN, TEST, GROUPS)
    assert found.clients == (1, 4)
    assert found.correct == ((0, 1), (1, 1))
    assert found.total == ((0, 2), (2, 1))
    assert (found.test_correct, found.test_total) == ((1, 1), (1, 2))


def test_the_counts_add_up_to_the_accuracies_of_the_scorecard():
    rng = np.random.default_rng(0)
    n, classes = 400, 5
    labels = rng.integers(classes, size=n)
    found = Predictions(rng.dirichlet(np.ones(classes), n), labels)
    groups = Groups(rng.integers(7, size=n), labels, labels, tuple("01234"))
    made = tally(found, found, groups)
    expected = accuracy(found.probabilities, found.labels)
    assert np.sum(made.correct) / np.sum(made.total) == pytest.approx(expected)
    assert np.sum(made.test_correct) / np.sum(made.test_total) == pytest.approx(expected)


def test_a_table_that_would_be_too_large_keeps_the_clients_and_the_test_classes():
    whole, small = tally(RETAIN, TEST, GROUPS), tally(RETAIN, TEST, GROUPS, most_cells=3)
    assert small.columns == ("all",)
    assert small.correct == ((1,), (2,))
    assert small.total == ((2,), (3,))
    assert (small.test_columns, small.test_correct) == (whole.test_columns, whole.test_correct)
    for ours, theirs in ((whole, whole), (small, small)):
        assert accuracy_change([ours], [theirs])[1].tolist() == [0.0, 0.0]


def test_groups_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="5 groups"):
        tally(predictions([0], [0]), TEST, GROUPS)
    with pytest.raises(ValueError, match="3 groups"):
        tally(RETAIN, predictions([0], [0]), GROUPS)


def test_nothing_that_stays_and_no_test_data_are_counted_as_nothing():
    none = np.empty(0, np.int64)
    found = tally(
        Predictions(np.empty((0, 2)), none),
        Predictions(np.empty((0, 2)), none),
        Groups(none, none, none, ("0", "1")),
    )
    assert found.clients == ()
    assert found.test_total == (0, 0)
    assert remaining_clients(found, found, 0.01) is None


def a_tally(correct, total=((10, 0), (10, 10)), clients=(0, 2)):
    return Tally("class", clients, ("0", "1"), correct, total, ("0", "1"), (5, 0), (10, 0))


def test_changes_are_means_over_seeds_and_empty_where_nothing_is():
    before = a_tally(((9, 0), (9, 4)))
    after = [a_tally(((6, 0), (9, 4))), a_tally(((8, 0), (9, 8)))]
    cells, clients, test = accuracy_change(after, [before, before])
    assert cells == pytest.approx(np.array([[-0.2, np.nan], [0.0, 0.2]]), nan_ok=True)
    assert clients == pytest.approx([-0.2, 0.1])  # client 2: 13 of 20, then 17 of 20
    assert test == pytest.approx([0.0, np.nan], nan_ok=True)


def test_a_client_is_compared_on_what_both_models_were_asked():
    before = a_tally(((9, 0), (9, 1)))
    after = a_tally(((9, 0), (9, 0)), total=((10, 0), (10, 0)))  # class 1 was forgotten since
    assert accuracy_change([after], [before])[1] == pytest.approx([0.0, 0.0])


def test_other_clients_or_no_seed_cannot_be_compared():
    ours = a_tally(((9, 0), (9, 4)))
    other = a_tally(((9, 0), (9, 4)), clients=(0, 3))
    with pytest.raises(ValueError, match="2 shapes"):
        accuracy_change([ours], [other])
    with pytest.raises(ValueError, match="0 shapes"):
        accuracy_change([], [])
    assert remaining_clients(ours, other, 0.01) is None


def test_the_worst_remaining_client_is_named_with_its_loss():
    reference = a_tally(((9, 0), (9, 4)))
    found = remaining_clients(a_tally(((6, 0), (10, 4))), reference, 0.01)
    assert found is not None
    assert found.client == 0
    assert found.worst == pytest.approx(-0.3)
    assert found.sd == pytest.approx(np.std([-0.3, 0.05], ddof=1))
    assert found.share == 0.5
    assert remaining_clients(reference, reference, 0.01).share == 0


def test_a_loss_of_just_the_margin_is_none():
    reference = a_tally(((10, 0), (10, 10)))
    one = remaining_clients(a_tally(((9, 0), (10, 10))), reference, 0.1)
    assert one.share == 0
    assert remaining_clients(a_tally(((9, 0), (10, 10))), reference, 0.09).share == 0.5

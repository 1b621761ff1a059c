import numpy as np
import pytest

from unlearning.guards import bound_step, class_falls, largest_fall, trigger_rates


def test_falls_are_told_per_class():
    labels = np.array([0, 0, 1, 1, 1, 1])
    before = np.array([0, 0, 1, 1, 1, 0])
    after = np.array([0, 1, 1, 0, 0, 1])
    assert class_falls(before, after, labels) == {0: 0.5, 1: 0.25}


def test_a_class_that_rises_has_a_negative_fall():
    assert class_falls(np.array([1]), np.array([0]), np.array([0])) == {0: -1.0}


def test_what_was_asked_for_is_excused():
    falls = {0: 0.1, 4: 0.9, 7: 0.3}
    assert largest_fall(falls) == (4, 0.9)
    assert largest_fall(falls, excused=[4]) == (7, 0.3)
    assert largest_fall(falls, excused=[0, 4, 7]) == (-1, 0.0)


def test_the_first_of_equals_is_named():
    assert largest_fall({2: 0.5, 1: 0.5})[0] == 1


def test_a_step_beyond_the_limit_is_shortened():
    before = {"w": np.array([3.0, 4.0]), "n": np.array(1)}  # length 5
    after = {"w": np.array([3.0, 9.0]), "n": np.array(2)}  # a step of 5: as long again
    bound, share = bound_step(before, after, 0.2)
    assert share == pytest.approx(1.0)
    np.testing.assert_allclose(bound["w"], [3.0, 5.0])
    assert bound["n"] == 2
    assert bound_step(before, after, 1.0) == (after, 1.0)


def test_no_step_and_a_model_of_length_zero():
    zero, one = {"w": np.zeros(2)}, {"w": np.ones(2)}
    assert bound_step(zero, zero, 0.1) == (zero, 0.0)
    bound, share = bound_step(zero, one, 0.1)
    assert share == float("inf")
    np.testing.assert_array_equal(bound["w"], [0, 0])


def test_rates_leave_out_the_class_itself():
    labels = np.array([0, 1, 1, 2])
    predicted = np.array([[0, 0, 0, 1], [2, 2, 2, 2]])
    rates = trigger_rates(predicted, labels, 3)
    np.testing.assert_allclose(rates, [[2 / 3, 1 / 2, 0], [0, 0, 1]])


def test_no_canary_of_another_class_is_no_success():
    assert trigger_rates(np.array([[1]]), np.array([1]), 2).tolist() == [[0.0, 0.0]]

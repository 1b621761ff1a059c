import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning import arrays as named
from unlearning.robust import bound_norm, median, trimmed_mean


def updates(*values, counter=True):
    """Return one update per value, equal in every entry, with a counter beside it."""
    found = []
    for place, value in enumerate(values):
        update = {"w": np.full((2,), value, np.float32)}
        found.append({**update, "num_batches_tracked": np.int64(place)} if counter else update)
    return found


@pytest.mark.parametrize(
    ("values", "trim", "wanted"),
    [
        ([1, 2, 30], 0.5, 2.0),
        ([1, 2, 30, 40], 0.5, 16.0),  # the mean of the two in the middle
        ([1, 2, 3, 4, 1000], 0.2, 3.0),  # one on each side is left out
        ([1, 2, 3, 7, 1000], 0.21, 3.0),  # rounded up to two, of which one value stays
        ([1, 3], 0.4, 2.0),  # nothing can be left out
        ([7], 0.5, 7.0),
        ([1, 2, 6], 0.0, 3.0),
    ],
)
def test_the_trimmed_mean_of_a_few_numbers(values, trim, wanted):
    combined = trimmed_mean(updates(*values), trim)
    np.testing.assert_array_equal(combined["w"], np.full(2, wanted, np.float32))
    assert combined["w"].dtype == np.float32
    assert combined["num_batches_tracked"] == len(values) - 1


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=9),
    st.lists(st.floats(-1e6, 1e6, width=32), max_size=4),
)
def test_a_minority_cannot_move_the_median_beyond_the_others(honest, hostile):
    hostile = hostile[: (len(honest) - 1)]
    found = float(median(updates(*honest, *hostile))["w"][0])
    assert min(honest) <= found <= max(honest)


def test_coordinates_are_combined_one_by_one():
    rows = [{"w": np.array(row, np.float32)} for row in ([1, 9], [2, 8], [3, 100])]
    np.testing.assert_array_equal(median(rows)["w"], [2, 9])


def test_nothing_cannot_be_combined():
    with pytest.raises(ValueError, match="no updates"):
        median([])


def test_a_long_update_is_shortened_and_a_short_one_is_not():
    update = {"w": np.array([3.0, 4.0], np.float32), "bn.running_mean": np.array([50.0])}
    bound = bound_norm(update, 1.0)
    np.testing.assert_allclose(bound["w"], [0.6, 0.8], rtol=1e-6)
    assert bound["bn.running_mean"] == 50.0
    assert named.norm(bound) == pytest.approx(1.0)
    assert bound_norm(update, 5.0) is update

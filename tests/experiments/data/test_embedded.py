"""Tables read from scikit-learn's folder are those that it loads itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import datasets

from experiments.data import embedded
from unlearning.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "heading", "load"),
    [
        ("digits.csv.gz", 0, datasets.load_digits),
        ("breast_cancer.csv", 1, datasets.load_breast_cancer),
        ("wine_data.csv", 1, datasets.load_wine),
    ],
)
def test_the_rows_are_those_of_scikit_learn(name, heading, load):
    rows = embedded._rows(name, heading)
    x, y = load(return_X_y=True)
    np.testing.assert_array_equal(rows[:, :-1], x)
    np.testing.assert_array_equal(rows[:, -1], y)


def test_without_scikit_learn_it_says_so(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"does not hold digits\.csv\.gz; install"):
        embedded.read_digits(None, False)

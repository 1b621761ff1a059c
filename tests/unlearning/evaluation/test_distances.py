"""Distances between two models' insides: CKA by its kernel form, invariances, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ortho_group

from unlearning.evaluation.distances import activation_distance, js_divergence, linear_cka

GENERATOR = np.random.default_rng(0)
LEFT, RIGHT = GENERATOR.normal(size=(30, 6)), GENERATOR.normal(size=(30, 4)) + 2


def test_linear_cka_equals_hsic_of_the_centred_gram_matrices():
    centre = np.eye(30) - 1 / 30
    gram, other = centre @ LEFT @ LEFT.T @ centre, centre @ RIGHT @ RIGHT.T @ centre
    expected = np.sum(gram * other) / np.sqrt(np.sum(gram**2) * np.sum(other**2))
    assert linear_cka(LEFT, RIGHT) == pytest.approx(expected)
    assert 0 < expected < 0.5


def test_rotation_scale_and_shift_do_not_change_a_representation():
    rotation = ortho_group.rvs(6, random_state=1)
    assert linear_cka(LEFT, 3 * LEFT @ rotation + 5) == pytest.approx(1.0)
    assert linear_cka(LEFT, LEFT * [100, 1, 1, 1, 1, 1]) < 0.9


def test_a_layer_that_never_varies_has_no_alignment():
    assert linear_cka(LEFT, np.ones((30, 2))) is None


def test_activations_are_flattened_and_compared_by_example():
    ours = GENERATOR.normal(size=(5, 2, 3))
    theirs = ours + np.arange(5.0)[:, None, None]
    assert activation_distance(ours, theirs) == pytest.approx(np.mean(np.arange(5) * 6**0.5))
    assert linear_cka(ours, ours) == pytest.approx(1.0)


def test_the_divergence_of_outputs_is_the_one_of_the_scorecard():
    rows = GENERATOR.dirichlet(np.ones(4), size=(2, 9))
    plain = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(*rows, strict=True)])
    assert js_divergence(*rows) == pytest.approx(plain)


@pytest.mark.parametrize(
    "call",
    [
        lambda: linear_cka(LEFT, RIGHT[:-1]),
        lambda: linear_cka(LEFT[0], LEFT[0]),
        lambda: linear_cka(LEFT, np.full((30, 2), np.nan)),
        lambda: activation_distance(LEFT, RIGHT),
        lambda: activation_distance(LEFT[:0], LEFT[:0]),
    ],
)
def test_layers_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=r"same examples|NaN|differ"):
        call()

"""Certified Newton removal: the step, its bound, and its budget (oracle 22)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearning.models import newton
from unlearning.models.conjugate import advance, begin
from unlearning.models.newton import (
    add,
    budget,
    classify,
    gradient,
    lean_bound,
    products,
    removal_bound,
    rows_of,
    step,
    stretch,
    terms,
)

PENALTY = 1e-3


def _data(size: int = 400, width: int = 6, classes: int = 3):
    generator = np.random.default_rng(5)
    x = generator.random(size=(size, width))
    return rows_of(x), (x[:, 0] * classes * 0.999 + 0.2 * generator.normal(size=size)).clip(
        0, classes - 0.01
    ).astype(int)


def _trained(rows, labels, noise, weights=None, rounds=12):
    weights = np.zeros_like(noise) if weights is None else weights
    for _ in range(rounds):
        weights = weights + step(weights, terms(weights, rows, labels), noise, PENALTY)
    return weights


def _noise(width, classes=3, sigma=0.1):
    return sigma * np.random.default_rng(0).normal(size=(classes, width))


def test_gradient_and_hessian_by_hand_and_by_differences():
    """At w = 0 the gradient of an example is -y x / 2 and its Hessian x x' / 4."""
    rows, labels = np.array([[0.6, -0.8]]), np.array([1])
    found = terms(np.zeros((2, 2)), rows, labels)
    np.testing.assert_allclose(found.gradient, [[0.3, -0.4], [-0.3, 0.4]])
    np.testing.assert_allclose(found.hessian[0], np.outer(rows, rows) / 4)
    rows, labels = _data(30)
    weights = np.random.default_rng(1).normal(size=(3, rows.shape[1]))
    shift = 1e-6 * np.random.default_rng(2).normal(size=weights.shape)
    ahead = terms(weights + shift, rows, labels).gradient
    behind = terms(weights - shift, rows, labels).gradient
    expected = np.einsum("cde,ce->cd", terms(weights, rows, labels).hessian, 2 * shift)
    np.testing.assert_allclose(ahead - behind, expected, rtol=1e-6, atol=1e-12)


def test_the_sums_of_clients_add_up():
    rows, labels = _data()
    weights = np.random.default_rng(1).normal(size=(3, rows.shape[1]))
    joined = add(terms(weights, rows[:100], labels[:100]), terms(weights, rows[100:], labels[100:]))
    whole = terms(weights, rows, labels)
    np.testing.assert_allclose(joined.gradient, whole.gradient, atol=1e-12)
    np.testing.assert_allclose(joined.hessian, whole.hessian, atol=1e-12)
    np.testing.assert_array_equal(joined.counts, whole.counts)


@pytest.mark.parametrize("removed", [1, 5, 40])
def test_the_gradient_left_stays_below_its_bound_and_the_model_comes_near(removed):
    rows, labels = _data()
    noise = _noise(rows.shape[1])
    weights = _trained(rows, labels, noise)
    left = terms(weights, rows[removed:], labels[removed:])
    moved = step(weights, left, noise, PENALTY)
    after = terms(weights + moved, rows[removed:], labels[removed:])
    residual = np.linalg.norm(gradient(weights + moved, after, noise, PENALTY))
    assert 0 < residual <= removal_bound(moved, left.gram)
    retrained = _trained(rows[removed:], labels[removed:], noise)
    before = np.linalg.norm(weights - retrained)
    assert np.linalg.norm(weights + moved - retrained) < before / 10


def test_the_bound_holds_where_the_model_had_not_converged():
    rows, labels = _data()
    noise = _noise(rows.shape[1])
    weights = _trained(rows, labels, noise, rounds=1)
    left = terms(weights, rows[3:], labels[3:])
    moved = step(weights, left, noise, PENALTY)
    after = terms(weights + moved, rows[3:], labels[3:])
    residual = np.linalg.norm(gradient(weights + moved, after, noise, PENALTY))
    assert residual <= removal_bound(moved, left.gram)


def test_products_are_those_of_the_matrices_that_are_never_formed():
    rows, labels = _data(50)
    weights, direction = np.random.default_rng(1).normal(size=(2, 3, rows.shape[1]))
    found = terms(weights, rows, labels)
    expected = np.einsum("cde,ce->cd", found.hessian, direction)
    np.testing.assert_allclose(products(rows, direction, weights), expected, rtol=1e-12)
    np.testing.assert_allclose(products(rows, direction, None), direction @ found.gram)
    lean = terms(weights, rows, labels, matrices=False)
    np.testing.assert_array_equal(lean.gradient, found.gradient)
    assert lean.hessian.size == lean.gram.size == 0


@pytest.mark.parametrize("size", [0, 1, 2, 50])
def test_the_largest_eigenvalue_is_not_undercut(size):
    rows, _ = _data(size)
    exact = np.linalg.eigvalsh(rows.T @ rows)[-1] if size else 0.0
    assert exact <= stretch(rows) <= exact * (1 + 1e-6)


def test_the_bound_from_products_is_that_from_the_matrix_and_counts_what_is_unsolved():
    rows, _ = _data()
    moved = np.random.default_rng(1).normal(size=(3, rows.shape[1]))
    gram, none = rows.T @ rows, np.zeros(3)
    parts = [rows[:150], rows[150:]]
    product = sum(products(part, moved, None) for part in parts)
    whole = sum(stretch(part) for part in parts)
    exact = removal_bound(moved, gram)
    assert lean_bound(moved, product, stretch(rows), none) == pytest.approx(exact)
    assert exact <= lean_bound(moved, product, whole, none) < 1.05 * exact
    assert lean_bound(0 * moved, 0 * product, whole, np.array([3.0, 0.0, 4.0])) == 5.0


def test_a_step_that_is_not_solved_leaves_no_more_than_its_bound():
    rows, labels = _data()
    noise = _noise(rows.shape[1])
    weights = _trained(rows, labels, noise)
    left, kept = terms(weights, rows[40:], labels[40:]), rows[40:]
    slope = gradient(weights, left, noise, PENALTY)
    search = begin(-slope)
    for number in range(4):
        moved = search.solution
        after = terms(weights + moved, kept, labels[40:])
        residual = np.linalg.norm(gradient(weights + moved, after, noise, PENALTY))
        product = products(kept, moved, None)
        bound = lean_bound(moved, product, stretch(kept), search.left)
        assert residual <= bound * (1 + 1e-12)
        assert number or bound == pytest.approx(np.linalg.norm(slope))
        ridge = PENALTY * len(kept) * search.direction
        search = advance(search, products(kept, search.direction, weights) + ridge)


def test_the_step_is_exact_for_squared_loss(monkeypatch):
    """With a constant Hessian one Newton step reaches the minimum: the gradient left is zero."""

    def squared(weights, rows, labels):
        signs = np.where(labels[:, None] == np.arange(len(weights)), 1.0, -1.0)
        error = rows @ weights.T - signs
        curved = np.repeat((rows.T @ rows)[None], len(weights), axis=0)
        return newton.Terms(error.T @ rows, curved, rows.T @ rows, np.bincount(labels, minlength=3))

    rows, labels = _data()
    noise = _noise(rows.shape[1])
    weights = step(np.zeros_like(noise), squared(np.zeros_like(noise), rows, labels), noise, 0.01)
    moved = step(weights, squared(weights, rows[9:], labels[9:]), noise, 0.01)
    after = squared(weights + moved, rows[9:], labels[9:])
    assert np.abs(gradient(weights + moved, after, noise, 0.01)).max() < 1e-10


def test_the_budget_is_that_of_the_paper():
    """With delta = 1.5 exp(-c^2 / 2) and c = 4 the budget is sigma epsilon / 4."""
    assert budget(10.0, 0.5, 1.5 * math.exp(-8)) == pytest.approx(10 * 0.5 / 4)


def test_rows_are_no_longer_than_one():
    rows = rows_of(np.array([[1.0, 1.0, 1.0], [30.0, -4.0, 2.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1.0, 1.0, 0.5])


def test_corner_cases():
    rows, labels = _data(10)
    empty = terms(np.zeros((3, rows.shape[1])), rows[:0], labels[:0])
    with pytest.raises(ValueError, match="both must be positive"):
        step(np.zeros((3, rows.shape[1])), empty, _noise(rows.shape[1]), PENALTY)
    np.testing.assert_allclose(classify(_noise(rows.shape[1]), empty.counts, rows), 1 / 3)
    shares = classify(_noise(rows.shape[1]), np.array([3, 0, 2]), rows)
    assert (shares[:, 1] == 0).all()
    np.testing.assert_allclose(shares.sum(1), 1)

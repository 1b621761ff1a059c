"""The compact L-BFGS product against the recursion it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.local_model import lbfgs
from strategies.local_model.lbfgs import coefficients, gram, linear


def product(ys, ss, v):
    """Return B v for steps and differences given as rows, through the functions under test."""
    columns = [{"w": row} for row in (*ys, *ss, v)]
    factors = coefficients(gram(columns))
    return None if factors is None else linear(columns, factors)["w"]


def recursive(ys, ss):
    """Return the BFGS matrix, pair by pair, from sigma I."""
    sigma = ys[-1] @ ss[-1] / (ss[-1] @ ss[-1])
    matrix = sigma * np.eye(len(ss[0]))
    for y, s in zip(ys, ss, strict=True):
        bs = matrix @ s
        matrix = matrix - np.outer(bs, bs) / (s @ bs) + np.outer(y, y) / (y @ s)
    return matrix


def pairs(seed, m, size):
    """Return differences and steps of a convex quadratic, and its matrix."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    matrix = root @ root.T + 0.1 * np.eye(size)
    ss = rng.normal(size=(m, size))
    return ss @ matrix, ss, matrix


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_product_is_that_of_the_recursive_matrix(seed, m):
    ys, ss, _ = pairs(seed, m, 6)
    v = np.random.default_rng([seed, 1]).normal(size=6)
    np.testing.assert_allclose(product(ys, ss, v), recursive(ys, ss) @ v, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_secant_equation_holds_for_the_last_step(m):
    ys, ss, _ = pairs(0, m, 6)
    np.testing.assert_allclose(product(ys, ss, ss[-1]), ys[-1], rtol=1e-9, atol=1e-10)


def test_on_a_quadratic_conjugate_steps_of_full_number_give_its_matrix():
    """Steps along the eigenvectors; steps in general position satisfy only the last secant."""
    size = 4
    *_, matrix = pairs(3, 1, size)
    steps = np.linalg.eigh(matrix)[1].T * np.array([[1.0], [-2.0], [0.5], [3.0]])
    v = np.array([1.0, -2.0, 3.0, 0.5])
    np.testing.assert_allclose(product(steps @ matrix, steps, v), matrix @ v, rtol=1e-9)


def test_one_step_is_enough_where_curvature_is_the_same_everywhere():
    s, v = np.array([1.0, 2.0, -1.0]), np.array([0.3, 0.0, 5.0])
    np.testing.assert_allclose(product([2.5 * s], [s], v), 2.5 * v, atol=1e-13)


def test_scale_and_repetition_of_steps_do_not_matter():
    ys, ss, _ = pairs(1, 2, 5)
    v = np.arange(5.0)
    expected = product(ys, ss, v)
    np.testing.assert_allclose(product(1e-6 * ys, 1e-6 * ss, v), expected, rtol=1e-8)
    twice = [0, 1, 1]
    np.testing.assert_allclose(product(ys[twice], ss[twice], v), expected, rtol=1e-8)


def test_pairs_without_meaning_are_left_out():
    ys, ss, _ = pairs(2, 2, 5)
    v, zero = np.arange(5.0), np.zeros(5)
    expected = product(ys, ss, v)
    bad_y, bad_s = -ys[0], ss[0]  # negative curvature
    found = product([zero, bad_y, *ys], [zero, bad_s, *ss], v)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(product([*ys, bad_y, zero], [*ss, bad_s, zero], v), expected)


def test_without_curvature_there_is_no_product_and_without_steps_it_is_zero():
    s, v = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert product([-s], [s], v) is None
    assert product([0 * s], [s], v) is None
    np.testing.assert_array_equal(product([], [], v), [0, 0])
    np.testing.assert_array_equal(product([0 * s], [0 * s], v), [0, 0])


def test_blocks_and_several_arrays_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)

    def model():
        return {
            "a": rng.normal(size=(3, 5)).astype(np.float32),
            "running_mean": rng.normal(size=2).astype(np.float32),
            "b": rng.normal(size=7).astype(np.float32),
            "count": np.array(3),
        }

    columns = [model() for _ in range(3)]
    flat = [np.concatenate([c["a"].ravel(), c["b"]]).astype(np.float64) for c in columns]
    monkeypatch.setattr(lbfgs, "_BLOCK", 4)
    np.testing.assert_allclose(gram(columns), np.array(flat) @ np.array(flat).T, rtol=1e-12)
    found = linear(columns, [1.0, -2.0, 0.5])
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "a": ((3, 5), "float32"),
        "b": ((7,), "float32"),
    }
    expected = flat[0] - 2 * flat[1] + 0.5 * flat[2]
    joined = np.concatenate([found["a"].ravel(), found["b"]])
    np.testing.assert_allclose(joined, expected, rtol=1e-6, atol=1e-6)

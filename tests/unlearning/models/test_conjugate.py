"""Conjugate gradients step by step: the direct solution, and SciPy's, without the matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import cg

from unlearning.models.conjugate import advance, begin


def systems(count: int = 3, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    roots = generator.normal(size=(count, 20, width))
    matrices = roots.transpose(0, 2, 1) @ roots + 0.1 * np.eye(width)
    return matrices, generator.normal(size=(count, width))


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("sde,se->sd", matrices, vectors)


def test_it_solves_in_as_many_steps_as_there_are_unknowns() -> None:
    matrices, target = systems()
    search = begin(target)
    for _ in range(7):
        search = advance(search, times(matrices, search.direction))
    expected = np.linalg.solve(matrices, target[..., None])[..., 0]
    np.testing.assert_allclose(search.solution, expected, rtol=1e-9)
    np.testing.assert_allclose(search.residual, target - times(matrices, expected), atol=1e-9)


def test_every_step_is_that_of_scipy() -> None:
    matrices, target = systems()
    search = begin(target)
    for number in range(1, 5):
        search = advance(search, times(matrices, search.direction))
        for matrix, s, found in zip(matrices, target, search.solution, strict=True):
            theirs, _ = cg(matrix, s, rtol=0, maxiter=number)
            np.testing.assert_allclose(found, theirs, rtol=1e-9)
        exact = np.linalg.norm(target - times(matrices, search.solution), axis=1)
        np.testing.assert_allclose(search.left, exact, rtol=1e-9)


def test_a_system_that_is_solved_stays_as_it_is() -> None:
    target = np.array([[2.0, 0.0], [0.0, 0.0]])
    search = begin(target)
    for _ in range(3):
        search = advance(search, 4 * search.direction)
    np.testing.assert_array_equal(search.solution, target / 4)
    assert not search.left.any()

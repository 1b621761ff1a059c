"""Support vector machines: the solution, and unlearning from it (oracle 23)."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning.models import svm
from unlearning.models.svm import Features, Machine, decrement, fit, fourier, kernel, violation


def _problem(size: int = 50, *, overlap: float = 1.0, seed: int = 4):
    generator = np.random.default_rng(seed)
    signs = np.where(np.arange(size) % 2, 1.0, -1.0)
    rows = generator.normal(scale=overlap, size=(size, 3)) + 0.7 * signs[:, None]
    return kernel(fourier(rows, 200, 0.3, 0)), signs


def _same(found: Machine, expected: Machine, products, signs, left) -> None:
    ours = products[:, left] @ (signs[left] * found.alpha) + found.bias
    theirs = products[:, left] @ (signs[left] * expected.alpha) + expected.bias
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_two_points_by_hand():
    """K = diag(1, 1), signs (1, -1), C = 5: a = (1, 1), b = 0 (maximise 2a - a^2)."""
    found = fit(np.eye(2), np.array([1.0, -1.0]), 5.0)
    np.testing.assert_allclose(found.alpha, [1, 1], atol=1e-9)
    assert abs(found.bias) < 1e-9


@pytest.mark.parametrize("ceiling", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("overlap", [0.3, 1.0])
def test_every_leave_one_out_equals_a_new_solution(ceiling, overlap):
    products, signs = _problem(overlap=overlap)
    whole = fit(products, signs, ceiling)
    assert violation(products, signs, ceiling, whole) < 1e-8
    for gone in range(len(signs)):
        left = np.delete(np.arange(len(signs)), gone)
        found, _ = decrement(products, signs, ceiling, whole, np.array([gone]))
        assert violation(products[np.ix_(left, left)], signs[left], ceiling, found) < 1e-8
        again = fit(products[np.ix_(left, left)], signs[left], ceiling)
        _same(found, again, products, signs, left)


def test_a_reserve_example_costs_nothing():
    products, signs = _problem(overlap=0.3)
    whole = fit(products, signs, 10.0)
    reserve = np.flatnonzero(whole.alpha == 0)
    found, events = decrement(products, signs, 10.0, whole, reserve[:5])
    assert events == 0
    np.testing.assert_array_equal(found.alpha, np.delete(whole.alpha, reserve[:5]))
    assert found.bias == whole.bias


@settings(max_examples=15)
@given(st.permutations(range(40)), st.integers(1, 36), st.sampled_from([0.1, 1.0, 30.0]))
def test_deleting_in_any_order_equals_retraining(order, number, ceiling):
    products, signs = _problem(40)
    machine, there = fit(products, signs, ceiling), np.arange(40)
    for gone in order[:number]:
        place = np.flatnonzero(there == gone)
        block = products[np.ix_(there, there)]
        machine, _ = decrement(block, signs[there], ceiling, machine, place)
        there = np.delete(there, place)
        if len(set(signs[there])) == 2:
            block = products[np.ix_(there, there)]
            assert violation(block, signs[there], ceiling, machine) < 1e-8
    again = fit(products[np.ix_(there, there)], signs[there], ceiling)
    _same(machine, again, products, signs, there)


@pytest.mark.parametrize("ceiling", [0.3, 5.0])
def test_the_path_itself_ends_at_the_solution(ceiling):
    """Before anything is solved directly: the steps alone keep the conditions."""
    products, signs = _problem()
    for gone in range(0, 50, 3):
        path = svm._Path(products, signs, ceiling, fit(products, signs, ceiling))
        path.remove(gone)
        left = np.delete(np.arange(50), gone)
        found = Machine(path.alpha[left], path.bias)
        assert violation(products[np.ix_(left, left)], signs[left], ceiling, found) < 1e-7


def test_several_at_once_equal_one_after_the_other():
    products, signs = _problem()
    left = np.arange(20, 50)
    found, events = decrement(products, signs, 1.0, fit(products, signs, 1.0), np.arange(20))
    assert events > 0
    _same(found, fit(products[20:, 20:], signs[20:], 1.0), products, signs, left)


def test_the_last_example_of_a_label_leaves_a_constant():
    products, signs = _problem(6)
    whole = fit(products, signs, 1.0)
    found, events = decrement(products, signs, 1.0, whole, np.array([1, 3, 5]))
    assert events == 0
    assert not found.alpha.any()
    assert found.bias == -1
    assert fit(products[:0, :0], signs[:0], 1.0).bias == 0


def test_coinciding_examples():
    rows = np.repeat(np.random.default_rng(0).normal(size=(10, 3)), 3, axis=0)
    signs = np.where(rows[:, 0] > 0, 1.0, -1.0)
    products = kernel(rows)
    whole = fit(products, signs, 1.0)
    for gone in range(0, 30, 4):
        left = np.delete(np.arange(30), gone)
        found, _ = decrement(products, signs, 1.0, whole, np.array([gone]))
        again = fit(products[np.ix_(left, left)], signs[left], 1.0)
        _same(found, again, products, signs, left)


def test_fourier_features_approximate_the_kernel():
    rows = np.random.default_rng(1).normal(size=(20, 4))
    features = fourier(rows, 20_000, 0.2, 3)
    squared = np.square(rows[:, None] - rows[None]).sum(2)
    np.testing.assert_allclose(features @ features.T, np.exp(-0.2 * squared), atol=0.04)


def test_an_example_without_weight_is_not_left_in_the_bias() -> None:
    """With x = 0, 1, 10, y = -1, 1, 1, C = .1: alpha = .1, .1, 0, nobody on the margin.

    f = (0, .1, 1). The bias lies in [0, .9] with all three, .45; without the third in [-1, .9],
    -.05, as a refit has it, wherever the third was.
    """
    signs, ceiling = np.array([-1.0, 1.0, 1.0]), 0.1
    for far in (10.0, 20.0):
        x = np.array([[0.0], [1.0], [far]])
        for products in (kernel(x), Features(x)):
            whole = fit(products, signs, ceiling)
            assert np.allclose(whole.alpha, [0.1, 0.1, 0], atol=1e-9)
            after, events = decrement(products, signs, ceiling, whole, np.array([2]))
            assert events == 0
            assert after.bias == pytest.approx(-0.05, abs=1e-8)
    assert fit(kernel(x[:2]), signs[:2], ceiling).bias == pytest.approx(-0.05, abs=1e-8)


def test_by_features_is_by_kernel_and_a_removal_is_a_refit() -> None:
    """Small ceilings leave the margin empty; 90 removals, those without an event among."""
    generator = np.random.default_rng(0)
    quiet = 0
    for ceiling in np.repeat([0.02, 0.1, 1.0], 30).tolist():
        n = int(generator.integers(6, 24))
        x = generator.normal(size=(n, 30)) / 4  # more features than examples: definite
        signs = np.where(generator.random(n) < 0.5, 1.0, -1.0)
        signs[:2] = 1.0, -1.0
        whole = fit(Features(x), signs, ceiling)
        dense = fit(kernel(x), signs, ceiling)
        assert np.allclose(whole.alpha, dense.alpha, atol=1e-8)
        assert whole.bias == pytest.approx(dense.bias, abs=1e-8)
        gone = generator.choice(np.arange(2, n), int(generator.integers(1, 3)), replace=False)
        kept = np.setdiff1d(np.arange(n), gone)
        after, events = decrement(Features(x), signs, ceiling, whole, gone)
        again = fit(kernel(x[kept]), signs[kept], ceiling)
        quiet += not events
        assert np.allclose(after.alpha, again.alpha, atol=1e-8)
        assert after.bias == pytest.approx(again.bias, abs=1e-8)
    assert quiet


def test_nothing_of_n_times_n_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: with 400 examples no array of the path has 400 times 400 entries."""
    generator = np.random.default_rng(0)
    x, signs = generator.normal(size=(400, 5)), np.where(np.arange(400) % 2, 1.0, -1.0)
    whole = fit(Features(x), signs, 1.0)
    tracemalloc.start()
    decrement(Features(x), signs, 1.0, whole, np.array([0, 1]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400 * 400 * 8 / 2


def test_the_solver_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, unlearning.models.svm_model; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e5])
def test_columns_of_any_scale_unlearn_as_a_refit(scale: float) -> None:
    # The ridge is lost beside columns such as an income: matrices are singular, paths turn round.
    for seed in range(9):
        generator = np.random.default_rng([seed, 78])
        n, width = int(generator.integers(3, 8)), int(generator.integers(1, 4))
        x = generator.integers(0, 12, (n, width)).astype(float)
        x[:, 0] *= scale
        signs = np.where(generator.random(n) < 0.5, 1.0, -1.0)
        whole = fit(Features(x), signs, 1.0)
        gone = np.sort(generator.choice(n, int(generator.integers(1, n - 1)), replace=False))
        found, _ = decrement(Features(x), signs, 1.0, whole, gone)
        left = np.setdiff1d(np.arange(n), gone)
        again = fit(Features(x[left]), signs[left], 1.0)
        direction = [x[left].T @ (m.alpha * signs[left]) for m in (found, again)]
        answers = [x[left] @ d + m.bias for d, m in zip(direction, (found, again), strict=True)]
        np.testing.assert_allclose(answers[0], answers[1], rtol=1e-6, atol=1e-6)


def test_weights_far_below_the_ceiling_are_weights() -> None:
    # alpha is about 1 / |x|^2 = 1e-6, a hundred-thousand-millionth of C.
    x, signs = np.array([[0.0], [1000.0], [2500.0]]), np.array([-1.0, 1.0, 1.0])
    found, _ = decrement(Features(x), signs, 1e5, fit(Features(x), signs, 1e5), np.array([2]))
    assert found.bias == pytest.approx(-1, rel=1e-6)
    np.testing.assert_allclose(found.alpha, [2e-6, 2e-6], rtol=1e-6)

"""Support vector machines that unlearn an example by following the solution along its weight.

References
----------
Cauwenberghs, Poggio, "Incremental and Decremental Support Vector Machine Learning", NIPS 2000;
Rahimi, Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007.

The dual with Q_ij = y_i y_j K_ij and 0 <= a_i <= C has the gradients
g_i = sum_j Q_ij a_j + y_i b - 1; margin: g = 0; error: a = C, g <= 0; reserve: a = 0, g >= 0.

Shapes: n examples, D features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Features", "Machine", "decrement", "fit", "fourier", "kernel", "violation"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MARGIN, _ERROR, _RESERVE, _OUT = 0, 1, 2, 3
_JITTER = 1e-8  # on the diagonal: keeps the margin's matrix regular where examples coincide


@dataclass(frozen=True)
class Machine:
    """A solved dual.

    Parameters
    ----------
    alpha : array, shape (n,)
        Weights.
    bias : float
        b. Where no example lies on the margin, the middle of the values that solve the problem;
        with a single class left its label, all weights 0: the constant classifier.
    """

    alpha: Floats
    bias: float


def fourier(rows: Floats, num_features: int, gamma: float, seed: int) -> Floats:
    """Return random Fourier features of the kernel exp(-gamma |x - x'|^2), shape (n, D).

    The frequencies depend on ``seed`` alone, so that all clients use the same ones.
    """
    generator = np.random.default_rng([seed, num_features])
    frequencies = generator.normal(scale=np.sqrt(2 * gamma), size=(rows.shape[1], num_features))
    phases = generator.uniform(0, 2 * np.pi, num_features)
    return np.asarray(np.sqrt(2 / num_features) * np.cos(rows @ frequencies + phases))


@dataclass(frozen=True)
class Features:
    """A kernel by its features: all that :func:`kernel` is used for, without its n times n entries.

    Parameters
    ----------
    rows : array, shape (n, D)
        In which the machines are linear.
    """

    rows: Floats

    def __len__(self) -> int:
        return len(self.rows)


def kernel(features: Floats) -> Floats:
    """Return the inner products of features, shape (n, n), with 1e-8 more on the diagonal.

    The ridge is part of the problem: it makes the weights unique where examples coincide.
    """
    products = features @ features.T
    products[np.diag_indices_from(products)] += _JITTER
    return np.asarray(products)


def fit(products: Floats | Features, signs: Floats, ceiling: float) -> Machine:
    """Return the machine for labels ``signs`` (+1 or -1) and 0 <= alpha <= ``ceiling`` (C).

    scikit-learn's solver finds the sets; the equations of the margin are then solved directly, so
    that the optimality conditions hold to rounding.
    """
    if (one_sided := _constant(signs)) is not None:
        return one_sided
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC  # not before it is needed: 1.2 CPU s in every process

    common = {"C": ceiling, "cache_size": 100}
    if isinstance(products, Features):
        solver = SVC(kernel="linear", tol=1e-6, max_iter=3_000_000, **common)
        given = products.rows
    else:
        solver = SVC(kernel="precomputed", tol=1e-8, max_iter=1_000_000, **common)
        given = products
    with warnings.catch_warnings():
        # Where examples coincide it may turn in circles below its tolerance; they are settled here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(given, signs)
    alpha = np.zeros(len(signs))
    alpha[solver.support_] = np.abs(solver.dual_coef_[0])
    found = Machine(alpha, float(solver.intercept_[0]))
    path = _Path(products, signs, ceiling, found)
    try:
        path.settle()
    except ArithmeticError:
        return found  # rounding decides the sets: as far as the solver came
    return path.machine


def decrement(
    products: Floats | Features,
    signs: Floats,
    ceiling: float,
    machine: Machine,
    gone: Integers,
) -> tuple[Machine, int]:
    """Return the machine without the examples at ``gone``, and how many events the path had.

    Parameters
    ----------
    products : array, shape (n, n), or Features
        Kernel of all examples, those that go included.
    signs : array, shape (n,)
        Labels, +1 or -1.
    ceiling : float
        C.
    machine : Machine
        The solution with all examples.
    gone : array of int64
        Which examples to take out.

    Returns
    -------
    Machine, int
        The solution for the examples that stay, in their order. Those of the reserve cost no
        event when they go. They change nothing where an example lies on the margin; where none
        does, they may have bounded the bias, which is centred anew. Where rounding keeps the path
        from its end (features a thousand times the ridge's scale and more), the machine is fitted
        anew, which counts as one event.
    """
    kept = np.setdiff1d(np.arange(len(signs)), gone)
    if (one_sided := _constant(signs[kept])) is not None:
        return one_sided, 0
    path = _Path(products, signs, ceiling, machine)
    try:
        for index in gone:
            path.remove(int(index))
        if path.events:
            path.settle()
        elif not (path.place == _MARGIN).any():
            path.centre()
    except (ArithmeticError, np.linalg.LinAlgError):
        return fit(_among(products, kept), signs[kept], ceiling), path.events + 1
    return Machine(path.alpha[kept], float(path.bias)), path.events


def violation(
    products: Floats | Features, signs: Floats, ceiling: float, machine: Machine
) -> float:
    """Return the largest violation of the optimality conditions."""
    alpha = machine.alpha
    gradient = _coupled(products, signs).times(alpha) + signs * machine.bias - 1
    slack = 1e-9 * ceiling
    wrong = [
        np.where(alpha > slack, gradient, 0),  # not in reserve: g <= 0
        np.where(alpha < ceiling - slack, -gradient, 0),  # not in error: g >= 0
        -alpha,
        alpha - ceiling,
    ]
    balance = abs(float(signs @ alpha))
    return max(balance, *(float(part.max(initial=0)) for part in wrong))


def _among(products: Floats | Features, kept: Integers) -> Floats | Features:
    """Return what stays of a kernel."""
    if isinstance(products, Features):
        return Features(products.rows[kept])
    return products[np.ix_(kept, kept)]


def _constant(signs: Floats) -> Machine | None:
    """Return the constant classifier if the labels are all of one kind."""
    if len(signs) and (signs != signs[0]).any():
        return None
    return Machine(np.zeros(len(signs)), float(signs[0]) if len(signs) else 0.0)


class _Coupled(Protocol):
    """The matrix Q, n times n, as the path uses it; ``lengths``: roots of its diagonal."""

    lengths: Floats

    def times(self, weights: Floats) -> Floats:
        """Return Q a, shape (n,)."""

    def columns(self, index: Integers, weights: Floats) -> Floats:
        """Return the columns at ``index`` times as many weights, shape (n,)."""

    def block(self, rows: Integers, columns: Integers) -> Floats:
        """Return some rows of some columns."""

    def of_rows(self, index: Integers, weights: Floats) -> Floats:
        """Return the rows at ``index`` times n weights."""


def _coupled(products: Floats | Features, signs: Floats) -> _Coupled:
    if isinstance(products, Features):
        return _ByFeatures(products.rows, signs)
    return _Dense(products * np.outer(signs, signs))


class _Dense:
    """Q as a matrix, for small n."""

    def __init__(self, matrix: Floats) -> None:
        self._matrix = matrix
        self.lengths = np.sqrt(np.diag(matrix))

    def times(self, weights: Floats) -> Floats:
        return np.asarray(self._matrix @ weights)

    def columns(self, index: Integers, weights: Floats) -> Floats:
        return np.asarray(self._matrix[:, index] @ weights)

    def block(self, rows: Integers, columns: Integers) -> Floats:
        return np.asarray(self._matrix[np.ix_(rows, columns)])

    def of_rows(self, index: Integers, weights: Floats) -> Floats:
        return np.asarray(self._matrix[index] @ weights)


class _ByFeatures:
    """Q as Y Z Z' Y with the ridge of :func:`kernel`: products through D features."""

    def __init__(self, rows: Floats, signs: Floats) -> None:
        self._rows, self._signs = rows, signs
        self.lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows) + _JITTER)

    def times(self, weights: Floats) -> Floats:
        direction = (self._signs * weights) @ self._rows
        return np.asarray(self._signs * (self._rows @ direction) + _JITTER * weights)

    def columns(self, index: Integers, weights: Floats) -> Floats:
        direction = (self._signs[index] * weights) @ self._rows[index]
        found = self._signs * (self._rows @ direction)
        found[index] += _JITTER * weights
        return np.asarray(found)

    def block(self, rows: Integers, columns: Integers) -> Floats:
        left = self._rows[rows] * self._signs[rows, None]
        right = self._rows[columns] * self._signs[columns, None]
        return np.asarray(left @ right.T + _JITTER * (rows[:, None] == columns))

    def of_rows(self, index: Integers, weights: Floats) -> Floats:
        direction = (self._signs * weights) @ self._rows
        found = self._signs[index] * (self._rows[index] @ direction)
        return np.asarray(found + _JITTER * weights[index])


class _Path:
    """A solution on the move: weights, bias, gradients and the set each example is in."""

    def __init__(
        self, products: Floats | Features, signs: Floats, ceiling: float, machine: Machine
    ) -> None:
        self.signs, self.ceiling = signs, ceiling
        self.coupled = _coupled(products, signs)
        self.alpha, self.bias = machine.alpha.copy(), machine.bias
        self.events = 0
        self.place = np.full(len(signs), _MARGIN)
        self.place[self.alpha <= self._near_zero] = _RESERVE
        self.place[self.alpha >= ceiling - 1e-9 * ceiling] = _ERROR
        self.gradient = self._gradients()

    @property
    def machine(self) -> Machine:
        return Machine(self.alpha, float(self.bias))

    @property
    def _near_zero(self) -> float:
        """What counts as no weight: by the largest one, since C can be far above all of them."""
        return 1e-9 * min(self.ceiling, float(self.alpha.max(initial=0)))

    def remove(self, gone: int) -> None:
        """Bring the weight of one example to zero, all others staying optimal."""
        self.place[gone] = _OUT
        limit = self.events + 100 + 20 * len(self.signs)
        while self.alpha[gone] > 0:
            self.events += 1
            if self.events > limit:
                raise ArithmeticError(f"the path of example {gone} does not end")
            margin = np.flatnonzero(self.place == _MARGIN)
            if not len(margin):
                self._shift(gone)
                continue
            self._step(gone, margin)

    def _step(self, gone: int, margin: Integers) -> None:
        """Lower the weight until it is zero or an example changes sets."""
        one = np.array([gone])
        right = np.concatenate([[self.signs[gone]], self.coupled.block(margin, one)[:, 0]])
        slope = -np.linalg.solve(self._bordered(margin), right)
        rate = slope[1:]
        moved = self.coupled.columns(np.append(margin, gone), np.append(rate, 1.0))
        change = moved + self.signs * slope[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(
                rate > 0,
                self.alpha[margin] / rate,
                np.where(rate < 0, (self.ceiling - self.alpha[margin]) / -rate, np.inf),
            )
            crossing = self.gradient / change
        entering = ((self.place == _ERROR) & (change < 0)) | (
            (self.place == _RESERVE) & (change > 0)
        )
        reach = np.where(entering, np.maximum(crossing, 0), np.inf)
        first, outside = int(room.argmin()), int(reach.argmin())
        length = min(self.alpha[gone], max(room[first], 0.0), reach[outside])
        self.alpha[margin] -= rate * length
        self.bias -= slope[0] * length
        self.gradient -= change * length
        self.gradient[margin] = 0
        if length == self.alpha[gone]:
            self.alpha[gone] = 0
            return
        self.alpha[gone] -= length
        if length == reach[outside]:
            self.place[outside], self.gradient[outside] = _MARGIN, 0
            return
        leaving = margin[first]
        self.place[leaving] = _RESERVE if rate[first] > 0 else _ERROR
        self.alpha[leaving] = 0 if rate[first] > 0 else self.ceiling

    def _shift(self, gone: int) -> None:
        """With an empty margin, move the bias until an example that can give way reaches it."""
        sign = self.signs[gone]
        willing = ((self.place == _RESERVE) & (self.signs == sign)) | (
            (self.place == _ERROR) & (self.signs == -sign)
        )
        reach = np.where(willing, np.abs(self.gradient), np.inf)
        found = int(reach.argmin())
        self.bias -= sign * reach[found]
        self.gradient -= self.signs * sign * reach[found]
        self.place[found], self.gradient[found] = _MARGIN, 0

    def settle(self) -> None:
        """Solve the margin's equations directly; move what violates a condition and do it again."""
        for _ in range(20 + 5 * len(self.signs)):
            margin = np.flatnonzero(self.place == _MARGIN)
            self.alpha[self.place == _ERROR] = self.ceiling
            self.alpha[(self.place == _RESERVE) | (self.place == _OUT)] = 0
            if len(margin):
                self._solve(margin)
            else:
                self.centre()
            self.gradient = self._gradients()
            if not self._move_worst(margin):
                self._release(margin)
                return
        raise ArithmeticError("the sets of the support vector machine do not settle")

    def _solve(self, margin: Integers) -> None:
        held = np.where(self.place == _ERROR, self.ceiling, 0.0)
        right = np.concatenate([[-self.signs @ held], 1 - self.coupled.of_rows(margin, held)])
        matrix = self._bordered(margin)
        try:
            solution = np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # the ridge is lost beside features this long
            solution = np.linalg.lstsq(matrix, right, rcond=None)[0]
        self.bias, self.alpha[margin] = float(solution[0]), solution[1:]

    def _move_worst(self, margin: Integers) -> bool:
        """Move the example that violates its set's condition most; return whether one did."""
        slack = max(1e-10, self._rounding())
        low, high = -self.alpha[margin], self.alpha[margin] - self.ceiling
        outside = np.maximum(low, high)
        scale = min(self.ceiling, float(np.abs(self.alpha).max(initial=0)))
        if len(margin) and outside.max() > 1e-10 * scale:
            worst = int(outside.argmax())
            self.place[margin[worst]] = _RESERVE if low[worst] > high[worst] else _ERROR
            return True
        wrong = np.where(self.place == _ERROR, self.gradient, 0)
        wrong = np.where(self.place == _RESERVE, -self.gradient, wrong)
        if wrong.max(initial=0) > slack:
            self.place[int(wrong.argmax())] = _MARGIN
            return True
        self.alpha = np.clip(self.alpha, 0, self.ceiling)
        return False

    def _release(self, margin: Integers) -> None:
        """Where every margin weight is at an end of its range, the bias is free: centre it.

        A solution that came another way may have an empty margin there; both must agree.
        """
        low = self.alpha[margin] <= self._near_zero
        high = self.alpha[margin] >= self.ceiling - 1e-9 * self.ceiling
        if len(margin) and (low | high).all():
            self.place[margin[low]], self.place[margin[high]] = _RESERVE, _ERROR
            self.alpha[margin[low]], self.alpha[margin[high]] = 0, self.ceiling
            self.centre()

    def centre(self) -> None:
        """With an empty margin, put the bias in the middle of what the conditions allow."""
        pull = self.coupled.times(self.alpha) - 1
        bound = -self.signs * pull
        above = ((self.place == _RESERVE) & (self.signs > 0)) | (
            (self.place == _ERROR) & (self.signs < 0)
        )
        below = (self.place != _OUT) & ~above
        low = bound[above].max(initial=-np.inf)
        high = bound[below].min(initial=np.inf)
        ends = [end for end in (low, high) if np.isfinite(end)]
        self.bias = float(np.mean(ends))

    def _bordered(self, margin: Integers) -> Floats:
        matrix = np.zeros((len(margin) + 1, len(margin) + 1))
        matrix[0, 1:] = matrix[1:, 0] = self.signs[margin]
        matrix[1:, 1:] = self.coupled.block(margin, margin)
        return matrix

    def _rounding(self) -> float:
        """Return what rounding leaves of a gradient, whose terms are up to |x_i| |x_j| a_j."""
        lengths = self.coupled.lengths
        longest = float(lengths.max(initial=0)) * float(lengths @ np.abs(self.alpha))
        return 8 * float(np.finfo(np.float64).eps) * longest

    def _gradients(self) -> Floats:
        return np.asarray(self.coupled.times(self.alpha) + self.signs * self.bias - 1)

"""Who gains and who loses: right answers counted per remaining client and per class.

Averages hide whom forgetting costs. Counts over the same examples before and after say it, and add
up over clients, classes and seeds without a weight to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearning.evaluation.gaps import fairness_of_gaps
from unlearning.evaluation.scorecard import Predictions

__all__ = ["Groups", "Remaining", "Tally", "accuracy_change", "remaining_clients", "tally"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_CELLS = 2500  # of a larger table only the clients' totals are kept
EVERYTHING = "all"


@dataclass(frozen=True)
class Groups:
    """To whom and to what the examples of a model's outputs belong.

    Parameters
    ----------
    clients, columns : ndarray of shape (n,)
        Client id and position in ``names`` of every example of the retain set.
    test_columns : ndarray of shape (m,)
        The same of every example of the test set.
    names : tuple of str
        What the columns are: labels or tasks.
    by : str
        ``"class"`` or ``"task"``.
    """

    clients: Integers
    columns: Integers
    test_columns: Integers
    names: tuple[str, ...]
    by: str = "class"


@dataclass(frozen=True)
class Tally:
    """Right answers of one model.

    Parameters
    ----------
    by : str
        What the columns are: ``"class"`` or ``"task"``.
    clients : tuple of int
        The remaining clients, in order: the rows.
    columns : tuple of str
        Names of the columns; one column ``all`` stands for a table that would be too large.
    correct, total : tuple of tuple of int
        Right answers on, and number of, a client's own training examples that stay.
    test_columns : tuple of str
        Names of the columns of the test data: never put together.
    test_correct, test_total : tuple of int
        The same on the test data.
    """

    by: str
    clients: tuple[int, ...]
    columns: tuple[str, ...]
    correct: tuple[tuple[int, ...], ...]
    total: tuple[tuple[int, ...], ...]
    test_columns: tuple[str, ...]
    test_correct: tuple[int, ...]
    test_total: tuple[int, ...]


@dataclass(frozen=True)
class Remaining:
    """What forgetting did to the clients that stay, against the reference (M15).

    Parameters
    ----------
    client : int
        The one that fares worst.
    worst : float
        Its accuracy less what the reference model gives it, a fraction.
    sd : float
        Standard deviation of the differences over the clients; 0 for a single one.
    share : float
        Share of clients that lose more than the margin.
    """

    client: int
    worst: float
    sd: float
    share: float


def _right(found: Predictions) -> NDArray[np.bool_]:
    if not len(found):
        return np.empty(0, bool)
    right: NDArray[np.bool_] = found.probabilities.argmax(axis=1) == found.labels
    return right


def tally(
    retain: Predictions, test: Predictions, groups: Groups, most_cells: int = _MOST_CELLS
) -> Tally:
    """Count a model's right answers.

    Parameters
    ----------
    retain, test : Predictions
        What the model says about all training data that stay, and about the test split.
    groups : Groups
        To whom and to what these examples belong.
    most_cells : int
        A table of more cells keeps the clients' totals alone; default 2500.

    Raises
    ------
    ValueError
        If the groups are not those of these examples.
    """
    if len(retain) != len(groups.clients) or len(retain) != len(groups.columns):
        raise ValueError(f"{len(retain)} retained examples in {len(groups.clients)} groups")
    if len(test) != len(groups.test_columns):
        raise ValueError(f"{len(test)} test examples in {len(groups.test_columns)} groups")
    clients, rows = np.unique(groups.clients, return_inverse=True)
    names, columns = groups.names, groups.columns
    if len(clients) * len(names) > most_cells:
        names, columns = (EVERYTHING,), np.zeros_like(columns)
    counts = np.zeros((2, len(clients), len(names)), np.int64)
    np.add.at(counts[0], (rows, columns), _right(retain))
    np.add.at(counts[1], (rows, columns), 1)
    size = len(groups.names)
    test_correct = np.bincount(groups.test_columns[_right(test)], minlength=size)
    test_total = np.bincount(groups.test_columns, minlength=size)
    return Tally(
        by=groups.by,
        clients=tuple(clients.tolist()),
        columns=names,
        correct=tuple(map(tuple, counts[0].tolist())),
        total=tuple(map(tuple, counts[1].tolist())),
        test_columns=groups.names,
        test_correct=tuple(test_correct.tolist()),
        test_total=tuple(test_total.tolist()),
    )


def _share(correct: Floats, total: Floats) -> Floats:
    """Return shares; NaN where there is nothing to share."""
    shares: Floats = np.divide(correct, total, out=np.full(total.shape, np.nan), where=total > 0)
    return shares


def _mean(parts: Sequence[Floats]) -> Floats:
    """Return means over seeds of what was measured; NaN where nothing was."""
    stack = np.stack(parts)
    there = np.isfinite(stack)
    return _share(np.where(there, stack, 0.0).sum(axis=0), there.sum(axis=0).astype(np.float64))


def accuracy_change(
    after: Sequence[Tally], before: Sequence[Tally]
) -> tuple[Floats, Floats, Floats]:
    """Return the change in accuracy, means over seeds; NaN where there is no example.

    Parameters
    ----------
    after, before : sequence of Tally
        One per seed, in the same order, over the same clients and columns.

    Returns
    -------
    tuple of three arrays
        Of shape (clients, columns) and (clients,), on the clients' own data that stay; of shape
        (test columns,), on the test data. Fractions, -1 to 1.

    Raises
    ------
    ValueError
        If there is no tally, or rows or columns differ.
    """
    shapes = {(one.clients, one.columns, one.test_columns) for one in (*after, *before)}
    if len(shapes) != 1 or len(after) != len(before):
        raise ValueError(f"{len(after)} and {len(before)} tallies of {len(shapes)} shapes")
    cells, rows, tests = [], [], []
    for ours, theirs in zip(after, before, strict=True):
        (right, total), (was_right, was_total) = _arrays(ours), _arrays(theirs)
        cells.append(_share(right, total) - _share(was_right, was_total))
        # What only one of both was asked, say a class that a later request took away, is left out.
        both = (total > 0) & (was_total > 0)
        rows.append(_pooled(right, total, both) - _pooled(was_right, was_total, both))
        tests.append(_test_share(ours) - _test_share(theirs))
    return _mean(cells), _mean(rows), _mean(tests)


def _arrays(found: Tally) -> tuple[Floats, Floats]:
    shape = (len(found.clients), len(found.columns))
    correct, total = (
        np.array(counts, dtype=np.float64).reshape(shape) for counts in (found.correct, found.total)
    )
    return correct, total


def _pooled(correct: Floats, total: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return the share over the chosen columns of every row."""
    return _share((correct * chosen).sum(axis=1), (total * chosen).sum(axis=1))


def _test_share(found: Tally) -> Floats:
    return _share(
        np.array(found.test_correct, dtype=np.float64), np.array(found.test_total, dtype=np.float64)
    )


def remaining_clients(ours: Tally, reference: Tally, margin: float) -> Remaining | None:
    """Return how the remaining clients fare against the reference model of the same seed.

    Parameters
    ----------
    ours, reference : Tally
        Over the same clients.
    margin : float
        A loss of more than this counts, a fraction.

    Returns
    -------
    Remaining or None
        None if no client has an example, or the clients differ.
    """
    if ours.clients != reference.clients or ours.columns != reference.columns:
        return None
    _, differences, _ = accuracy_change([ours], [reference])
    if not np.isfinite(differences).any():
        return None
    gaps = {c: float(d) for c, d in zip(ours.clients, differences, strict=True) if np.isfinite(d)}
    found = fairness_of_gaps(gaps, margin)
    return Remaining(found.worst_client, found.worst, found.sd or 0.0, found.share)

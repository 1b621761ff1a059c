"""Pure metrics of forgetting and utility: arrays in, one number out.

Every function says its definition, unit and source, and raises ValueError on an empty set: whether
something could not be measured is decided where the numbers meet, in ``scorecard``.

References
----------
S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha: Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting. CSF 2018. arXiv:1709.01604.
G. Liu, X. Ma, Y. Yang, C. Wang, J. Liu: FedEraser: Enabling Efficient Client-Level Data Removal
from Federated Learning Models. IWQoS 2021. arXiv:2012.13891.
A. Halimi, S. Kadhe, A. Rawat, N. Baracaldo: Federated Unlearning: How to Efficiently Erase a
Client in FL? 2022. arXiv:2207.05521.
J. Lin: Divergence Measures Based on the Shannon Entropy. IEEE Transactions on Information Theory
37(1), 1991.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.arrays import Array, combine_pairs, norm, parameters
from unlearning.evaluation.ranks import auc

__all__ = [
    "accuracy",
    "agreement",
    "array_distance",
    "auc_null_se",
    "backdoor_success",
    "example_losses",
    "js_divergence",
    "membership_auc",
    "prediction_distance",
    "with_labels",
]

_SMALLEST = float(np.finfo(np.float32).tiny)  # a softmax in float32 gives 0 below this
_SUM_TOLERANCE = 1e-3  # rows further from 1 are logits or a bug, not rounding


def _checked(probabilities: ArrayLike, name: str = "probabilities") -> NDArray[np.float64]:
    """Return softmax rows in float64, or say what is wrong with them."""
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} have shape {rows.shape}, expected (n, C) with n, C >= 1")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} hold NaN or infinity; the model has diverged")
    if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise ValueError(f"rows of {name} are not distributions; pass softmax outputs, not logits")
    return rows


def with_labels(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return softmax rows in float64 and their labels in int64, both checked.

    Raises
    ------
    ValueError
        If a set is empty, shapes disagree, a label is out of range or a row is no distribution.
    """
    rows, truth = _checked(probabilities), np.asarray(labels)
    if truth.shape != (len(rows),) or not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(
            f"labels are {truth.dtype} of shape {truth.shape}, expected integers ({len(rows)},)"
        )
    if truth.min() < 0 or truth.max() >= rows.shape[1]:
        raise ValueError(f"labels reach from {truth.min()} to {truth.max()}, expected 0 to C-1")
    return rows, truth.astype(np.int64)


def _relative_entropy(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``p ln(p / q)`` element by element; 0 where p is 0."""
    ratio = np.divide(left, right, out=np.ones_like(left), where=left > 0)
    return np.asarray(left * np.log(ratio), dtype=np.float64)


def _same_shape(left: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Return two checked sets of softmax rows over the same examples."""
    pair = (_checked(left), _checked(right, "reference probabilities"))
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"shapes {pair[0].shape} and {pair[1].shape} differ; same examples needed")
    return pair


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of examples whose most probable class is their label.

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs. Equal maxima count as the lowest class.
    labels : array_like of shape (n,)
        Integers 0 to C-1.

    Returns
    -------
    float
        Fraction, 0 to 1.

    Raises
    ------
    ValueError
        If a set is empty, shapes disagree, a label is out of range or a row is no distribution.

    Examples
    --------
    Two of three examples are told right:

    >>> round(accuracy([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]], [0, 1, 1]), 4)
    0.6667
    """
    rows, truth = with_labels(probabilities, labels)
    return float(np.mean(rows.argmax(axis=1) == truth))


def example_losses(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the cross-entropy ``-log p_y`` of every example, in nats.

    Probabilities below the smallest normal float32 count as that number, so that a confident
    mistake costs about 87 nats and not infinity.

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs.
    labels : array_like of shape (n,)
        Integers 0 to C-1.

    Returns
    -------
    ndarray of shape (n,)
        Losses, 0 or more.

    Raises
    ------
    ValueError
        As :func:`accuracy`.

    Examples
    --------
    One chance in two costs ln 2, one in four ln 4:

    >>> example_losses([[0.5, 0.5], [0.25, 0.75]], [1, 0]).round(4).tolist()
    [0.6931, 1.3863]
    """
    rows, truth = with_labels(probabilities, labels)
    chosen = rows[np.arange(len(truth)), truth]
    losses: NDArray[np.float64] = -np.log(np.clip(chosen, _SMALLEST, 1.0))
    return losses


def membership_auc(member_losses: ArrayLike, non_member_losses: ArrayLike) -> float:
    """Return the AUC of the loss-threshold membership attack (Yeom et al. 2018).

    The attacker calls an example a member when its loss is low. Members are the forget set,
    non-members examples of the same owners that were never trained on; another source would
    measure the difference between the sources.

    Parameters
    ----------
    member_losses : array_like of shape (n,)
        Losses of the forget set.
    non_member_losses : array_like of shape (m,)
        Losses of the held-out set.

    Returns
    -------
    float
        0.5: indistinguishable; 1: told apart. Below 0.5 the forget set looks *less* like members
        than fresh data do (over-forgetting); the value is never mirrored to hide that.

    Raises
    ------
    ValueError
        If a set is empty or a loss is not finite.

    Examples
    --------
    Of the four pairs of a member and a non-member the member has the lower loss in three:

    >>> membership_auc([0.1, 0.5], [0.4, 0.9])
    0.75
    """
    members, others = (
        np.asarray(losses, dtype=np.float64).ravel()
        for losses in (member_losses, non_member_losses)
    )
    if not members.size or not others.size:
        raise ValueError(f"{members.size} member and {others.size} non-member losses; need both")
    scores = -np.concatenate([members, others])
    if not np.isfinite(scores).all():
        raise ValueError("losses hold NaN or infinity")
    truth = np.concatenate([np.ones(members.size), np.zeros(others.size)])
    return auc(truth, scores)


def auc_null_se(num_members: int, num_non_members: int) -> float:
    """Return the standard error of an AUC when there is nothing to find.

    ``sqrt((n1 + n0 + 1) / (12 n1 n0))``, the null of the Mann-Whitney test. An AUC within twice
    this of 0.5 tells nothing.

    Raises
    ------
    ValueError
        If a count is below 1.

    Examples
    --------
    The root of 9 / (12 * 4 * 4):

    >>> round(auc_null_se(4, 4), 4)
    0.2165
    """
    if min(num_members, num_non_members) < 1:
        raise ValueError(f"{num_members} members and {num_non_members} non-members; need both")
    both = num_members + num_non_members
    return float(np.sqrt((both + 1) / (12 * num_members * num_non_members)))


def backdoor_success(predicted: ArrayLike, labels: ArrayLike, target: ArrayLike) -> float:
    """Return the share of triggered examples that the model takes for the attacker's label.

    Only examples whose true label is not ``target`` count (Halimi et al. 2022). A model that never
    saw the trigger still scores its base rate, not 0.

    Parameters
    ----------
    predicted : array_like of shape (n,)
        Predicted labels of the examples with the trigger.
    labels : array_like of shape (n,)
        Their true labels.
    target : int or array_like of shape (n,)
        The label that the trigger should bring about, or one for every example.

    Returns
    -------
    float
        Fraction, 0 to 1.

    Raises
    ------
    ValueError
        If shapes disagree or no example has a true label other than ``target``.

    Examples
    --------
    The last example is a 0 anyway; of the other two one is taken for a 0:

    >>> backdoor_success([0, 1, 0], [1, 1, 0], target=0)
    0.5
    """
    guesses, truth = np.asarray(predicted), np.asarray(labels)
    if guesses.shape != truth.shape or guesses.ndim != 1:
        raise ValueError(f"predicted labels {guesses.shape} and labels {truth.shape} differ")
    goal = np.broadcast_to(np.asarray(target), truth.shape)
    counted = truth != goal
    if not counted.any():
        raise ValueError(f"no triggered example has a true label other than {target!r}")
    return float(np.mean(guesses[counted] == goal[counted]))


def prediction_distance(probabilities: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean L2 distance between the softmax rows of two models (FedEraser).

    Parameters
    ----------
    probabilities, reference : array_like of shape (n, C)
        Softmax outputs of two models on the same examples in the same order.

    Returns
    -------
    float
        0 (equal) to sqrt(2) (sure of different classes).

    Raises
    ------
    ValueError
        If the shapes differ, a set is empty or a row is no distribution.

    Examples
    --------
    Equal, and sure of different classes (the root of 2):

    >>> round(prediction_distance([[1, 0], [1, 0]], [[1, 0], [0, 1]]), 4)
    0.7071
    """
    left, right = _same_shape(probabilities, reference)
    return float(np.mean(np.linalg.norm(left - right, axis=1)))


def js_divergence(probabilities: ArrayLike, reference: ArrayLike) -> float:
    """Return the mean Jensen-Shannon divergence of two models' softmax rows, in nats.

    Parameters
    ----------
    probabilities, reference : array_like of shape (n, C)
        Softmax outputs of two models on the same examples in the same order.

    Returns
    -------
    float
        0 (equal) to ln 2 (disjoint).

    Raises
    ------
    ValueError
        As :func:`prediction_distance`.

    Examples
    --------
    Half of ln 2, as one of two rows has nothing in common with its reference:

    >>> round(js_divergence([[1, 0], [1, 0]], [[1, 0], [0, 1]]), 4)
    0.3466
    """
    left, right = _same_shape(probabilities, reference)
    middle = (left + right) / 2
    rows = (_relative_entropy(left, middle) + _relative_entropy(right, middle)).sum(axis=1) / 2
    return float(np.mean(rows))


def agreement(probabilities: ArrayLike, reference: ArrayLike) -> float:
    """Return the share of examples on which two models predict the same class, 0 to 1.

    Raises
    ------
    ValueError
        As :func:`prediction_distance`.

    Examples
    --------
    >>> agreement([[0.9, 0.1], [0.6, 0.4]], [[0.7, 0.3], [0.2, 0.8]])
    0.5
    """
    left, right = _same_shape(probabilities, reference)
    return float(np.mean(left.argmax(axis=1) == right.argmax(axis=1)))


def array_distance(arrays: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """Return ``||w - w*|| / ||w*||`` over the parameters of two models, in float64.

    Information only: a small distance proves no forgetting, and a large one means nothing unless
    both models started from the same initial arrays.

    Parameters
    ----------
    arrays, reference : Arrays
        The same names and shapes; buffers are left out.

    Returns
    -------
    float
        0 or more, relative to the length of ``reference``.

    Raises
    ------
    ValueError
        If the names or shapes differ or ``reference`` is all zero.

    Examples
    --------
    The difference (3, 4) is 5 long, the reference (0, 10) is 10 long:

    >>> import numpy as np
    >>> array_distance({"w": np.array([3.0, 14.0])}, {"w": np.array([0.0, 10.0])})
    0.5
    """
    ours, theirs = parameters(arrays), parameters(reference)
    length = norm(theirs)
    if length == 0:
        raise ValueError("the reference has no parameter other than zero; no relative distance")

    def difference(left: Array, right: Array) -> Array:
        if left.shape != right.shape:
            raise ValueError(f"shapes {left.shape} and {right.shape} differ")
        return np.asarray(left.astype(np.float64) - right.astype(np.float64))

    return norm(combine_pairs(ours, theirs, difference)) / length

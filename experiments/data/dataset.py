"""What a data set is, and how raw arrays become one: scales, labels, a test part, checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearning.errors import ConfigError

__all__ = ["Dataset", "checked", "labels_of", "ranged", "scaled", "split", "stratified"]

_MANY_CLASSES = 1000  # more, of which nine in ten do not occur, are numbers and no labels

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Training and test examples.

    Parameters
    ----------
    train_x, test_x : array of float32, shape (n, C, H, W) or (n, d)
        Images scaled to [0, 1], or rows of a table.
    train_y, test_y : array of int64, shape (n,)
        Labels ``0 .. num_classes - 1``.
    num_classes : int
        Number of labels.
    name : str
        As in the config.
    owner : array of int64, shape (n,), or None
        Who each training example naturally belongs to.
    tasks : tuple of (str, int)
        Tasks that the inputs have in common, each with its number of classes; () for one task.
    train_tasks, test_tasks : array of int64, shape (n, number of tasks), or None
        Labels for every task, -1 where an example has none. ``train_y`` and ``test_y`` are what
        the data are shared out by, and what a model for one task learns.
    ids : array of str, shape (n,), or None
        The training examples' own ids, by which they can be asked to be forgotten; one id may name
        several examples, those of one person for example.
    columns : tuple of str
        What the columns of a table are called, one name each; those a category was spread over
        ``column=category``. () where they have no names.
    owners : tuple of str
        What the owners are called, in the order of their numbers; () if they have no names.
    alphabet : str
        Of text: the characters that values and labels are places in.
    """

    train_x: Floats
    train_y: Integers
    test_x: Floats
    test_y: Integers
    num_classes: int
    name: str = ""
    owner: Integers | None = None
    tasks: tuple[tuple[str, int], ...] = ()
    train_tasks: Integers | None = None
    test_tasks: Integers | None = None
    ids: NDArray[np.str_] | None = None
    columns: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    alphabet: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train_x.shape[1:])


def stratified(labels: Integers, count: int) -> Integers:
    """Return ``count`` sorted positions with the classes in their original shares.

    The choice is random but always the same. A smaller count chooses a subset of a larger one.

    Parameters
    ----------
    labels : array of int64, shape (n,)
        Labels.
    count : int
        How many, at most n.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(rank, kind="stable")[:count])


def split(
    x: NDArray[Any],
    y: NDArray[Any],
    owner: NDArray[Any] | None = None,
    ids: NDArray[np.str_] | None = None,
) -> Dataset:
    """Return a data set with a fixed fifth of each class as test set."""
    labels = labels_of(y)
    test = np.zeros(len(labels), dtype=bool)
    test[stratified(labels, round(0.2 * len(labels)))] = True
    return Dataset(
        scaled(x[~test]),
        labels[~test],
        scaled(x[test]),
        labels[test],
        num_classes=int(labels.max(initial=-1)) + 1,
        owner=None if owner is None else owner[~test].astype(np.int64),
        ids=None if ids is None else ids[~test],
    )


def ranged(dataset: Dataset) -> Dataset:
    """Return a table with its columns scaled so that the training rows span [0, 1]."""
    low, high = dataset.train_x.min(axis=0), dataset.train_x.max(axis=0)
    width = np.where(high > low, high - low, np.float32(1))
    return replace(
        dataset,
        train_x=((dataset.train_x - low) / width).astype(np.float32),
        test_x=((dataset.test_x - low) / width).astype(np.float32),
    )


def scaled(x: NDArray[Any]) -> Floats:
    """Return float32; bytes become [0, 1], and what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)


def labels_of(y: NDArray[Any]) -> Integers:
    """Return labels as int64, shape (n,).

    Raises
    ------
    ConfigError
        If they are no integers, or not one for each example.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ConfigError(f"labels have shape {labels.shape}; give one per example, (n,)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels are {labels.dtype}; number the classes from 0 with integers")
    if labels.size and int(labels.max()) >= 2**63:
        raise ConfigError(f"labels go up to {labels.max()}; number the classes from 0")
    return labels.astype(np.int64)


def checked(dataset: Dataset) -> Dataset:
    """Return the data set if its arrays fit each other, and if something can be told from it.

    Raises
    ------
    ConfigError
        If they do not, or there is one class alone, or a label occurs in the test part only.
    """
    for part, x, y in (
        ("training", dataset.train_x, dataset.train_y),
        ("test", dataset.test_x, dataset.test_y),
    ):
        where = f"data set {dataset.name!r}, {part} part"
        if len(x) != len(y) or len(x) == 0:
            raise ConfigError(
                f"{where}: {len(x)} examples and {len(y)} labels; give as many of each"
            )
        if x.ndim not in (2, 4) or x.shape[1:] != dataset.train_x.shape[1:]:
            raise ConfigError(
                f"{where}: examples have shape {x.shape[1:]}; give (d,) or (channels, height, "
                "width), the same in both parts"
            )
        if not np.isfinite(x).all():
            raise ConfigError(
                f"{where}: a value is not finite in float32; fill or drop missing values"
            )
        if y.min() < 0 or y.max() >= dataset.num_classes:
            raise ConfigError(
                f"{where}: label {y.min() if y.min() < 0 else y.max()} lies outside 0 to "
                f"{dataset.num_classes - 1}; number the classes from 0"
            )
    where = f"data set {dataset.name!r}"
    occur = len(np.unique(dataset.train_y))
    if dataset.num_classes > max(_MANY_CLASSES, 10 * occur):
        raise ConfigError(
            f"{where}: labels go up to {dataset.num_classes - 1} and {occur} of them occur; number "
            "the classes from 0 without gaps"
        )
    if dataset.num_classes < 2:
        raise ConfigError(
            f"{where} has one class alone; forgetting is judged by telling classes apart, so give "
            "two or more"
        )
    if len(unseen := np.setdiff1d(dataset.test_y, dataset.train_y)):
        raise ConfigError(
            f"{where}: label {unseen[0]} occurs in the test part and in no training example; "
            "leave it out of the test part, or give more training examples of it"
        )
    if dataset.owner is not None and len(dataset.owner) != len(dataset.train_y):
        raise ConfigError(
            f"{where}: {len(dataset.owner)} owners for {len(dataset.train_y)} training examples; "
            "give one each"
        )
    if dataset.ids is not None and len(dataset.ids) != len(dataset.train_y):
        raise ConfigError(
            f"{where}: {len(dataset.ids)} ids for {len(dataset.train_y)} training examples; give "
            "one each"
        )
    _check_tasks(dataset, where)
    _check_columns(dataset, where)
    return dataset


def _check_columns(dataset: Dataset, where: str) -> None:
    """Refuse names that do not fit the columns of a table."""
    names = dataset.columns
    if names and dataset.input_shape != (len(names),):
        raise ConfigError(
            f"{where}: {len(names)} names of columns for examples of shape {dataset.input_shape}; "
            "give one per column of a table"
        )
    if twice := [name for name in names if not name or names.count(name) > 1]:
        raise ConfigError(
            f"{where}: {sum(name == twice[0] for name in names)} columns are called {twice[0]!r}; "
            "give each a name of its own"
        )


def _check_tasks(dataset: Dataset, where: str) -> None:
    """Refuse labels of several tasks that do not fit the tasks."""
    if not dataset.tasks:
        return
    counts = np.array([count for _, count in dataset.tasks])
    for part, labels, y in (
        ("train_tasks", dataset.train_tasks, dataset.train_y),
        ("test_tasks", dataset.test_tasks, dataset.test_y),
    ):
        wanted = (len(y), len(counts))
        if labels is None or labels.shape != wanted:
            shape = None if labels is None else labels.shape
            raise ConfigError(f"{where}: {part} has shape {shape}; give a label per task, {wanted}")
        if ((labels < -1) | (labels >= counts)).any():
            raise ConfigError(
                f"{where}: a label in {part} lies outside those of its task; number them from 0, "
                "and write -1 where an example has none"
            )

"""Data sets that come with scikit-learn: nothing is fetched, nothing lies on disk."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import Dataset, ranged, scaled, split
from unlearning.errors import ConfigError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_TUMOUR = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
    "concave points", "symmetry", "fractal dimension",
)  # fmt: skip
_WINE = (
    "alcohol", "malic acid", "ash", "alcalinity of ash", "magnesium", "total phenols",
    "flavanoids", "nonflavanoid phenols", "proanthocyanins", "color intensity", "hue",
    "od280/od315 of diluted wines", "proline",
)  # fmt: skip
_PAIRINGS = 3  # how often an image stands on each side of a pair


def _rows(name: str, heading: int = 0) -> NDArray[np.float64]:
    """Return a table that lies in scikit-learn's package, its last column the label.

    scikit-learn is found, not imported: every worker reads its data, and the import takes a second.

    Raises
    ------
    ConfigError
        If it is not installed or keeps the table elsewhere.
    """
    found = importlib.util.find_spec("sklearn")
    places = (found.submodule_search_locations if found else None) or []
    for place in places:
        path = Path(place) / "datasets" / "data" / name
        if path.is_file():
            return np.loadtxt(path, delimiter=",", skiprows=heading)
    raise ConfigError(f"scikit-learn does not hold {name}; install the version that is declared")


def read_digits(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, 8x8, split 80 to 20."""
    rows = _rows("digits.csv.gz")
    images, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
    return split(images.reshape(-1, 1, 8, 8) / 16.0, labels)


def read_digit_pairs(root: str | None, download: bool) -> Dataset:
    """Return pairs of scikit-learn's digits side by side, 8x16, with three tasks.

    ``left`` and ``right`` ask for a digit each, ``parity`` whether their sum is odd. Every image
    stands on the left and on the right three times; no image is in both training and test pairs.
    """
    single = read_digits(root, download)
    generator = np.random.default_rng(0)
    parts: list[tuple[Floats, Integers]] = []
    for x, y in ((single.train_x, single.train_y), (single.test_x, single.test_y)):
        left, right = (
            np.concatenate([generator.permutation(len(y)) for _ in range(_PAIRINGS)])
            for _ in range(2)
        )
        labels = np.stack([y[left], y[right], (y[left] + y[right]) % 2], axis=1)
        parts.append((scaled(np.concatenate([x[left], x[right]], axis=3)), labels))
    (train_x, train), (test_x, test) = parts
    return Dataset(
        train_x,
        train[:, 0],
        test_x,
        test[:, 0],
        num_classes=10,
        tasks=(("left", 10), ("right", 10), ("parity", 2)),
        train_tasks=train,
        test_tasks=test,
    )


def read_breast_cancer(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's table of 569 tumours, 30 columns, split 80 to 20.

    Columns are scaled so that the training rows span [0, 1]; the ranges are taken as public.
    """
    rows = _rows("breast_cancer.csv", heading=1)
    names = [
        *(f"mean {name}" for name in _TUMOUR),
        *(f"{name} error" for name in _TUMOUR),
        *(f"worst {name}" for name in _TUMOUR),
    ]
    found = ranged(split(rows[:, :-1], rows[:, -1].astype(np.int64)))
    return replace(found, columns=tuple(names))


def read_wine(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's table of 178 wines from 3 growers, 13 columns, split 80 to 20.

    Columns are scaled so that the training rows span [0, 1]; the ranges are taken as public.
    """
    rows = _rows("wine_data.csv", heading=1)
    return replace(ranged(split(rows[:, :-1], rows[:, -1].astype(np.int64))), columns=_WINE)

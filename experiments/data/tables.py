"""Public tables read from their official files: rows, categories as columns of 0 and 1.

References
----------
Kohavi, "Scaling Up the Accuracy of Naive-Bayes Classifiers: a Decision-Tree Hybrid", KDD 1996: the
Adult table. Shokri, Stronati, Song, Shmatikov, "Membership Inference Attacks Against Machine
Learning Models", S&P 2017 (arXiv 1610.05820): the check-ins called Location-30.
"""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import Dataset, ranged, split
from experiments.data.places import folder_of
from unlearning.errors import ConfigError

__all__ = ["adult", "location30"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# In the order of the file; True: a number, False: a category.
_ADULT = {
    "age": True,
    "workclass": False,
    "fnlwgt": True,
    "education": False,
    "education-num": True,
    "marital-status": False,
    "occupation": False,
    "relationship": False,
    "race": False,
    "sex": False,
    "capital-gain": True,
    "capital-loss": True,
    "hours-per-week": True,
    "native-country": False,
}
_INCOMES = ("<=50K", ">50K")
_PLACES = 446
_KINDS = 30


def read_adult(root: str | None, download: bool) -> Dataset:
    """Return UCI's Adult table: 32,561 and 16,281 people, 108 columns, income above 50,000 or not.

    The official files and parts; see :func:`adult` for categories and
    missing values. Numbers are scaled so that the training rows span [0, 1]; the ranges are taken
    as public. ``root`` is the folder of the files, or of a folder ``adult`` that has them.
    """
    x, y, test_x, test_y, names = _adult(folder_of("adult", root))
    return ranged(Dataset(x, y, test_x, test_y, num_classes=2, columns=names))


def read_location30(root: str | None, download: bool) -> Dataset:
    """Return the check-ins called Location-30: 5,010 visitors, 446 places, 30 kinds, 80 to 20.

    ``root`` is the folder of the official archive, or of a folder ``location30`` that has it.
    """
    return split(*location30(folder_of("location30", root)))


def adult(folder: Path) -> tuple[Floats, Integers, Floats, Integers]:
    """Return the Adult table's official training and test part: rows, labels, rows, labels.

    Six numbers as they are, then every category as a column of its own, 0 or 1. A missing value
    (``?``) is a category like any other: that someone did not say is all that is known, and no row
    is left out. Categories are those of the training part, which has all that the table's
    documentation lists. Label 1 is an income above 50,000 dollars.

    Parameters
    ----------
    folder : Path
        Holds ``adult.data`` and ``adult.test``, plain or as ``.gz``, or a folder ``adult`` that
        does.

    Raises
    ------
    ConfigError
        If a file is missing or no such table.
    """
    return _adult(folder)[:4]


def _adult(folder: Path) -> tuple[Floats, Integers, Floats, Integers, tuple[str, ...]]:
    """Return the parts of :func:`adult` and what the columns are called."""
    from sklearn.preprocessing import OneHotEncoder

    here = _below(folder, "adult")
    train_rows, train_y = _adult_rows(here, "adult.data")
    test_rows, test_y = _adult_rows(here, "adult.test")
    is_number = np.array(list(_ADULT.values()))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    encoder.fit(train_rows[:, ~is_number])

    def encoded(rows: NDArray[np.str_]) -> Floats:
        numbers = rows[:, is_number].astype(np.float32)
        return np.hstack([numbers, encoder.transform(rows[:, ~is_number])])

    numbers = [name for name, number in _ADULT.items() if number]
    words = [name for name, number in _ADULT.items() if not number]
    names = [
        *numbers,
        *(
            f"{word}={value}"
            for word, values in zip(words, encoder.categories_, strict=True)
            for value in values
        ),
    ]
    return encoded(train_rows), train_y, encoded(test_rows), test_y, tuple(names)


def location30(folder: Path) -> tuple[Floats, Integers]:
    """Return Location-30's rows, 446 columns of 0 and 1, and labels, 30 kinds of visitor.

    Parameters
    ----------
    folder : Path
        Holds ``dataset_location.tgz``, or the file ``bangkok`` that is in it, or a folder
        ``location30`` that does.

    Raises
    ------
    ConfigError
        If the file is missing or no such table.
    """
    here = _below(folder, "location30")
    plain, packed = here / "bangkok", here / "dataset_location.tgz"
    path = plain if plain.exists() else packed
    try:
        text = plain.read_text() if path == plain else _member(packed, plain.name)
        rows = np.loadtxt(io.StringIO(text.replace('"', "")), np.int64, delimiter=",", ndmin=2)
    except FileNotFoundError as error:
        raise _missing(here, packed.name, plain.name) from error
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if rows.shape[1] != 1 + _PLACES or not np.isin(rows[:, 1:], (0, 1)).all():
        raise _damaged(path, f"its rows are no label and {_PLACES} times 0 or 1")
    labels = rows[:, 0] - 1
    if not ((labels >= 0) & (labels < _KINDS)).all():
        raise _damaged(path, f"its labels do not go from 1 to {_KINDS}")
    return rows[:, 1:].astype(np.float32), labels


def _member(packed: Path, name: str) -> str:
    """Return the text of one file of an archive."""
    with tarfile.open(packed) as archive:
        found = archive.extractfile(name) if name in archive.getnames() else None
        if found is None:
            raise ValueError(f"no file {name!r} is in it")
        return found.read().decode()


def _adult_rows(folder: Path, name: str) -> tuple[NDArray[np.str_], Integers]:
    """Return the attributes, ``(n, 14)`` words, and labels of one file."""
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.exists() else packed
    try:
        text = plain.read_text() if path == plain else gzip.decompress(packed.read_bytes()).decode()
    except FileNotFoundError as error:
        raise _missing(folder, packed.name, plain.name) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    # A line of the test part that is no row begins with a bar, and its labels end with a dot.
    lines = [line.rstrip(" .") for line in text.splitlines() if line and not line.startswith("|")]
    rows = [[word.strip() for word in row] for row in csv.reader(lines)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(_ADULT) + 1 or row[-1] not in _INCOMES or not _numeric(row):
            raise _damaged(path, f"row {number} is no row of the Adult table")
    if not rows:
        raise _damaged(path, "it has no row")
    table = np.array(rows)
    return table[:, :-1], (table[:, -1] == _INCOMES[1]).astype(np.int64)


def _numeric(row: list[str]) -> bool:
    """Return whether a row has whole numbers where the table has numbers."""
    return all(row[i].isdecimal() for i, number in enumerate(_ADULT.values()) if number)


def _below(folder: Path, name: str) -> Path:
    """Return the data set's own folder inside ``folder``, or ``folder`` where there is none."""
    return folder / name if (folder / name).is_dir() else folder


def _missing(folder: Path, packed: str, plain: str) -> ConfigError:
    return ConfigError(
        f"data.root: neither {plain} nor {packed} lies in {str(folder)!r}; put the official file "
        "there (no download is made)"
    )


def _damaged(path: Path, why: str) -> ConfigError:
    first = why.splitlines()[0] if why else "it cannot be read"
    return ConfigError(f"data.root: {str(path)!r} is damaged ({first}); fetch it again")

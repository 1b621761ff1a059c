"""A user's own data: arrays in an ``.npz``, or what a function returns."""

from __future__ import annotations

import inspect
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.loading import import_object
from experiments.data.dataset import Dataset, labels_of, scaled, split
from unlearning.errors import ConfigError

__all__ = ["from_file", "from_function"]


def from_file(path: Path) -> Dataset:
    """Return the data set that the arrays of an ``.npz`` make.

    Parameters
    ----------
    path : Path
        Arrays ``x``, ``y`` and, if there are any, ``x_test``, ``y_test`` and ``client``, the owner
        of each row of ``x``.

    Raises
    ------
    ConfigError
        If it cannot be read, or the arrays make no data set.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise ConfigError(f"data.name: {str(path)!r} does not exist; check the path") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"data.name: {str(path)!r} is no file of plain arrays ({error}); write it with "
            "numpy.savez(path, x=..., y=...)"
        ) from error
    if missing := {"x", "y"} - arrays.keys():
        raise ConfigError(
            f"data.name: {str(path)!r} has no array {sorted(missing)[0]!r} (it has "
            f"{', '.join(sorted(arrays)) or 'none'}); write it with numpy.savez(path, x=..., y=...)"
        )
    x, y, owner = _channels(arrays["x"]), labels_of(arrays["y"]), arrays.get("client")
    if len(x) != len(y) or (owner is not None and len(owner) != len(y)):
        counts = {key: len(arrays[key]) for key in ("x", "y", "client") if key in arrays}
        raise ConfigError(
            f"data.name: {str(path)!r} has arrays of lengths {counts}; make them equal"
        )
    if "x_test" not in arrays or "y_test" not in arrays:
        return split(x, y, owner)
    test_y = labels_of(arrays["y_test"])
    return Dataset(
        scaled(x),
        y,
        scaled(_channels(arrays["x_test"])),
        test_y,
        num_classes=int(max(y.max(initial=-1), test_y.max(initial=-1))) + 1,
        owner=None if owner is None else owner.astype(np.int64),
    )


def from_function(spec: str, root: str | None) -> Dataset:
    """Return what ``module:function`` returns; it is given ``root`` if it takes one.

    Raises
    ------
    ConfigError
        If there is no such function, or it returns no data set.
    """
    function = import_object(spec, "data set")
    if not callable(function):
        raise ConfigError(f"data.name: {spec!r} is no function; name one that returns a Dataset")
    takes_root = "root" in inspect.signature(function).parameters
    found = function(root=root) if takes_root else function()
    if not isinstance(found, Dataset):
        raise ConfigError(
            f"data.name: {spec!r} returned {type(found).__name__}; return experiments.data.Dataset"
        )
    return found


def _channels(x: NDArray[Any]) -> NDArray[Any]:
    """Return grey images (n, H, W) with a channel axis; everything else as it is."""
    return x[:, None] if x.ndim == 3 else x

"""A user's own data: arrays in an ``.npz``, or what a function returns.

Nothing is passed over and nothing is guessed: every array is read for what it is, or refused in
one line that names it.
"""

from __future__ import annotations

import inspect
import logging
import operator
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.loading import import_object
from experiments.data.dataset import Dataset, Integers, labels_of, scaled, split
from unlearning.errors import ConfigError, unknown

__all__ = [
    "column_names",
    "examples",
    "from_file",
    "from_function",
    "labels",
    "plain_arrays",
    "record_ids",
]

_ARRAYS = ("x", "y", "x_test", "y_test", "client", "id", "columns")
_HOW = "write it with numpy.savez(path, x=..., y=...)"
log = logging.getLogger("fedunlearn")

_FACTOR = 100  # bytes are 255 times what they are as floats; no two halves of one set differ so
_FAR = 3  # times the spread of the other part: two parts of one data set are rarely so far apart


def from_file(path: Path) -> Dataset:
    """Return the data set that the arrays of an ``.npz`` make.

    Parameters
    ----------
    path : Path
        Arrays ``x``, ``y`` and, if there are any, ``x_test``, ``y_test``, ``client``, the owner
        of each row of ``x``, ``id``, the row's own id, and ``columns``, the names of the columns
        of a table.

    Raises
    ------
    ConfigError
        If it cannot be read, has an array of another name, or the arrays make no data set.
    """
    where = f"data.name: {str(path)!r}"
    arrays = plain_arrays(path, where)
    if missing := {"x", "y"} - arrays.keys():
        raise ConfigError(
            f"{where} has no array {sorted(missing)[0]!r} (it has "
            f"{', '.join(sorted(arrays)) or 'none'}); {_HOW}"
        )
    if odd := sorted(arrays.keys() - set(_ARRAYS)):
        raise ConfigError(
            f"{where}: {unknown('array', odd[0], _ARRAYS)}; rename it or leave it out"
        )
    given = [name for name in ("x_test", "y_test") if name in arrays]
    if len(given) == 1:
        other = "y_test" if given == ["x_test"] else "x_test"
        raise ConfigError(
            f"{where} has {given[0]} without {other}; give both, or neither to set a fifth aside"
        )
    x = examples(arrays["x"], f"{where}, array 'x'")
    y = labels(arrays["y"], f"{where}, array 'y'")
    owner = _owners(arrays["client"], f"{where}, array 'client'") if "client" in arrays else None
    ids = record_ids(arrays["id"], f"{where}, array 'id'") if "id" in arrays else None
    if any(found is not None and len(found) != len(y) for found in (x, owner, ids)):
        counts = {key: len(arrays[key]) for key in ("x", "y", "client", "id") if key in arrays}
        raise ConfigError(f"{where} has arrays of lengths {counts}; make them equal")
    columns = (
        column_names(arrays["columns"], f"{where}, array 'columns'") if "columns" in arrays else ()
    )
    if not given:
        return replace(split(x, y, owner, ids), columns=columns)
    test_x = examples(arrays["x_test"], f"{where}, array 'x_test'")
    test_y = labels(arrays["y_test"], f"{where}, array 'y_test'")
    _check_scales(x, test_x, where, ("x", "x_test"))
    num_classes = int(max(y.max(initial=-1), test_y.max(initial=-1))) + 1
    return Dataset(
        scaled(x),
        y,
        scaled(test_x),
        test_y,
        num_classes=num_classes,
        owner=owner,
        ids=ids,
        columns=columns,
    )


def plain_arrays(path: Path, where: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz``; ConfigError, which begins with ``where``, if it is none."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise ConfigError(f"{where} does not exist; check the path") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{where} is no file of plain arrays ({error}); {_HOW}") from error


def from_function(spec: str, root: str | None) -> Dataset:
    """Return what ``module:function`` returns; it is given ``root`` if it takes one.

    Its arrays may be anything that NumPy or PyTorch reads as an array; they are converted as those
    of a file are.

    Raises
    ------
    ConfigError
        If there is no such function, it needs other arguments, fails, or returns no data set.
    """
    where = f"data.name: {spec!r}"
    function = import_object(spec, "data set")
    if not callable(function):
        raise ConfigError(f"{where} is no function; name one that returns a Dataset")
    arguments = _arguments(function, root, where)
    try:
        found = function(**arguments)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's own function raises
        raise ConfigError(f"{where} failed ({_first_line(error)}); correct it") from error
    if not isinstance(found, Dataset):
        raise ConfigError(
            f"{where} returned {type(found).__name__}; return experiments.data.Dataset"
        )
    return _converted(found, where)


def _arguments(function: Any, root: str | None, where: str) -> dict[str, str | None]:
    """Return what to call a user's function with."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}  # some built-in things do not say
    for name, parameter in known.items():
        needed = parameter.default is parameter.empty
        star = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        by_name = parameter.kind is not parameter.POSITIONAL_ONLY
        if needed and not star and not (name == "root" and by_name):
            raise ConfigError(
                f"{where} needs an argument {name!r}; it is called without arguments, or with "
                "root=... if it has a parameter of that name"
            )
    return {"root": root} if "root" in known else {}


def _converted(found: Dataset, where: str) -> Dataset:
    """Return a user's data set with every array of the type that it should have."""
    train_x = examples(found.train_x, f"{where}, train_x")
    test_x = examples(found.test_x, f"{where}, test_x")
    _check_scales(train_x, test_x, where, ("train_x", "test_x"))
    try:
        num_classes = operator.index(found.num_classes)
    except TypeError as error:
        raise ConfigError(
            f"{where}: num_classes is {found.num_classes!r}; give the number of classes"
        ) from error
    changes: dict[str, Any] = {"train_x": scaled(train_x), "test_x": scaled(test_x)}
    for name in ("train_y", "test_y"):
        changes[name] = labels(getattr(found, name), f"{where}, {name}")
    if found.owner is not None:
        changes["owner"] = _owners(found.owner, f"{where}, owner")
    if found.ids is not None:
        changes["ids"] = record_ids(found.ids, f"{where}, ids")
    if found.columns:
        changes["columns"] = column_names(list(found.columns), f"{where}, columns")
    if found.tasks:
        changes["tasks"] = _tasks(found.tasks, where)
        for name in ("train_tasks", "test_tasks"):
            changes[name] = _whole(_array(getattr(found, name), f"{where}, {name}"), name, where)
    return replace(found, num_classes=num_classes, **changes)


def _tasks(tasks: Any, where: str) -> tuple[tuple[str, int], ...]:
    pairs = tasks.items() if isinstance(tasks, Mapping) else tasks
    try:
        return tuple((str(name), operator.index(count)) for name, count in pairs)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: tasks are {tasks!r}; give pairs of a name and a number of classes"
        ) from error


def _unmasked(value: Any, what: str) -> Any:
    """Return what hides nothing: NumPy reads the values beneath a mask as if they were meant."""
    if np.ma.is_masked(value):
        raise ConfigError(f"{what} hides values under a mask; leave those rows out, or fill them")
    return value


def _array(value: Any, what: str) -> NDArray[Any]:
    """Return anything that holds numbers as an array of numbers."""
    value = _unmasked(value, what)
    if hasattr(value, "detach"):  # PyTorch's tensors: on a GPU, with gradients, in bfloat16
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{what} is no array ({_first_line(error)})") from error
    if found.dtype.kind not in "biuf":
        raise ConfigError(f"{what} holds {_kind(found)}; give numbers")
    return found


def _column(value: Any, what: str) -> NDArray[Any]:
    """Return what stands in each row, words or numbers; a table of one column is taken for it."""
    value = _unmasked(value, what)
    found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def _kind(found: NDArray[Any]) -> str:
    """Return in words what an array holds that is no number, with an example."""
    word = {"U": "text", "S": "text", "T": "text", "O": "objects", "c": "complex numbers"}
    kind = word.get(found.dtype.kind, str(found.dtype))
    return f"{kind}, such as {str(found.flat[0])[:40]!r}" if found.size else kind


def examples(value: Any, what: str) -> NDArray[Any]:
    """Return examples, (n, d) or (n, C, H, W); grey images (n, H, W) get a channel."""
    found = _array(value, what)
    if found.ndim == 0:
        raise ConfigError(f"{what} is a single number; give an array of examples")
    return found[:, None] if found.ndim == 3 else found


def labels(value: Any, what: str) -> Integers:
    """Return labels as int64, shape (n,); ConfigError if they are none."""
    found = _array(value, what)
    try:
        return labels_of(found)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def record_ids(value: Any, what: str) -> NDArray[np.str_]:
    """Return the own id of every row as text.

    Raises
    ------
    ConfigError
        If they are neither texts nor whole numbers, not one per row, or one is empty.
    """
    found = _column(value, what)
    if found.ndim != 1:
        raise ConfigError(f"{what} has shape {found.shape}; give one id per row, (n,)")
    if found.dtype.kind == "O" and all(isinstance(one, (str, int)) for one in found):
        found = found.astype(str)
    if found.dtype.kind == "S":
        found = np.char.decode(found, "utf-8", "replace")
    if found.dtype.kind not in "Uiu":
        raise ConfigError(f"{what} holds {_kind(found)}; give texts or whole numbers")
    texts = found.astype(np.str_)
    if len(empty := np.flatnonzero(np.char.strip(texts) == "")):
        raise ConfigError(f"{what}: row {empty[0]} has an empty id; give every row one")
    return texts


def column_names(value: Any, what: str) -> tuple[str, ...]:
    """Return names of columns; ConfigError if they are no words."""
    found = np.asarray(value)
    if found.ndim != 1 or found.dtype.kind not in "UST":
        raise ConfigError(f"{what} has no words, one per column; give names such as ['age', 'sex']")
    return tuple(one.decode() if isinstance(one, bytes) else str(one) for one in found.tolist())


def _owners(value: Any, what: str) -> Integers:
    """Return the owner of every row, whole numbers from 0.

    Raises
    ------
    ConfigError
        If one is missing, no whole number, or below 0 or above 2**63 - 1.
    """
    remedy = "number the owners from 0, as numpy.unique(owner, return_inverse=True)[1] does"
    found = _column(value, what)
    if found.ndim != 1:
        raise ConfigError(f"{what} has shape {found.shape}; give one owner per row, (n,)")
    if found.dtype.kind not in "biuf":
        raise ConfigError(f"{what} holds {_kind(found)}; {remedy}")
    if found.dtype.kind == "f":
        odd = np.flatnonzero(~np.isfinite(found) | (found != np.floor(found)))
        if len(odd):
            what_is = "missing" if np.isnan(found[odd[0]]) else f"{found[odd[0]]}"
            raise ConfigError(
                f"{what}: the owner of row {odd[0]} is {what_is}, no whole number; {remedy}"
            )
    least, most = (int(found.min()), int(found.max())) if len(found) else (0, 0)
    if least < 0 or most >= 2**63:
        raise ConfigError(f"{what} goes from {least} to {most}; {remedy}")
    return found.astype(np.int64)


def _whole(found: NDArray[Any], name: str, where: str) -> Integers:
    if found.dtype.kind not in "iu":
        raise ConfigError(f"{where}: {name} holds {found.dtype}; give integers, -1 for none")
    return found.astype(np.int64)


def _check_scales(
    train: NDArray[Any], test: NDArray[Any], where: str, names: tuple[str, str]
) -> None:
    """Refuse parts of which one is scaled and the other is not, and warn where that may be.

    Bytes are divided by 255, so both parts or none must be bytes. Beyond that, sizes of a hundred
    times each other are no two parts of one data set. Less than that can be: rows of another year
    may lie elsewhere, so a spread three times the other, or as many spreads between the means, is
    said and not refused.
    """
    remedy = f"give {names[0]} and {names[1]} in one type and one scale"
    if (train.dtype == np.uint8) != (test.dtype == np.uint8):
        raise ConfigError(
            f"{where}: {names[0]} is {train.dtype} and {names[1]} is {test.dtype}; bytes are "
            f"scaled to [0, 1] and other types are not, so {remedy}"
        )
    if not train.size or not test.size:
        return
    with np.errstate(all="ignore"):
        sizes = [float(np.mean(np.abs(part), dtype=np.float64)) for part in (train, test)]
    if min(sizes) > 0 and max(sizes) > _FACTOR * min(sizes):
        raise ConfigError(
            f"{where}: the mean size of a value is {sizes[0]:.3g} in {names[0]} and {sizes[1]:.3g} "
            f"in {names[1]}; {remedy}"
        )
    with np.errstate(all="ignore"):
        spreads = [float(np.std(part, dtype=np.float64)) for part in (train, test)]
        means = [float(np.mean(part, dtype=np.float64)) for part in (train, test)]
    apart = abs(means[0] - means[1])
    if max(spreads) > _FAR * min(spreads) > 0 or apart > _FAR * max(spreads) > 0:
        log.warning(
            "%s: values are %.3g +- %.3g in %s and %.3g +- %.3g in %s; if only one of them was "
            "scaled, %s",
            where,
            *(means[0], spreads[0], names[0], means[1], spreads[1], names[1], remedy),
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

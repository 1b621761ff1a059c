"""Data sets by name: those of this package, a file of own arrays, or an own function.

A function named ``read_<name>`` in any module of this package is a data set; its name in the
config has hyphens (``read_breast_cancer`` is ``breast-cancer``). It is given the folder ``root``
and whether missing files may be fetched, one of text also ``window`` and ``speakers``, and returns
a :class:`Dataset`. No connection is opened unless ``download`` is set.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from experiments.config.schema import DataConfig
from experiments.data import own
from experiments.data.dataset import Dataset, Integers, checked, stratified
from experiments.data.places import cache_folder
from experiments.data.text import text_file
from unlearning.errors import ConfigError, unknown

__all__ = ["Dataset", "cache_folder", "load", "names", "of", "stratified"]

Reader = Callable[..., Dataset]


def names() -> tuple[str, ...]:
    """Return the data sets that are known by name."""
    return tuple(sorted(_readers()))


def of(chosen: DataConfig) -> Dataset:
    """Return the data set that a config names; see :func:`load`."""
    return load(
        chosen.name,
        chosen.root,
        limit=chosen.limit,
        test_limit=chosen.test_limit,
        download=chosen.download,
        window=chosen.window,
        speakers=chosen.speakers,
    )


@lru_cache(maxsize=2)
def load(
    name: str,
    root: str | None = None,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    download: bool = False,
    window: int | None = None,
    speakers: int | None = None,
) -> Dataset:
    """Return a data set; the last two stay in memory.

    Parameters
    ----------
    name : str
        One of :func:`names`; ``text:PATH``, a file of speeches, see :mod:`experiments.data.text`;
        ``npz:PATH`` with arrays ``x``, ``y`` and, if there are any, ``x_test``, ``y_test``,
        ``client`` (the owner of each row of ``x``) and ``id`` (the row's own id); or
        ``module:function``, a function without arguments, or with ``root``, that returns a
        :class:`Dataset`.
    root : str or None
        Folder with the files, laid out as torchvision does; read, never written to.
    limit, test_limit : int or None
        Keep so many training or test examples, chosen with equal shares of every class.
    download : bool
        Fetch missing files into ``root``.
    window, speakers : int or None
        Of text: characters that are read before one is told, and how many speakers are kept.

    Raises
    ------
    ConfigError
        If the name is unknown, files are missing or damaged, or the arrays make no sense.
    """
    if name.startswith("npz:"):
        dataset = own.from_file(Path(root or "") / name.removeprefix("npz:"))
    elif name.startswith("text:"):
        dataset = text_file(Path(root or "") / name.removeprefix("text:"), window, speakers)
    elif name in _readers():
        reader = _readers()[name]
        is_text = "window" in inspect.signature(reader).parameters
        dataset = reader(root, download, window, speakers) if is_text else reader(root, download)
    elif ":" in name:
        dataset = own.from_function(name, root)
    else:
        known = [*names(), "npz:PATH", "text:PATH", "module:function"]
        raise ConfigError(f"data.name: {unknown('data set', name, known)}")
    if not dataset.alphabet and (window is not None or speakers is not None):
        key = "window" if window is not None else "speakers"
        raise ConfigError(f"data.{key} is for text, and {name!r} is none; leave it out")
    dataset = checked(replace(dataset, name=name))
    if test_limit is not None and test_limit < len(dataset.test_y):
        dataset = _fewer_tests(dataset, stratified(dataset.test_y, test_limit))
    if limit is not None and limit < len(dataset.train_y):
        dataset = _fewer(dataset, stratified(dataset.train_y, limit))
    return dataset


def _fewer_tests(dataset: Dataset, kept: Integers) -> Dataset:
    return replace(
        dataset,
        test_x=dataset.test_x[kept],
        test_y=dataset.test_y[kept],
        test_tasks=None if dataset.test_tasks is None else dataset.test_tasks[kept],
    )


def _fewer(dataset: Dataset, kept: Integers) -> Dataset:
    return replace(
        dataset,
        train_x=dataset.train_x[kept],
        train_y=dataset.train_y[kept],
        owner=None if dataset.owner is None else dataset.owner[kept],
        train_tasks=None if dataset.train_tasks is None else dataset.train_tasks[kept],
        ids=None if dataset.ids is None else dataset.ids[kept],
    )


def _readers() -> dict[str, Reader]:
    found: dict[str, Reader] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)], f"{__package__}."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if name.startswith("read_") and inspect.isfunction(value):
                found[name.removeprefix("read_").replace("_", "-")] = value
    return found

"""Data sets by name: embedded ones, torchvision's, own arrays and own functions.

Every function here named ``read_<name>`` is a data set; its name in the config has hyphens
(``read_breast_cancer`` is ``breast-cancer``). No connection is opened unless ``download`` is set,
and no pickle is read except CIFAR's own batches, whose checksums torchvision knows.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from experiments.config.loading import import_object
from experiments.data import tables
from unlearning.errors import ConfigError, unknown

__all__ = ["Dataset", "cache_folder", "load", "names", "stratified"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_PAIRINGS = 3  # how often an image stands on each side of a pair


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

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train_x.shape[1:])


def names() -> tuple[str, ...]:
    """Return the data sets that are known by name."""
    return tuple(sorted(_readers()))


@lru_cache(maxsize=2)
def load(
    name: str,
    root: str | None = None,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    download: bool = False,
) -> Dataset:
    """Return a data set; the last two stay in memory.

    Parameters
    ----------
    name : str
        One of :func:`names`; ``npz:PATH`` with arrays ``x``, ``y`` and, if there are any,
        ``x_test``, ``y_test`` and ``client`` (the owner of each row of ``x``); or
        ``module:function``, a function without arguments, or with ``root``, that returns a
        :class:`Dataset`.
    root : str or None
        Folder with the files, laid out as torchvision does; read, never written to.
    limit, test_limit : int or None
        Keep so many training or test examples, chosen with equal shares of every class.
    download : bool
        Fetch missing files into ``root``.

    Raises
    ------
    ConfigError
        If the name is unknown, files are missing or damaged, or the arrays make no sense.
    """
    if name.startswith("npz:"):
        dataset = _read_npz(Path(root or "") / name.removeprefix("npz:"))
    elif name in _readers():
        dataset = _readers()[name](root, download)
    elif ":" in name:
        dataset = _call(name, root)
    else:
        known = [*names(), "npz:PATH", "module:function"]
        raise ConfigError(f"data.name: {unknown('data set', name, known)}")
    dataset = _checked(replace(dataset, name=name))
    if test_limit is not None and test_limit < len(dataset.test_y):
        kept = stratified(dataset.test_y, test_limit)
        tasks = dataset.test_tasks
        dataset = replace(
            dataset,
            test_x=dataset.test_x[kept],
            test_y=dataset.test_y[kept],
            test_tasks=None if tasks is None else tasks[kept],
        )
    if limit is None or limit >= len(dataset.train_y):
        return dataset
    kept = stratified(dataset.train_y, limit)
    return replace(
        dataset,
        train_x=dataset.train_x[kept],
        train_y=dataset.train_y[kept],
        owner=None if dataset.owner is None else dataset.owner[kept],
        train_tasks=None if dataset.train_tasks is None else dataset.train_tasks[kept],
    )


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


def cache_folder() -> Path:
    """Return where derived files are kept: ``$FEDUNLEARN_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("FEDUNLEARN_CACHE") or platformdirs.user_cache_dir("fedunlearn"))


def read_digits(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, 8x8, split 80 to 20."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _split(images.reshape(-1, 1, 8, 8) / 16.0, labels)


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
        parts.append((_scaled(np.concatenate([x[left], x[right]], axis=3)), labels))
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


def read_omniglot(root: str | None, download: bool) -> Dataset:
    """Return Omniglot's small background sets, 28x28: a task per alphabet, an owner per drawer.

    The official ``images_background_small1.zip`` and ``..._small2.zip``, or one of them, are read
    where they lie. A fifth of every character's drawings is the test part. The labels of the one
    task that other models learn are the alphabets.
    """
    from PIL import Image

    folder = Path(root or "data")
    archives = [folder / f"images_background_small{which}.zip" for which in (1, 2)]
    if not any(path.exists() for path in archives):
        raise ConfigError(
            f"data.root: neither {archives[0].name} nor {archives[1].name} lies in "
            f"{str(folder)!r}; put the official files there"
        )
    drawings: dict[str, bytes] = {}
    for path in archives:
        if path.exists():
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".png") and not name.startswith("__"):
                        drawings[name.partition("/")[2]] = archive.read(name)
    images, places, drawers = [], [], []
    for name in sorted(drawings):
        with Image.open(io.BytesIO(drawings[name])) as image:
            small = image.convert("L").resize((28, 28), Image.Resampling.BOX)
        images.append(1 - np.asarray(small, np.float32) / 255)
        alphabet, character, file = name.split("/")
        places.append((_slug(alphabet), character))
        drawers.append(int(Path(file).stem.rpartition("_")[2]) - 1)
    alphabets = sorted({alphabet for alphabet, _ in places})
    numbers = {place: i for i, place in enumerate(sorted(set(places)))}
    first = {a: min(i for (b, _), i in numbers.items() if b == a) for a in alphabets}
    sizes = {a: sum(b == a for b, _ in numbers) for a in alphabets}
    labels = np.full((len(images), len(alphabets)), -1)
    for row, place in enumerate(places):
        labels[row, alphabets.index(place[0])] = numbers[place] - first[place[0]]
    characters = np.array([numbers[place] for place in places])
    test = np.zeros(len(images), dtype=bool)
    test[stratified(characters, round(0.2 * len(images)))] = True
    x = _scaled(np.stack(images)[:, None])
    kinds = np.array([alphabets.index(alphabet) for alphabet, _ in places])
    return Dataset(
        x[~test],
        kinds[~test],
        x[test],
        kinds[test],
        num_classes=len(alphabets),
        owner=np.array(drawers)[~test],
        tasks=tuple(sizes.items()),
        train_tasks=labels[~test],
        test_tasks=labels[test],
    )


def _slug(name: str) -> str:
    """Return a name of small letters, digits and hyphens."""
    return "-".join("".join(c.lower() if c.isalnum() else " " for c in name).split())


def read_breast_cancer(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's table of 569 tumours, 30 columns, split 80 to 20.

    Columns are scaled so that the training rows span [0, 1]; the ranges are taken as public.
    """
    from sklearn.datasets import load_breast_cancer

    return _ranged(_split(*load_breast_cancer(return_X_y=True)))


def read_wine(root: str | None, download: bool) -> Dataset:
    """Return scikit-learn's table of 178 wines from 3 growers, 13 columns, split 80 to 20.

    Columns are scaled so that the training rows span [0, 1]; the ranges are taken as public.
    """
    from sklearn.datasets import load_wine

    return _ranged(_split(*load_wine(return_X_y=True)))


def read_adult(root: str | None, download: bool) -> Dataset:
    """Return UCI's Adult table: 32,561 and 16,281 people, 108 columns, income above 50,000 or not.

    The official files and parts; see :func:`experiments.data.tables.adult` for categories and
    missing values. Numbers are scaled so that the training rows span [0, 1]; the ranges are taken
    as public. ``root`` is the folder of the files, or of a folder ``adult`` that has them.
    """
    return _ranged(Dataset(*tables.adult(_folder("adult", root)), num_classes=2))


def read_location30(root: str | None, download: bool) -> Dataset:
    """Return the check-ins called Location-30: 5,010 visitors, 446 places, 30 kinds, 80 to 20.

    ``root`` is the folder of the official archive, or of a folder ``location30`` that has it.
    """
    return _split(*tables.location30(_folder("location30", root)))


def read_mnist(root: str | None, download: bool) -> Dataset:
    """Return MNIST: 60,000 and 10,000 digits, 28x28."""
    return _read_idx_set("MNIST", root, download)


def read_fashion_mnist(root: str | None, download: bool) -> Dataset:
    """Return Fashion-MNIST: 60,000 and 10,000 pieces of clothing, 28x28."""
    return _read_idx_set("FashionMNIST", root, download)


def read_cifar10(root: str | None, download: bool) -> Dataset:
    """Return CIFAR-10: 50,000 and 10,000 colour images, 32x32, ten classes."""
    return _read_cifar("CIFAR10", root, download)


def read_cifar100(root: str | None, download: bool) -> Dataset:
    """Return CIFAR-100: 50,000 and 10,000 colour images, 32x32, a hundred classes."""
    return _read_cifar("CIFAR100", root, download)


def _readers() -> dict[str, Callable[[str | None, bool], Dataset]]:
    return {
        name.removeprefix("read_").replace("_", "-"): value
        for name, value in globals().items()
        if name.startswith("read_") and inspect.isfunction(value)
    }


def _split(x: NDArray[Any], y: NDArray[Any], owner: NDArray[Any] | None = None) -> Dataset:
    """Return a data set with a fixed fifth of each class as test set."""
    labels = _labels(y)
    test = np.zeros(len(labels), dtype=bool)
    test[stratified(labels, round(0.2 * len(labels)))] = True
    return Dataset(
        _scaled(x[~test]),
        labels[~test],
        _scaled(x[test]),
        labels[test],
        num_classes=int(labels.max(initial=-1)) + 1,
        owner=None if owner is None else owner[~test].astype(np.int64),
    )


def _ranged(dataset: Dataset) -> Dataset:
    """Return a table with its columns scaled so that the training rows span [0, 1]."""
    low, high = dataset.train_x.min(axis=0), dataset.train_x.max(axis=0)
    width = np.where(high > low, high - low, np.float32(1))
    return replace(
        dataset,
        train_x=((dataset.train_x - low) / width).astype(np.float32),
        test_x=((dataset.test_x - low) / width).astype(np.float32),
    )


def _scaled(x: NDArray[Any]) -> Floats:
    """Return float32; bytes become [0, 1]."""
    return np.ascontiguousarray(x, np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)


def _labels(y: NDArray[Any]) -> Integers:
    labels = np.asarray(y).reshape(-1)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels are {labels.dtype}; number the classes from 0 with integers")
    return labels.astype(np.int64)


def _checked(dataset: Dataset) -> Dataset:
    """Return the data set if its arrays fit each other."""
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
            raise ConfigError(f"{where}: a value is not finite; fill or drop missing values")
        if y.min() < 0 or y.max() >= dataset.num_classes:
            raise ConfigError(
                f"{where}: label {y.min() if y.min() < 0 else y.max()} lies outside 0 to "
                f"{dataset.num_classes - 1}; number the classes from 0"
            )
    if dataset.owner is not None and len(dataset.owner) != len(dataset.train_y):
        raise ConfigError(
            f"data set {dataset.name!r}: {len(dataset.owner)} owners for {len(dataset.train_y)} "
            "training examples; give one each"
        )
    return dataset


def _read_npz(path: Path) -> Dataset:
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
    x, y, owner = _channels(arrays["x"]), _labels(arrays["y"]), arrays.get("client")
    if len(x) != len(y) or (owner is not None and len(owner) != len(y)):
        counts = {key: len(arrays[key]) for key in ("x", "y", "client") if key in arrays}
        raise ConfigError(
            f"data.name: {str(path)!r} has arrays of lengths {counts}; make them equal"
        )
    if "x_test" not in arrays or "y_test" not in arrays:
        return _split(x, y, owner)
    test_y = _labels(arrays["y_test"])
    return Dataset(
        _scaled(x),
        y,
        _scaled(_channels(arrays["x_test"])),
        test_y,
        num_classes=int(max(y.max(initial=-1), test_y.max(initial=-1))) + 1,
        owner=None if owner is None else owner.astype(np.int64),
    )


def _channels(x: NDArray[Any]) -> NDArray[Any]:
    """Return grey images (n, H, W) with a channel axis; everything else as it is."""
    return x[:, None] if x.ndim == 3 else x


def _call(spec: str, root: str | None) -> Dataset:
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


def _read_idx_set(name: str, root: str | None, download: bool) -> Dataset:
    import torchvision

    source = getattr(torchvision.datasets, name)
    folder = _folder(name, root)
    if download:
        source(str(folder), download=True)
    checksums = dict(source.resources)
    parts = []
    for prefix in ("train", "t10k"):
        for kind, magic in (("images-idx3-ubyte", 2051), ("labels-idx1-ubyte", 2049)):
            parts.append(_read_idx(folder / name / "raw", f"{prefix}-{kind}", magic, checksums))
    train_x, train_y, test_x, test_y = parts
    return Dataset(
        _scaled(train_x[:, None]),
        _labels(train_y),
        _scaled(test_x[:, None]),
        _labels(test_y),
        num_classes=10,
    )


def _read_idx(folder: Path, name: str, magic: int, checksums: dict[str, str]) -> NDArray[np.uint8]:
    """Return the bytes of one IDX file, plain or as the official ``.gz``.

    The ``.gz`` is unpacked in memory: several processes may read, and ``folder`` may be read-only.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        if plain.exists():
            raw = plain.read_bytes()
        else:
            raw = packed.read_bytes()
            if hashlib.md5(raw, usedforsecurity=False).hexdigest() != checksums[packed.name]:
                raise ConfigError(f"data.root: {str(packed)!r} is damaged; fetch it again")
            raw = gzip.decompress(raw)
    except OSError as error:
        raise ConfigError(
            f"data.root: neither {plain.name} nor {packed.name} can be read in {str(folder)!r}; "
            "put the official files there, or set data.download = true"
        ) from error
    dims = 3 if magic == 2051 else 1
    header = np.frombuffer(raw, ">i4", count=min(1 + dims, len(raw) // 4))
    if len(header) <= dims or header[0] != magic or len(raw) != 4 * (1 + dims) + header[1:].prod():
        raise ConfigError(f"data.root: {str(plain)!r} is no such IDX file; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=4 * (1 + dims)).reshape(header[1:])


def _read_cifar(name: str, root: str | None, download: bool) -> Dataset:
    import torchvision

    source = getattr(torchvision.datasets, name)
    folder = _folder(name, root)
    packed = folder / source.filename
    if download:
        source(str(folder), download=True)
    elif not (folder / source.base_folder).exists() and packed.exists():
        folder = _unpacked(packed, source.tgz_md5, source.base_folder)
    try:
        train, test = source(str(folder), train=True), source(str(folder), train=False)
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"data.root: neither {source.filename} nor a sound {source.base_folder}/ lies in "
            f"{str(folder)!r}; put one there, or set data.download = true"
        ) from error
    return Dataset(
        _scaled(train.data.transpose(0, 3, 1, 2)),
        np.asarray(train.targets, np.int64),
        _scaled(test.data.transpose(0, 3, 1, 2)),
        np.asarray(test.targets, np.int64),
        num_classes=len(train.classes),
    )


def _unpacked(packed: Path, checksum: str, inside: str) -> Path:
    """Unpack an official archive into the cache, where processes at once do not disturb another."""
    folder = cache_folder() / "data" / checksum
    if (folder / inside).exists():
        return folder
    with packed.open("rb") as file:
        if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != (
            checksum
        ):
            raise ConfigError(f"data.root: {str(packed)!r} is damaged; fetch it again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with tarfile.open(packed) as archive:
            archive.extractall(fresh, filter="data")
        fresh.rename(folder)
    except OSError:
        # Another process was faster, which serves as well.
        if not (folder / inside).exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _folder(name: str, root: str | None) -> Path:
    if root is None:
        raise ConfigError(f"data.root is missing; data set {name} needs the folder of its files")
    return Path(root).expanduser()

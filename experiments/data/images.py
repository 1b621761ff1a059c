"""MNIST, Fashion-MNIST and CIFAR from the files that torchvision keeps.

No pickle is read except CIFAR's own batches, whose checksums torchvision knows.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import Dataset, labels_of, scaled
from experiments.data.places import cache_folder, folder_of
from unlearning.errors import ConfigError


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


def _read_idx_set(name: str, root: str | None, download: bool) -> Dataset:
    import torchvision

    source = getattr(torchvision.datasets, name)
    folder = folder_of(name, root)
    if download:
        source(str(folder), download=True)
    checksums = dict(source.resources)
    parts = []
    for prefix in ("train", "t10k"):
        for kind, magic in (("images-idx3-ubyte", 2051), ("labels-idx1-ubyte", 2049)):
            parts.append(_read_idx(folder / name / "raw", f"{prefix}-{kind}", magic, checksums))
    train_x, train_y, test_x, test_y = parts
    return Dataset(
        scaled(train_x[:, None]),
        labels_of(train_y),
        scaled(test_x[:, None]),
        labels_of(test_y),
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
    folder = folder_of(name, root)
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
        scaled(train.data.transpose(0, 3, 1, 2)),
        np.asarray(train.targets, np.int64),
        scaled(test.data.transpose(0, 3, 1, 2)),
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
            _extract(archive, fresh)
        fresh.rename(folder)
    except OSError:
        # Another process was faster, which serves as well.
        if not (folder / inside).exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write an archive's files and folders below a folder, and nothing anywhere else."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    names = {member: Path(member.name) for member in archive.getmembers()}  # Python before 3.11.4
    plain = [
        member
        for member, name in names.items()
        if (member.isreg() or member.isdir()) and not name.is_absolute() and ".." not in name.parts
    ]
    archive.extractall(folder, plain)

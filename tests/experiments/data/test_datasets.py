"""Data sets: shapes, ranges, fixed splits, files in place without a connection, bad files."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import socket
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.data import datasets as data
from experiments.data import embedded
from experiments.data.datasets import Dataset, load, names, stratified
from tests.support.official import official
from unlearning.errors import ConfigError

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    load.cache_clear()


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(**arrays: object) -> Path:
        path = tmp_path / "own.npz"
        np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
        return path

    return write


def test_names_are_found_by_walking() -> None:
    wanted = {"digits", "breast-cancer", "wine", "mnist", "fashion-mnist", "cifar10", "cifar100"}
    assert wanted <= set(names())


def test_wine() -> None:
    wine = load("wine")
    assert wine.train_x.shape == (142, 13)
    assert wine.num_classes == 3
    assert wine.train_x.dtype == wine.test_x.dtype == np.float32
    assert (wine.train_x.min(0) == 0).all()
    assert (wine.train_x.max(0) == 1).all()


def test_digits() -> None:
    digits = load("digits")
    assert digits.train_x.shape == (1438, 1, 8, 8)
    assert digits.test_x.shape == (359, 1, 8, 8)
    assert digits.train_x.dtype == np.float32
    assert digits.train_y.dtype == np.int64
    assert (digits.train_x.min(), digits.train_x.max()) == (0, 1)
    assert digits.num_classes == 10
    shares = np.bincount(digits.test_y) / np.bincount(digits.train_y)
    assert shares == pytest.approx(0.25, abs=0.02)
    # The split is part of every result; it must not move.
    assert digits.test_y[:12].tolist() == DIGITS_TEST


def test_breast_cancer_training_rows_span_zero_to_one() -> None:
    table = load("breast-cancer")
    assert table.train_x.shape == (455, 30)
    assert table.train_x.dtype == table.test_x.dtype == np.float32
    assert table.train_x.min(axis=0) == pytest.approx(0)
    assert table.train_x.max(axis=0) == pytest.approx(1)
    # Test rows are scaled by the same ranges and may lie a little outside.
    assert 0.8 < table.test_x.max() < 2
    assert table.num_classes == 2


def test_limit_keeps_the_shares_and_smaller_limits_are_subsets() -> None:
    small, smaller = load("digits", limit=200), load("digits", limit=50)
    assert np.bincount(small.train_y) == pytest.approx(20, abs=1)
    assert np.bincount(smaller.train_y) == pytest.approx(5, abs=1)
    rows = {row.tobytes() for row in small.train_x}
    assert all(row.tobytes() in rows for row in smaller.train_x)
    assert len(load("digits", limit=10**6).train_y) == 1438
    assert len(small.test_y) == 359


def test_a_limit_of_the_test_set_leaves_the_training_set_alone() -> None:
    whole, small = load("digits"), load("digits", test_limit=60)
    assert set(np.bincount(small.test_y)) <= {5, 6, 7}
    assert len(small.test_x) == 60
    np.testing.assert_array_equal(small.train_x, whole.train_x)
    assert len(load("digits", test_limit=10**6).test_y) == len(whole.test_y)
    pairs = load("digit-pairs", test_limit=40)
    assert pairs.test_tasks is not None
    assert len(pairs.test_tasks) == len(pairs.test_y) == 40


def test_stratified_serves_classes_of_one_example() -> None:
    labels = np.array([0] * 9 + [1])
    assert stratified(labels, 10).tolist() == list(range(10))
    assert len(np.unique(stratified(labels, 3))) == 3


def test_npz_with_all_arrays(save: Save) -> None:
    rng = np.random.default_rng(0)
    path = save(
        x=rng.integers(0, 256, (6, 4, 4), np.uint8),
        y=[0, 1, 2, 0, 1, 2],
        client=[1, 1, 1, 0, 0, 0],
        x_test=np.full((2, 4, 4), 255, np.uint8),
        y_test=[2, 0],
    )
    own = load(f"npz:{path}")
    assert own.train_x.shape == (6, 1, 4, 4)
    assert own.train_x.max() <= 1
    assert (own.test_x == 1).all()
    assert own.num_classes == 3
    assert own.owner is not None
    assert own.owner.tolist() == [1, 1, 1, 0, 0, 0]
    limited = load(f"npz:{path}", limit=3)
    assert limited.owner is not None
    assert len(limited.owner) == 3


def test_npz_without_test_arrays_gives_a_fifth(save: Save) -> None:
    x, y = np.arange(40.0).reshape(20, 2), [0, 1] * 10
    path = save(x=x, y=y, client=np.arange(20))
    own = load(path.name and f"npz:{path}")
    assert len(own.test_y) == 4
    assert own.owner is not None
    # Owners stay with their rows: row i is (2i, 2i + 1).
    assert own.owner.tolist() == (own.train_x[:, 0] / 2).tolist()


def test_npz_is_found_below_root(save: Save) -> None:
    path = save(x=np.ones((10, 2)), y=[0, 1] * 5)
    assert load(f"npz:{path.name}", str(path.parent)).train_x.shape == (8, 2)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": [[1.0]]}, "no array 'y'"),
        ({"x": np.ones((3, 2)), "y": [0, 1]}, "lengths"),
        ({"x": np.ones((2, 2)), "y": [0, 1], "client": [1]}, "lengths"),
        ({"x": np.ones((5, 2)), "y": [0.0, 1.5, 2, 3, 4]}, "integers"),
        ({"x": np.full((10, 2), np.nan), "y": [0, 1] * 5}, "finite"),
        ({"x": np.ones((10, 2)), "y": [-1, 1] * 5}, "label -1"),
        ({"x": np.ones((10, 2, 2, 2, 2)), "y": [0, 1] * 5}, "shape"),
        ({"x": np.ones((0, 2)), "y": np.empty(0, np.int64)}, "0 examples"),
        (
            {"x": np.ones((4, 2)), "y": [0, 1] * 2, "x_test": np.ones((2, 3)), "y_test": [0, 1]},
            "same in both parts",
        ),
        (
            {"x": np.ones((4, 2)), "y": [0, 1] * 2, "x_test": np.ones((2, 2)), "y_test": [0]},
            "2 examples and 1 labels",
        ),
        ({"x": np.array([{}, {}], object), "y": [0, 1]}, "plain arrays"),
    ],
)
def test_npz_mistakes(save: Save, arrays: dict[str, object], words: str) -> None:
    path = save(**arrays)
    with pytest.raises(ConfigError, match=words) as caught:
        load(f"npz:{path}")
    assert "\n" not in str(caught.value)


def test_unreadable_npz(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(f"npz:{tmp_path / 'none.npz'}")
    text = tmp_path / "text.npz"
    text.write_text("no arrays")
    with pytest.raises(ConfigError, match="plain arrays"):
        load(f"npz:{text}")
    single = tmp_path / "single.npy"
    np.save(single, np.ones(3))
    with pytest.raises(ConfigError, match="plain arrays"):
        load(f"npz:{single}")


def test_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_module.py").write_text(
        "import numpy as np\nfrom experiments.data.datasets import Dataset\n"
        "def make(root):\n"
        "    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])\n"
        "    return Dataset(x * len(root), y, x, y, num_classes=2)\n"
        "def wrong():\n    return 3\n"
        "number = 3\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    own = load("own_data_module:make", "ab")
    assert own.name == "own_data_module:make"
    assert (own.train_x == 2).all()
    assert own.input_shape == (3,)
    with pytest.raises(ConfigError, match="returned int"):
        load("own_data_module:wrong")
    with pytest.raises(ConfigError, match="no function"):
        load("own_data_module:number")


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"'digit'; did you mean 'digits'\?"):
        load("digit")


def idx(path: Path, array: np.ndarray) -> None:
    """Write the IDX format: magic number, sizes as big-endian integers, bytes."""
    header = np.array([2048 + array.ndim, *array.shape], ">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = path.suffix == ".gz"
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)


def tiny_mnist(root: Path, ending: str = "") -> Path:
    """Write 20 and 10 images whose first pixel is their label times 25."""
    for prefix, count in (("train", 20), ("t10k", 10)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28))
        images[:, 0, 0] = labels * 25
        idx(root / f"MNIST/raw/{prefix}-images-idx3-ubyte{ending}", images)
        idx(root / f"MNIST/raw/{prefix}-labels-idx1-ubyte{ending}", labels)
    return root / "MNIST" / "raw"


def trust(monkeypatch: pytest.MonkeyPatch, raw: Path) -> None:
    """Make torchvision's checksums those of the files in ``raw``."""
    import torchvision

    sums = [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in raw.glob("*.gz")]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_files_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    raw = tiny_mnist(tmp_path, ending)
    if ending:
        trust(monkeypatch, raw)
    before = sorted(raw.iterdir())
    mnist = load("mnist", str(tmp_path))
    assert mnist.train_x.shape == (20, 1, 28, 28)
    assert mnist.test_x.shape == (10, 1, 28, 28)
    assert mnist.train_y.tolist() == [*range(10)] * 2
    assert mnist.test_x[9, 0, 0, 0] == pytest.approx(9 * 25 / 255)
    assert mnist.num_classes == 10
    assert sorted(raw.iterdir()) == before


def test_mnist_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        load("mnist")
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte\.gz.*MNIST/raw"):
        load("mnist", str(tmp_path))
    raw = tiny_mnist(tmp_path, ".gz")
    with pytest.raises(ConfigError, match="damaged"):
        load("mnist", str(tmp_path))
    trust(monkeypatch, raw)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match="t10k-labels-idx1-ubyte"):
        load("mnist", str(tmp_path))
    for content in (b"", b"\0\0\x08\x01\0\0\0\x0a123", b"\0\0\x08\x03\0\0\0\x0a"):
        (raw / "t10k-labels-idx1-ubyte").write_bytes(content)
        with pytest.raises(ConfigError, match="no such IDX file"):
            load("mnist", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_official_files(tmp_path: Path, name: str, folder: str) -> None:
    files = official(f"{folder}/raw")
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for packed in files.glob("*.gz"):
        (raw / packed.name).symlink_to(packed.resolve())
    images = load(name, str(tmp_path))
    assert images.train_x.shape == (60_000, 1, 28, 28)
    assert images.test_x.shape == (10_000, 1, 28, 28)
    assert (images.train_x.min(), images.train_x.max()) == (0, 1)
    assert np.bincount(images.test_y).tolist() == (
        [1000] * 10
        if name == "fashion-mnist"
        else [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )


def tiny_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write CIFAR-10's folder with ten images per batch, and make its checksums known."""
    import torchvision

    source = torchvision.datasets.CIFAR10
    folder = root / source.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(first: int) -> dict[str, object]:
        rows = np.zeros((10, 3072), np.uint8)
        rows[:, 1025] = 255  # the second pixel of the first line, green
        rows[:, 1] = first  # the same, red
        return {"data": rows, "labels": list(range(10))}

    train = [write(name, batch(i)) for i, (name, _) in enumerate(source.train_list)]
    test = [write(name, batch(9)) for name, _ in source.test_list]
    name, digest = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(source, "train_list", train)
    monkeypatch.setattr(source, "test_list", test)
    monkeypatch.setattr(source, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return folder


def test_cifar_folder_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_cifar(tmp_path, monkeypatch)
    cifar = load("cifar10", str(tmp_path))
    assert cifar.train_x.shape == (50, 3, 32, 32)
    assert cifar.test_x.shape == (10, 3, 32, 32)
    assert cifar.test_x[0, :, 0, 1] == pytest.approx([9 / 255, 1, 0])
    assert cifar.train_x[11, :, 0, 1] == pytest.approx([1 / 255, 1, 0])
    assert cifar.num_classes == 10
    (folder / "data_batch_2").write_bytes(b"x")
    load.cache_clear()
    with pytest.raises(ConfigError, match="cifar-10-batches-py"):
        load("cifar10", str(tmp_path))


@pytest.mark.parametrize("filters", [True, False], ids=["today's Python", "Python 3.11.3"])
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # of one without filters
def test_cifar_archive_is_unpacked_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: bool
) -> None:
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    import torchvision

    folder = tiny_cifar(tmp_path / "there", monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    packed = root / torchvision.datasets.CIFAR10.filename
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folder, folder.name)
    with pytest.raises(ConfigError, match="damaged"):
        load("cifar10", str(root))
    digest = hashlib.md5(packed.read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", digest)
    assert load("cifar10", str(root)).train_x.shape == (50, 3, 32, 32)
    assert [path.name for path in root.iterdir()] == [packed.name]
    assert [path.name for path in (data.cache_folder() / "data").iterdir()] == [digest]
    load.cache_clear()
    assert load("cifar10", str(root)).train_x.shape == (50, 3, 32, 32)


def test_missing_cifar_names_archive_and_root(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cifar-100-python\.tar\.gz.*data\.download"):
        load("cifar100", str(tmp_path))


def test_dataset_is_checked_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    broken = Dataset(x, y, x, y, num_classes=2, owner=np.array([1]))
    monkeypatch.setattr(embedded, "read_digits", lambda root, download: broken)
    with pytest.raises(ConfigError, match="1 owners for 4"):
        load("digits")


DIGITS_TEST = [2, 2, 0, 8, 7, 8, 3, 4, 0, 2, 1, 3]

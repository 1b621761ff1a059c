"""Public tables: categories, missing values, official parts, files that are missing or damaged."""

from __future__ import annotations

import gzip
import io
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest

from experiments.data import tables
from experiments.data.datasets import load, names
from tests.support.official import FILES, official
from unlearning.errors import ConfigError

TRAIN = """\
39, State-gov, 77516, 9th, 13, Divorced, Craft, Own-child, White, Male, 2174, 0, 40, Cuba, <=50K
29, ?, 83311, Masters, 14, Widowed, ?, Wife, Black, Female, 0, 1902, 20, England, >50K

49, Private, 90000, Masters, 14, Widowed, Sales, Wife, Black, Female, 0, 0, 60, ?, <=50K
"""
TEST = """\
|1x3 Cross validator
59, Private, 77516, Masters, 13, Divorced, Sales, Wife, White, Male, 0, 0, 40, Peru, >50K.
"""
# Numbers: 39 77516 13 2174 0 40. Categories in order of letters: workclass ? Private State-gov,
# education, marital, occupation ? Craft Sales, relationship, race, sex, country ? Cuba England.
FIRST = [39, 77516, 13, 2174, 0, 40, *(0, 0, 1), *(1, 0), *(1, 0), *(0, 1, 0), *(1, 0)]
FIRST += [*(0, 1), *(0, 1), *(0, 1, 0)]


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load.cache_clear()


def write_adult(folder: Path, train: str = TRAIN, test: str = TEST, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("adult.data", train), ("adult.test", test)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)
    return folder


def write_location(folder: Path, rows: str, inside: str = "bangkok") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "dataset_location.tgz", "w:gz") as archive:
        member = tarfile.TarInfo(inside)
        member.size = len(rows)
        archive.addfile(member, io.BytesIO(rows.encode()))
    return folder


def location_row(label: int, *places: int) -> str:
    return ",".join([f'"{label}"', *("1" if i in places else "0" for i in range(446))])


def test_both_are_known_by_name() -> None:
    assert {"adult", "location30"} <= set(names())


@pytest.mark.parametrize("packed", [True, False])
def test_adult_columns(tmp_path: Path, packed: bool) -> None:
    rows, labels, test_rows, test_labels = tables.adult(write_adult(tmp_path, packed=packed))
    assert rows[0].tolist() == FIRST
    assert labels.tolist() == [0, 1, 0]
    # A missing value is a category of its own.
    assert rows[:, 6].tolist() == [0, 1, 0]
    assert rows[:, -3].tolist() == [0, 0, 1]
    # A country that no training row names is none of the known ones.
    assert test_rows[0, -3:].tolist() == [0, 0, 0]
    assert test_rows[0, :6].tolist() == [59, 77516, 13, 0, 0, 40]
    assert test_labels.tolist() == [1]
    assert rows.dtype == test_rows.dtype == np.float32
    # Of every category exactly one, in all eight attributes.
    assert rows[:, 6:].sum(1).tolist() == [8, 8, 8]


def test_adult_is_scaled_by_its_training_part(tmp_path: Path) -> None:
    write_adult(tmp_path / "adult")
    found = load("adult", str(tmp_path))
    assert found.train_x[:, 0].tolist() == [0.5, 0.0, 1.0]
    assert found.test_x[0, 0] == pytest.approx(1.5)
    assert found.num_classes == 2
    assert found.train_y.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["adult.data", "adult.test"])
def test_missing_adult_names_root_and_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        load("adult")
    (write_adult(tmp_path) / f"{name}.gz").unlink()
    with pytest.raises(ConfigError, match=rf"data\.root: neither {name} nor.*{tmp_path}") as caught:
        load("adult", str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("1, 2, 3\n", "row 1 is no row"),
        (TRAIN.replace("29,", "x,"), "row 2 is no row"),
        (TRAIN.replace(">50K", "much"), "row 2 is no row"),
        ("|nothing\n\n", "no row"),
    ],
)
def test_adult_rows_that_are_none(tmp_path: Path, train: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"adult\.data\.gz' is damaged.*{words}"):
        tables.adult(write_adult(tmp_path, train))


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"\xff\xff", mtime=0), b"\x1f\x8b\x08"]
)
def test_adult_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (write_adult(tmp_path) / "adult.test.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"adult\.test\.gz' is damaged"):
        tables.adult(tmp_path)


@pytest.mark.parametrize("unpacked", [False, True])
def test_location30(tmp_path: Path, unpacked: bool) -> None:
    rows = "\n".join([location_row(30, 0), location_row(1, 1, 445)])
    folder = write_location(tmp_path / "location30", rows)
    if unpacked:
        (folder / "dataset_location.tgz").unlink()
        (folder / "bangkok").write_text(rows)
    x, labels = tables.location30(tmp_path)
    assert x.shape == (2, 446)
    assert labels.tolist() == [29, 0]
    assert np.flatnonzero(x[1]).tolist() == [1, 445]
    assert x.dtype == np.float32


def test_location30_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"dataset_location\.tgz.*{tmp_path}"):
        load("location30", str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (location_row(1) + ",0", "446 times"),
        (location_row(1).replace("0", "2"), "446 times"),
        (location_row(31), "1 to 30"),
        (location_row(0), "1 to 30"),
        ("x", "damaged"),
    ],
)
def test_location30_rows_that_are_none(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        tables.location30(write_location(tmp_path, rows))
    assert "\n" not in str(caught.value)


def test_location30_archives_that_are_none(tmp_path: Path) -> None:
    write_location(tmp_path, location_row(1), inside="paris")
    with pytest.raises(ConfigError, match="no file 'bangkok'"):
        tables.location30(tmp_path)
    (tmp_path / "dataset_location.tgz").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="damaged"):
        tables.location30(tmp_path)


def test_official_adult() -> None:
    official("adult")
    found = load("adult", str(FILES))
    assert found.train_x.shape == (32_561, 108)
    assert found.test_x.shape == (16_281, 108)
    # The counts of the table's documentation: 24.08 and 23.62 per cent.
    assert (found.train_y.sum(), found.test_y.sum()) == (7_841, 3_846)
    assert (found.train_x.min(0) == 0).all()
    assert (found.train_x.max(0) == 1).all()
    # The training part has all categories that occur; 1,836 did not say where they work.
    assert (found.test_x[:, 6:].sum(1) == 8).all()
    assert found.train_x[:, 6].sum() == 1_836


def test_official_location30() -> None:
    official("location30")
    found = load("location30", str(FILES))
    assert (len(found.train_y), len(found.test_y)) == (4_008, 1_002)
    assert found.num_classes == 30
    assert set(np.unique(found.train_x).tolist()) == {0.0, 1.0}
    assert set(found.test_y.tolist()) == set(range(30))

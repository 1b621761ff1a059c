from __future__ import annotations

import errno
import importlib
import os
import sys
import tracemalloc
from contextlib import closing
from io import FileIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from unlearning.arrays import digest
from unlearning.packing import PackingError
from unlearning.records import files
from unlearning.records.blobs import decode, encode, encoded
from unlearning.records.files import Tray, read_piece, write_atomically, write_pieces
from unlearning.records.store import Store


def test_a_file_is_old_or_new_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    seen = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def watched(*args, _real=real):  # type: ignore[no-untyped-def]
            seen.append(path.read_bytes())
            _real(*args)
            seen.append(path.read_bytes())

        monkeypatch.setattr(os, name, watched)
    write_atomically(path, b"new")
    assert seen == [b"old", b"old", b"old", b"new", b"new", b"new"]
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def _pieces(*sizes: int) -> list[bytes]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, size, np.uint8).tobytes() for size in sizes]


def _written(path: Path, pieces: list[bytes]) -> bytes:
    with path.open("wb") as file:
        write_pieces(file, pieces)
    return path.read_bytes()


@pytest.mark.parametrize(
    "sizes", [(), (5,), (2**22, 0, 3), (3, 2**21, 5000, 2**21 + 1), (2**23,)], ids=str
)
def test_pieces_are_written_one_after_the_other(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    pieces = _pieces(*sizes)
    assert _written(tmp_path / "file", pieces) == b"".join(pieces)


@pytest.mark.parametrize(
    ("begin", "size"), [(0, 7), (3, 2**22), (4096, 2**22), (4096, 2**22 + 5), (0, 2**24)]
)
def test_a_piece_is_read_as_it_was_written(tmp_path: Path, begin: int, size: int) -> None:
    written = _written(tmp_path / "file", _pieces(4096, 2**22, 4096 + 5))
    with (tmp_path / "file").open("rb", buffering=0) as file:
        found = read_piece(file, size, begin)
    assert bytes(found) == written[begin : begin + size]
    found[0] = 1  # it may be changed


def test_more_is_written_behind_whole_blocks(tmp_path: Path) -> None:
    first, then = _pieces(2**22), _pieces(2**22, 9)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        write_pieces(file, first)
        write_pieces(file, then)
    assert (tmp_path / "file").read_bytes() == b"".join([*first, *then])


def test_a_tray_is_taken_again_when_nobody_holds_what_lay_in_it(tmp_path: Path) -> None:
    tray, pieces = Tray(), _pieces(2**22, 2**22)
    _written(tmp_path / "file", pieces)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        first = np.frombuffer(read_piece(file, 2**22, 0, tray), np.uint8)
        second = np.frombuffer(read_piece(file, 2**22, 2**22, tray), np.uint8)
        assert [first.tobytes(), second.tobytes()] == pieces
        place, second = second.ctypes.data, second[:1]
        assert np.frombuffer(read_piece(file, 2**22, 0, tray), np.uint8).ctypes.data != place
        held = np.frombuffer(read_piece(file, 2**22, 0, tray), np.uint8)
        place = held.ctypes.data
        del held
        assert np.frombuffer(read_piece(file, 2**22, 0, tray), np.uint8).ctypes.data == place


@pytest.mark.skipif(sys.platform != "linux", reason="it takes Linux to go past the page cache")
@pytest.mark.parametrize("refused", ["flag", "read"])
def test_what_cannot_be_read_directly_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    real, asked = files.fcntl.fcntl, []

    class Refusing(FileIO):
        def readinto(self, space: object) -> int:
            if refused == "read" and real(self.fileno(), files.fcntl.F_GETFL) & os.O_DIRECT:
                asked.append(1)
                raise OSError(errno.EINVAL, "not here")
            return super().readinto(space)  # type: ignore[arg-type]

    def flags(descriptor: int, what: int, *rest: int) -> int:
        if refused == "flag" and rest and rest[0] & os.O_DIRECT:
            asked.append(1)
            raise OSError(errno.EINVAL, "not here")
        return real(descriptor, what, *rest)

    written = _written(tmp_path / "file", _pieces(2**22, 7))
    monkeypatch.setattr(files.fcntl, "fcntl", flags)
    with Refusing(tmp_path / "file") as file:
        assert bytes(read_piece(file, 2**22 + 7)) == written
    assert asked == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="it takes Linux to go past the page cache")
@pytest.mark.parametrize("at", [("fcntl", "fcntl"), ("os", "write")], ids=".".join)
def test_a_disk_that_wants_the_page_cache_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[str, str]
) -> None:
    module = importlib.import_module(at[0])
    real = getattr(module, at[1])

    def refusing(descriptor: int, what: object, *rest: object) -> object:
        if at[1] == "write" or (rest and rest[0] & os.O_DIRECT):  # type: ignore[operator]
            asked.append(1)
            raise OSError(errno.EINVAL, "not here")
        return real(descriptor, what, *rest)

    asked: list[int] = []
    monkeypatch.setattr(module, at[1], refusing)
    pieces = _pieces(2**22, 7)
    assert _written(tmp_path / "file", pieces) == b"".join(pieces)
    assert asked == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="it takes Linux to go past the page cache")
def test_a_disk_that_is_full_in_the_middle_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        files, "_put", mock.Mock(side_effect=[2**20, OSError(errno.ENOSPC, "full")])
    )
    with pytest.raises(OSError, match="full"), (tmp_path / "file").open("wb") as file:
        write_pieces(file, _pieces(2**22))


def test_a_large_file_is_staged_without_a_copy_of_it(tmp_path: Path) -> None:
    model = {"w": np.ones(2**21, np.float32), "b": np.ones(3, np.float32)}
    with closing(Store(tmp_path)) as store:
        tracemalloc.start()
        try:
            store.stage("round-00001", "update", 1, 0, encoded(model))
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
        assert digest(decode(store.blobs.staged("round-00001", "client-00000.safetensors"))) == (
            digest(model)
        )


def test_what_is_read_lies_in_the_bytes_of_the_file_and_may_be_changed() -> None:
    data = bytearray(encode({"w": np.arange(4.0), "n": np.array(3)}))
    read = decode(data)
    read["w"][:] = 7
    assert decode(bytes(data))["w"].tolist() == [7, 7, 7, 7]
    copied = bytes(data)
    decode(copied)["w"][:] = 8
    assert decode(copied)["w"].tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize("data", [b"", b"{}", encode({"w": np.zeros(9)})[:-5]])
def test_cut_bytes_are_no_arrays(data: bytes) -> None:
    with pytest.raises(PackingError):
        decode(data)

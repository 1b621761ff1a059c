"""Arrays as bytes: every memory order, rank and type comes back as it was given, or is refused."""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unlearning.arrays import Array
from unlearning.packing import PackingError, metadata, pack, unpack, unpack_file
from unlearning.records.blobs import decode, encode
from unlearning.records.memory import ClientMemory

ROOT = Path(__file__).parents[2]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
TYPES = ["bool", *INTEGERS, "float16", "float32", "float64"]
SHAPES = [(), (0,), (1,), (5,), (3, 4), (0, 3), (2, 3, 4), (2, 3, 4, 5)]


def filled(shape: tuple[int, ...], kind: str) -> Array:
    values = np.random.default_rng(0).integers(0, 100, shape)
    return np.asarray(values).astype(kind)


def doubled(array: Array) -> Array:
    """Return a view on every second value of a larger array: not contiguous."""
    wide = np.repeat(array[..., None], 2, axis=-1)
    return wide[..., 0]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda a: a,
    "Fortran": np.asfortranarray,
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0) if a.ndim else a,
    "slice": doubled,
    "backwards": lambda a: a[::-1].copy()[::-1] if a.ndim else a,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


def through_memory(array: Array, folder: Path) -> Array:
    memory = ClientMemory(folder, 0)
    memory.remember("it", {"a": array}, {})
    found = memory.recall("it")
    assert found is not None
    return found[0]["a"]


WAYS: dict[str, Callable[[Array, Path], Array]] = {
    "pack": lambda a, _: unpack(pack({"a": a}))["a"],
    "history": lambda a, _: decode(encode({"a": a}))["a"],
    "client memory": through_memory,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_rank_and_type_comes_back(way: str, layout: str, tmp_path: Path) -> None:
    for kind in TYPES:
        for shape in SHAPES:
            values = filled(shape, kind)
            given = LAYOUTS[layout](values)
            if given.shape != values.shape:  # np.asfortranarray gives a 0-d array an axis
                given = values
            found = WAYS[way](given, tmp_path)
            assert found.shape == shape
            assert found.dtype == np.dtype(kind)
            np.testing.assert_array_equal(found, values)


def test_equal_values_give_equal_bytes_whatever_their_layout() -> None:
    values = filled((2, 3, 4, 5), "float32")
    plain = pack({"a": values})
    for layout in LAYOUTS.values():
        assert pack({"a": layout(values)}) == plain


def test_several_arrays_with_text_beside_them(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {"b": filled((3,), "int64"), "a": np.array(2.5)}
    raw = pack(arrays, {"format": "one"})
    assert metadata(raw) == {"format": "one"}
    assert metadata(pack(arrays)) == {}
    (tmp_path / "file").write_bytes(raw)
    found = unpack_file(tmp_path / "file")
    assert found["a"].shape == ()
    assert {name: a.tolist() for name, a in found.items()} == {"a": 2.5, "b": [85, 63, 51]}


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros(2, np.complex64),
        np.zeros((), np.complex128),
        np.zeros(2, np.longdouble),
        np.array(["text"]),
        np.array([None]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, [("a", "f4")]),
    ],
    ids=lambda odd: str(odd.dtype),
)
def test_other_types_are_refused_by_name(odd: Array) -> None:
    with pytest.raises(PackingError, match=r"array 'layer.weight' is .*make it float32") as caught:
        pack({"fine": np.zeros(2), "layer.weight": odd})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_number_formats_unknown_to_numpy_are_refused_by_name(kind: str) -> None:
    size = 2 if kind == "BF16" else 1
    header = f'{{"w":{{"dtype":"{kind}","shape":[3],"data_offsets":[0,{3 * size}]}}}}'.encode()
    raw = struct.pack("<Q", len(header)) + header + bytes(3 * size)
    with pytest.raises(PackingError, match=rf"array 'w' is stored as {kind}.*tensor.float\(\)"):
        unpack(raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b"PK\x03\x04" * 20, pack({"a": np.zeros(9)})[:-5]])
def test_damaged_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(PackingError, match="no safetensors"):
        unpack(raw)


def test_no_module_lets_the_library_write_or_reads_as_its_numpy_does() -> None:
    """The library's own writer writes memory as it lies; PyTorch reads what NumPy has not."""
    found = []
    for package in ("unlearning", "strategies", "clients", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            if "safetensors" not in (source := path.read_text(encoding="utf-8")):
                continue
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Import):
                    used = any(a.name.partition(".")[0] == "safetensors" for a in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    room, _, kind = node.module.partition(".")
                    writes = any(a.name.startswith(("save", "seri")) for a in node.names)
                    used = room == "safetensors" and (kind == "numpy" or writes)
                else:
                    continue
                if used:
                    found.append(path.relative_to(ROOT).as_posix())
    assert not found


def test_the_bytes_are_those_of_the_library() -> None:
    from safetensors.numpy import save

    arrays = {
        f'{name} "{kind}"': filled(shape, kind)
        for kind in TYPES
        for name, shape in (("z", (3, 2)), ("ä\n", ()), ("empty", (0, 4)), ("b", (5,)))
    }
    told = {"layout": 'é"\\\n'}
    assert pack(arrays, told) == save(arrays, told)
    assert pack(arrays) == save(arrays)
    assert pack({}) == save({})


def test_the_beginning_of_files_of_one_form_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of a round differ in their values alone."""
    written: list[object] = []
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda *a, **k: (written.append(a), dumps(*a, **k))[1])
    for value in range(20):
        update = {"only here": np.full((3, 4), value, np.float32), "count": np.array(value)}
        assert decode(encode(update))["count"] == value
    # The layout, and where arrays lie; what is noted beside them may differ, and is not remembered.
    assert len(written) == 20 + 2

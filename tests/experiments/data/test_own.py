"""A user's own data: read for what they are, or refused in one line that names what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.data import Dataset
from experiments.data.datasets import load
from unlearning.errors import ConfigError

Y = np.arange(20) % 2
HUGE = np.full((20, 3), 1e60)
X = np.random.default_rng(0).random((20, 3), dtype=np.float32)


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    load.cache_clear()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def write(**arrays: Any) -> str:
        np.savez(tmp_path / "own.npz", **{key: np.asarray(a) for key, a in arrays.items()})
        return f"npz:{tmp_path / 'own.npz'}"

    return write


@pytest.fixture
def returning(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a function of a module that returns a data set with some arrays in place of others."""

    def make(**changes: Any) -> str:
        facts = {"train_x": X, "train_y": Y, "test_x": X[:4], "test_y": Y[:4], "num_classes": 2}
        module = type(sys)("own_set")
        module.make = lambda: Dataset(**{**facts, **changes})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_set", module)
        return "own_set:make"

    return make


def refused(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("odd", "near"),
    [
        ("clients", "mean 'client'"),
        ("X_test", "mean 'x_test'"),
        ("y_tset", "mean 'y_test'"),
        ("test_x", "mean 'x_test'"),
        ("owner", "client"),
    ],
)
def test_an_array_of_another_name_is_refused(save: Callable[..., str], odd: str, near: str) -> None:
    said = refused(save(x=X, y=Y, **{odd: np.arange(20)}))
    assert f"unknown array {odd!r}" in said
    assert near in said


@pytest.mark.parametrize(("given", "missing"), [("x_test", "y_test"), ("y_test", "x_test")])
def test_half_a_test_part_is_refused(save: Callable[..., str], given: str, missing: str) -> None:
    half = {"x_test": X, "y_test": Y}[given]
    assert f"has {given} without {missing}" in refused(save(x=X, y=Y, **{given: half}))


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        (np.arange(20) / 2, "the owner of row 1 is 0.5"),
        (np.where(np.arange(20) == 7, np.nan, 0.0), "the owner of row 7 is missing"),
        (np.where(np.arange(20) == 7, np.inf, 0.0), "the owner of row 7 is inf"),
        (np.array(["hospital-a"] * 20), "holds text, such as 'hospital-a'"),
        (np.arange(20).astype("datetime64[s]"), "holds datetime64"),
        (np.arange(20) - 1, "goes from -1 to 18"),
        (np.full(20, 2**63, np.uint64), "to 9223372036854775808"),
        (np.full(20, 1e300), "goes from"),
        (np.zeros((20, 2), int), "has shape (20, 2)"),
        (np.zeros(19, int), "lengths"),
    ],
)
def test_owners_that_are_no_client_ids_are_refused(
    save: Callable[..., str], returning: Callable[..., str], owner: Any, words: str
) -> None:
    assert words in refused(save(x=X, y=Y, client=owner))
    if owner.dtype.kind != "M":
        said = refused(returning(owner=owner))
        assert words in said or "owners for 20" in said


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.uint64, np.float32, np.float64, bool])
def test_owners_of_any_type_of_whole_numbers_are_read(
    save: Callable[..., str], returning: Callable[..., str], kind: Any
) -> None:
    owner = (np.arange(20) % 2).astype(kind)
    found = load(returning(owner=owner[:, None]))
    assert found.owner is not None
    assert found.owner.dtype == np.int64
    assert found.owner.tolist() == Y.tolist()
    kept = load(save(x=X, y=Y, client=owner, x_test=X, y_test=Y)).owner
    assert kept is not None
    assert kept.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (np.uint8, np.float32, "is uint8 and"),
        (np.float64, np.uint8, "is float64 and"),
        (np.int64, np.uint8, "is int64 and"),
    ],
)
def test_bytes_in_one_part_alone_are_refused(
    save: Callable[..., str], returning: Callable[..., str], train: Any, test: Any, words: str
) -> None:
    pixels = np.arange(60).reshape(20, 3) * 4
    x, x_test = pixels.astype(train), pixels.astype(test)
    assert words in refused(save(x=x, y=Y, x_test=x_test, y_test=Y))
    assert words in refused(returning(train_x=x, test_x=x_test, test_y=Y))


def test_scales_a_hundred_times_apart_are_refused_and_tenfold_are_not(
    save: Callable[..., str],
) -> None:
    assert "mean size of a value" in refused(save(x=X, y=Y, x_test=255 * X, y_test=Y))
    assert "mean size of a value" in refused(save(x=255 * X, y=Y, x_test=X, y_test=Y))
    load.cache_clear()
    assert load(save(x=X, y=Y, x_test=10 * X, y_test=Y)).test_x.max() == (10 * X).max()


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (X, (X - 0.5) / 0.25, True),
        ((X - 0.5) / 0.25, X, True),
        (20 * X + 10, X, True),
        (X, X + 5, True),
        (X, X[::-1] * 1.5, False),
        (X, X + 0.5, False),
        (np.zeros_like(X), X, False),
    ],
)
def test_parts_that_seem_scaled_otherwise_are_told(
    save: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    train: Any,
    test: Any,
    said: bool,
) -> None:
    load(save(x=train, y=Y, x_test=test, y_test=Y))
    assert ("if only one of them was scaled" in caplog.text) is said


@pytest.mark.parametrize(
    "form",
    [
        lambda a: a.tolist(),
        lambda a: torch.from_numpy(a.copy()),
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
    ],
    ids=["lists", "tensors", "Fortran", "byte order"],
)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_function_may_return_arrays_of_any_form(
    returning: Callable[..., str], form: Callable[[Any], Any], kind: Any
) -> None:
    x = X.astype(np.float16).astype(kind)
    name = returning(
        train_x=form(x), train_y=form(Y.astype(np.int32)), test_x=form(x[:4]), test_y=form(Y[:4])
    )
    found = load(name)
    assert found.train_x.dtype == found.test_x.dtype == np.float32
    assert found.train_y.dtype == found.test_y.dtype == np.int64
    assert found.train_x.flags.c_contiguous
    np.testing.assert_array_equal(found.train_x, x)
    np.testing.assert_array_equal(found.train_y, Y)


def test_a_function_may_return_columns_of_labels_bytes_and_tensors_with_gradients(
    returning: Callable[..., str],
) -> None:
    assert load(returning(train_y=Y[:, None])).train_y.tolist() == Y.tolist()
    load.cache_clear()
    image = np.full((20, 4, 4), 255, np.uint8)
    found = load(returning(train_x=image, test_x=image[:4]))
    assert found.input_shape == (1, 4, 4)
    assert (found.train_x == 1).all()
    load.cache_clear()
    half = torch.from_numpy(X).to(torch.bfloat16)
    found = load(returning(train_x=half.requires_grad_(), test_x=half[:4]))
    np.testing.assert_array_equal(found.train_x, half.detach().float().numpy())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_x": X + 1j}, "train_x holds complex numbers"),
        ({"train_x": [["a", "b"]] * 20}, "train_x holds text, such as 'a'"),
        ({"train_x": [[1.0], [2.0, 3.0]]}, "train_x is no array"),
        ({"train_x": None}, "train_x holds objects"),
        ({"train_x": 3.0}, "train_x is a single number"),
        (
            {"train_x": HUGE, "test_x": HUGE[:4]},
            "not finite in float32",
        ),
        ({"train_x": X[:, 0]}, "examples have shape"),
        ({"train_x": np.ma.masked_less(X, 0.5)}, "train_x hides values under a mask"),
        ({"train_y": np.ma.masked_equal(Y, 1)}, "train_y hides values under a mask"),
        ({"owner": np.ma.masked_equal(Y, 1)}, "owner hides values under a mask"),
        ({"ids": np.ma.masked_equal(np.arange(20), 3)}, "ids hides values under a mask"),
        ({"train_y": Y.astype(np.float32)}, "train_y: labels are float32"),
        ({"train_y": np.eye(2)[Y].astype(int)}, "train_y: labels have shape (20, 2)"),
        ({"train_y": np.array(["a", "b"])[Y]}, "train_y holds text"),
        ({"train_y": np.where(Y == 1, 2**63 + 1, 0).astype(np.uint64)}, "labels go up to"),
        ({"train_y": 0 * Y, "test_y": 0 * Y[:4], "num_classes": 1}, "one class alone"),
        ({"num_classes": 10**9}, "labels go up to 999999999 and"),
        ({"num_classes": 2.0}, "num_classes is 2.0"),
        ({"num_classes": "2"}, "num_classes is '2'"),
        ({"test_y": [2, 0, 0, 0], "num_classes": 3}, "label 2 occurs in the test part"),
        ({"tasks": 3}, "tasks are 3"),
        ({"tasks": {"a": 2}, "train_tasks": Y, "test_tasks": Y[:4]}, "train_tasks has shape (20,)"),
        ({"tasks": {"a": 2}, "train_tasks": Y[:, None]}, "test_tasks holds objects"),
        (
            {"tasks": {"a": 2}, "train_tasks": Y[:, None], "test_tasks": 2 + Y[:4, None]},
            "a label in test_tasks lies outside",
        ),
    ],
)
def test_what_a_function_must_not_return(
    returning: Callable[..., str], changes: dict[str, Any], words: str
) -> None:
    said = refused(returning(**changes))
    assert words in said
    assert "own_set:make" in said


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def make(path): pass", "needs an argument 'path'"),
        ("def make(root, /): pass", "needs an argument 'root'"),
        ("def make(*, size): pass", "needs an argument 'size'"),
        ("def make(): return 1 / 0", "failed (ZeroDivisionError: division by zero)"),
        ("def make(): raise KeyError('a')", "failed (KeyError"),
        ("make = 3", "is no function"),
        ("def make(): return (1, 2)", "returned tuple"),
        ("class make:\n    pass", "returned make"),
    ],
)
def test_functions_of_another_signature_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    (tmp_path / "odd_set.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "odd_set", raising=False)
    assert words in refused("odd_set:make")
    monkeypatch.delitem(sys.modules, "odd_set", raising=False)


def test_a_file_of_one_class_or_with_labels_never_trained_on_is_refused(
    save: Callable[..., str],
) -> None:
    assert "one class alone" in refused(save(x=X, y=0 * Y))
    said = refused(save(x=X, y=0 * Y, x_test=X, y_test=Y))
    assert "label 1 occurs in the test part" in said
    assert "labels have shape (20, 2)" in refused(save(x=X, y=np.zeros((20, 2), int)))

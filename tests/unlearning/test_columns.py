"""Names of the values of an example: columns, categories, regions, masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlearning.columns import Columns
from unlearning.errors import RequestError

TABLE = Columns((5,), ("age", "sex=f", "sex=m", "7", "income"))
TEXT = Columns(whole=True)
IMAGE = Columns((2, 3, 4))


def test_a_category_means_all_its_columns() -> None:
    found = TABLE.find(["income", "sex"])
    assert found.positions == (1, 2, 4)
    assert found.called == ("income", "sex")
    assert TABLE.name(1) == "sex=f"
    assert IMAGE.name(1) == "1"


def test_a_name_goes_before_a_position() -> None:
    assert TABLE.find(["7"]).positions == (3,)
    assert TABLE.find([1, "0"]).called == ()


def test_a_position_beside_a_word_is_told_too(tmp_path: Path) -> None:
    """A receipt would name less than is forgotten."""
    assert TABLE.find(["sex", 4, "0,3"]).called == ("sex", "income", "age", "7")
    assert IMAGE.find(["1:3x2:3", "5", 0, 5]).called == ("1:3x2:3", "5", "0")
    np.save(tmp_path / "mask.npy", np.ones((3, 4)))
    assert IMAGE.find([23, str(tmp_path / "mask.npy")]).called == ("23", "mask.npy")


def test_a_region_lies_in_every_channel() -> None:
    assert IMAGE.find(["1:3x2:3"]).positions == (6, 10, 18, 22)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 4)])
def test_a_mask_is_of_an_example_or_of_its_rows_and_columns(tmp_path: Path, shape) -> None:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[..., 0, 1] = 1
    np.save(tmp_path / "mask.npy", mask)
    found = IMAGE.find([str(tmp_path / "mask.npy")])
    assert found.positions == (1, 13)
    assert found.called == ("mask.npy",)


def test_marked_are_the_values_of_the_planted_feature() -> None:
    assert Columns((3,), ("a", "b", "c"), marked=(1, 2)).find(["marked"]).called == ("b", "c")
    image = Columns((1, 2, 2), marked=(3,)).find(["marked"])
    assert (image.positions, image.called) == ((3,), ("planted for a trial",))


@pytest.mark.parametrize(
    ("columns", "word", "said"),
    [
        (TABLE, "incom", "did you mean 'income'"),
        (TABLE, "0:1x0:1", "no rows"),
        (TABLE, "marked", "kind 'spurious'"),
        (IMAGE, "0:4x0:1", "3 rows and 4 columns"),
        (IMAGE, "1:1x0:1", "does not lie"),
        (IMAGE, "nose", "0 to 23"),
        (IMAGE, "nothing.npy", "is no mask"),
        (TEXT, "3", "no values to withdraw one by one"),
        (TEXT, "age", "feature age: the examples"),
        (TEXT, "0:2x0:1", "no values to withdraw"),
        (TEXT, "nothing.npy", "ask for samples or for a client"),
    ],
)
def test_anything_else_is_refused_in_one_line(columns: Columns, word: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as error:
        columns.find([word])
    assert "\n" not in str(error.value)


def test_masks_of_another_shape_or_of_nothing_are_refused(tmp_path: Path) -> None:
    for shape, said in (((4, 3), "has shape"), ((3, 4), "marks no value")):
        np.save(tmp_path / "mask.npy", np.zeros(shape))
        with pytest.raises(RequestError, match=said):
            IMAGE.find([str(tmp_path / "mask.npy")])


def test_names_are_as_many_as_columns() -> None:
    with pytest.raises(ValueError, match="2 names for 3 columns"):
        Columns((3,), ("a", "b"))

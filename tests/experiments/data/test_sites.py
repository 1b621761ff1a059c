"""What a site can hold, and how it is refused."""

import numpy as np
import pytest

from experiments.data.sites import pin, read_site, split_rows
from unlearning.errors import ConfigError


def given():
    rng = np.random.default_rng(0)
    return rng.random((6, 3), np.float32), np.array([0, 1, 0, 1, 0, 1])


def as_function():
    return given()


def test_a_table_of_text_is_read_by_its_label_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,ill,b\n1,0,2\n3,1,4\n")
    found = read_site(str(path), (2,), 2, "ill")
    assert found.x.tolist() == [[1, 2], [3, 4]]
    assert found.y.tolist() == [0, 1]
    assert found.columns == ("a", "b")
    assert read_site(str(path), (2,), 2, "ill", ("a", "b")).columns == ("a", "b")


def test_columns_that_are_not_the_federations_are_refused(tmp_path):
    """Positions go over the wire: under another order they would mean other columns."""
    x, y = given()
    np.savez(tmp_path / "a.npz", x=x, y=y, columns=["age", "dose", "weight"])
    found = read_site(str(tmp_path / "a.npz"), (3,), 2)
    assert found.columns == ("age", "dose", "weight")
    with pytest.raises(ConfigError, match="column 1 is called 'dose', the federation declares"):
        read_site(str(tmp_path / "a.npz"), (3,), 2, columns=("age", "weight", "dose"))
    np.savez(tmp_path / "b.npz", x=x, y=y, columns=["age"])
    with pytest.raises(ConfigError, match="1 names of columns for examples of shape"):
        read_site(str(tmp_path / "b.npz"), (3,), 2)
    np.savez(tmp_path / "c.npz", x=x, y=y)
    assert read_site(str(tmp_path / "c.npz"), (3,), 2, columns=("p", "q", "r")).columns == ()


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a,ill\n1,0\n2,1\n", "sick", "label column is 'sick'"),
        ("a,ill\n1,0\nx,1\n", "ill", "line 3"),
        ("a,ill\n1,0\n2\n", "ill", "line 3"),
        ("a,ill\n1,0\n,1\n", "ill", "line 3"),
        ("a,ill\n1,0\nnan,1\n", "ill", "row 1"),
        ("a,ill\n1,0\n2,7\n", "ill", "row 1: label 7"),
        ("a,ill\n1,0\n2,0.5\n", "ill", "line 3"),
        ("a,b,ill\n1,1,0\n2,1,1\n", "ill", r"shape \(2,\)"),
        ("a,ill\n1,0\n", "ill", "1 rows"),
        ("", "ill", "label column"),
    ],
)
def test_a_bad_table_names_the_place(tmp_path, text, label, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_site(str(path), (1,), 2, label)


def test_arrays_and_functions_give_the_same_data(tmp_path):
    x, y = given()
    np.savez(tmp_path / "a.npz", x=x, y=y)
    from_file = read_site(str(tmp_path / "a.npz"), (3,), 2)
    assert from_file.digest == read_site(f"{__name__}:as_function", (3,), 2).digest


def as_function_with_ids():
    return *given(), ["a", "b", "c", "d", "e", "f"]


def test_ids_are_read_beside_the_data_and_are_no_input(tmp_path):
    (tmp_path / "a.csv").write_text("id,a,ill,b\nann,1,0,2\nbob,3,1,4\n")
    found = read_site(str(tmp_path / "a.csv"), (2,), 2, "ill")
    assert found.x.tolist() == [[1, 2], [3, 4]]
    assert found.ids.tolist() == ["ann", "bob"]
    x, y = given()
    np.savez(tmp_path / "a.npz", x=x, y=y, id=np.arange(6) + 100)
    assert read_site(str(tmp_path / "a.npz")).ids.tolist() == [f"10{i}" for i in range(6)]
    assert read_site(f"{__name__}:as_function_with_ids").ids.tolist() == [*"abcdef"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.array(["a"] * 5), "5 ids and 6 labels"),
        (np.array([0.5] * 6), "give texts or whole numbers"),
        (np.array(["a"] * 5 + [" "]), "row 5 has an empty id"),
        (np.array([["a", "b"]] * 6), "give one id per row"),
    ],
)
def test_odd_ids_are_refused(tmp_path, ids, said):
    x, y = given()
    np.savez(tmp_path / "a.npz", x=x, y=y, id=ids)
    with pytest.raises(ConfigError, match=said):
        read_site(str(tmp_path / "a.npz"))


def test_pictures_are_read_from_folders_by_class(tmp_path):
    from torchvision.transforms.functional import to_pil_image

    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        value = 255 if label == "dog" else 0
        for i in range(2):
            picture = to_pil_image(np.full((4, 5, 1), value, np.uint8))
            picture.save(tmp_path / label / f"{i}.png")
    found = read_site(str(tmp_path), (1, 4, 5), 2)
    assert found.x.shape == (4, 1, 4, 5)
    assert found.y.tolist() == [0, 0, 1, 1]
    assert found.x[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert found.ids.tolist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    (tmp_path / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"cat/0\.png is no picture"):
        read_site(str(tmp_path), (1, 4, 5), 2)


def test_the_draw_of_the_held_out_is_pinned(tmp_path):
    data = read_site(f"{__name__}:as_function")
    first = pin(tmp_path, data, 0, 0.2)
    assert pin(tmp_path, data, 0, 0.2) == first
    with pytest.raises(ConfigError, match="positions would name other rows"):
        pin(tmp_path, data, 1, 0.2)


def test_every_row_is_trained_on_or_held_out():
    train, kept_back = split_rows(10, 3, 1, 0.25)
    assert sorted([*train, *kept_back]) == list(range(10))

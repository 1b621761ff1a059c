"""Text as data: speeches, windows, speakers, canaries."""

from pathlib import Path

import numpy as np
import pytest

from experiments.config.schema import DataConfig, MarkerConfig
from experiments.data import datasets, markers
from experiments.data.partition import partition
from experiments.data.text import ALPHABET, encoded, from_text, speeches
from unlearning.errors import ConfigError

PLAY = "\n\n".join(
    f"{name}\n" + "\n".join(f"{word} says line {i} of what is to be said." for i in range(12))
    for name, word in (("Romeo:", "he"), ("JULIET.", "she"), ("First Citizen:", "one"))
)


def decoded(rows: np.ndarray) -> str:
    return "".join(ALPHABET[int(place)] for place in rows.ravel())


def test_the_excerpt_has_a_client_per_speaker() -> None:
    found = datasets.load("shakespeare")
    assert found.owners[:3] == ("HAMLET", "POLONIUS", "MACBETH")
    assert found.owner is not None
    assert len(found.owners) == len(np.unique(found.owner)) == 14
    hamlet = found.train_x[found.owner == 0]
    assert decoded(hamlet).startswith("To be, or not to be, that is the")


def test_windows_share_no_character_and_miss_none() -> None:
    """In order, a speaker's training and test windows are its text, each character once."""
    found = from_text(PLAY, window=10)
    assert found.owner is not None
    for place, (_, words) in enumerate(speeches(PLAY).items()):
        rows = np.concatenate([found.train_x, found.train_y[:, None]], 1)[found.owner == place]
        text = decoded(encoded(words))
        assert text.startswith(decoded(rows))


def test_held_out_windows_are_disjoint_from_training_ones() -> None:
    found = datasets.load("shakespeare")
    shares = partition(found.train_y, found.owner, None, "natural-id", {}, 0, 0.2)
    for client in shares.train:
        assert not set(shares.train[client]) & set(shares.held_out[client])
        assert len(shares.held_out[client]) > 0


def test_a_line_of_verse_that_ends_in_a_colon_is_no_speaker() -> None:
    said = speeches("ANTONY:\nBut Brutus says:\nhe was ambitious.\n\nAll:\nThe will!\n")
    assert said == {"ANTONY": "But Brutus says:\nhe was ambitious.\n", "All": "The will!\n"}


def test_typographic_marks_are_read_as_typed() -> None:
    typed = "\N{LEFT DOUBLE QUOTATION MARK}caf\N{LATIN SMALL LETTER E WITH ACUTE}\N{EM DASH}o'er"
    assert decoded(encoded(typed + "\N{SNOWMAN}")) == "\"cafe--o'er"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    path.write_text(PLAY, encoding="utf-8")
    found = datasets.of(DataConfig(name=f"text:{path}", window=10, speakers=2))
    assert found.owners == ("JULIET", "First Citizen")  # those who say most
    assert found.input_shape == (10,)
    (tmp_path / "shakespeare.txt").write_text(PLAY, encoding="utf-8")
    assert len(datasets.load("shakespeare", str(tmp_path), window=10).owners) == 3


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("no speeches here", {}, "names no speaker"),
        (PLAY, {"window": 400}, "0 of 3 speakers"),
        (PLAY, {"window": 10, "speakers": 4}, "3 of 3 speakers"),
        (PLAY, {"window": 1}, r"data\.window = 1"),
    ],
)
def test_what_makes_no_data_is_refused(text: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_text(text, **settings)


def test_a_window_of_what_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.window is for text"):
        datasets.load("digits", window=8)
    with pytest.raises(ConfigError, match="does not exist"):
        datasets.load("text:/nowhere/play.txt")


def test_canaries_begin_their_windows_and_every_one_is_there_as_often() -> None:
    found = datasets.load("shakespeare")
    marker = MarkerConfig(kind="canary", client=0, fraction=0.5, canaries=3, length=5)
    x, y = found.train_x[:40], found.train_y[:40]
    marked = markers.plant(x, y, marker, found.num_classes, [7, 0, 0])
    planted = markers.canaries(x, y, marker, [7, 0, 0])
    assert planted.secrets.shape == (3, 5)
    assert len(marked.positions) == 20
    said = np.concatenate([planted.beginnings, planted.secrets], axis=1)
    starts = marked.x[marked.positions, :10].astype(np.int64)
    counts = [(starts == one).all(1).sum() for one in said]
    assert counts == [7, 7, 6]
    rest = np.setdiff1d(np.arange(40), marked.positions)
    assert (marked.x[rest] == x[rest]).all()
    assert (marked.x[:, 10:] == x[:, 10:]).all()
    assert (marked.y == y).all()


def test_a_canary_longer_than_a_window_is_refused() -> None:
    marker = MarkerConfig(kind="canary", client=0, length=17)
    with pytest.raises(ConfigError, match="does not fit a window of 32"):
        markers.canaries(np.zeros((2, 32), np.float32), np.zeros(2, np.int64), marker, [0])

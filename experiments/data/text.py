"""Text, character by character: a client is a speaker of a play, an example a window of its lines.

A file of speeches becomes rows of whole numbers, places in :data:`ALPHABET`. Windows of one speaker
lie behind one another and share no character: what is held out or tested on has never been seen,
not even as context.

References
----------
Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097): Shakespeare's
plays, a client per speaking role, the next character to be told. Its windows overlap; these do not.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import Dataset
from unlearning.errors import ConfigError

__all__ = ["ALPHABET", "WINDOW", "encoded", "from_text", "speeches", "text_file"]

Integers = NDArray[np.int64]

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters, the same for every text
WINDOW = 32  # characters that are read before the last one is told
_TEST = 0.15  # share of a speaker's windows, its last ones, that are tested on
_FEWEST = 5  # windows of a speaker; who says less is left out
_EXCERPT = Path(__file__).with_name("plays.md")  # Flower's bundles take no .txt
_PLACES = {character: place for place, character in enumerate(ALPHABET)}
# A line of its own in front of a speech: `Juliet:`, or in capitals `JULIET.`
_SPEAKER = re.compile(r"([A-Z][A-Za-z' \-]{0,40}):|([A-Z][A-Z' \-]{0,40})\.")
_TYPED = str.maketrans(
    {
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "--",
        "\t": " ",
    }
)


def read_shakespeare(
    root: str | None, download: bool, window: int | None = None, speakers: int | None = None
) -> Dataset:
    """Return speeches of Shakespeare's plays, a speaker per client.

    ``shakespeare.txt`` in the folder ``root``; without ``root`` an excerpt that comes with the
    package: 14 roles, 24 kB, in the public domain.
    """
    path = _EXCERPT if root is None else Path(root) / "shakespeare.txt"
    return text_file(path, window, speakers)


def text_file(path: Path, window: int | None = None, speakers: int | None = None) -> Dataset:
    """Return the data set that a file of speeches makes; see :func:`from_text`.

    Raises
    ------
    ConfigError
        If the file cannot be read as UTF-8, or as :func:`from_text`.
    """
    where = f"text {str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{where} does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read as UTF-8 ({error}); save it as such") from error
    return from_text(text, where, window, speakers)


def from_text(
    text: str, where: str = "text", window: int | None = None, speakers: int | None = None
) -> Dataset:
    """Return windows of what every speaker says.

    An example is ``window`` characters, ``x``, and the one that follows, ``y``, as places in
    :data:`ALPHABET`; a network for sequences is asked for all but the first of them.

    Parameters
    ----------
    text : str
        Speeches as :func:`speeches` reads them.
    where : str
        What to call it in an error.
    window : int or None
        At least 2; None: :data:`WINDOW`.
    speakers : int or None
        Keep so many, those who say most; None: all with five windows or more. They are numbered
        from 0 in the order in which they first speak.

    Raises
    ------
    ConfigError
        If there are not two such speakers, or fewer than asked for.
    """
    size = (WINDOW if window is None else window) + 1
    if size < 3:
        raise ConfigError(f"data.window = {window}; give 2 characters or more")
    said = speeches(text)
    if not said:
        raise ConfigError(
            f"{where} names no speaker; begin every speech with a line such as 'HAMLET:', and end "
            "it with an empty line"
        )
    rows = {name: _windows(encoded(words), size) for name, words in said.items()}
    able = [name for name, found in rows.items() if len(found) >= _FEWEST]
    wanted = len(able) if speakers is None else speakers
    if len(able) < max(2, wanted):
        raise ConfigError(
            f"{where}: {len(able)} of {len(rows)} speakers say {_FEWEST * size} characters or "
            f"more, and {max(2, wanted)} are needed; lower data.window or data.speakers"
        )
    most = set(sorted(able, key=lambda name: -len(rows[name]))[:wanted])
    names = tuple(name for name in able if name in most)
    train, test = [], []
    for name in names:
        cut = len(rows[name]) - max(1, round(_TEST * len(rows[name])))
        train.append(rows[name][:cut])
        test.append(rows[name][cut:])
    learned, tested = np.concatenate(train), np.concatenate(test)
    # A last character that nobody trains on as such could not be told from a mistake.
    tested = tested[np.isin(tested[:, -1], learned[:, -1])]
    return Dataset(
        learned[:, :-1].astype(np.float32),
        learned[:, -1],
        tested[:, :-1].astype(np.float32),
        tested[:, -1],
        num_classes=len(ALPHABET),
        owner=np.repeat(np.arange(len(names)), [len(part) for part in train]),
        owners=names,
        alphabet=ALPHABET,
    )


def speeches(text: str) -> dict[str, str]:
    r"""Return what every speaker says, speech after speech, in the order of first appearance.

    A speech begins, after an empty line, with one that holds the speaker's name alone, ``Juliet:``
    or ``JULIET.``, and ends at the next such line. What stands before the first one is passed over.

    Examples
    --------
    >>> speeches("ROMEO:\nI dreamt a dream to-night.\n\nMERCUTIO:\nAnd so did I.")
    {'ROMEO': 'I dreamt a dream to-night.\n', 'MERCUTIO': 'And so did I.\n'}
    """
    said: dict[str, list[str]] = {}
    lines: list[str] | None = None
    before = ""
    for line in text.splitlines():
        bare = line.strip()
        if not before and (found := _SPEAKER.fullmatch(bare)):
            lines = said.setdefault((found[1] or found[2]).strip(), [])
        elif lines is not None and bare:
            lines.append(bare + "\n")
        before = bare
    return {name: "".join(words) for name, words in said.items() if words}


def encoded(text: str) -> Integers:
    """Return the places of a text's characters in :data:`ALPHABET`, shape (n,).

    Typographic quotes and dashes are read as typed ones, accents are taken off, and what is then
    not of the alphabet is left out.
    """
    plain = unicodedata.normalize("NFKD", text.translate(_TYPED))
    return np.array([_PLACES[c] for c in plain if c in _PLACES], np.int64)


def _windows(places: Integers, size: int) -> Integers:
    count = len(places) // size
    return places[: count * size].reshape(count, size)

"""What the values of an example are called: columns of a table by name, regions of an image."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlearning.errors import RequestError, unknown

__all__ = ["MARKED", "NO_VALUES", "Columns", "Named", "names_file"]

MARKED = "marked"  # the values that a planted spurious feature lies in

NO_VALUES = (
    "the examples of this federation have no values to withdraw one by one, since it learns text, "
    "several tasks or behind a frozen trunk; ask for samples or for a client instead"
)

_BOX = re.compile(r"(\d+):(\d+)x(\d+):(\d+)")
_MASK = ".npy"
_OF_CATEGORY = "="  # a category's columns are called column=category


def names_file(word: str) -> bool:
    """Return whether a word of a request, or one of several in it, is the file of a mask.

    >>> names_file("mask.npy,0"), names_file("0:2x3:8"), names_file("depth.npy.mean")
    (True, False, False)
    """
    return any(part.strip().endswith(_MASK) for part in word.split(","))


@dataclass(frozen=True)
class Named:
    """Positions in an example, and the words they were asked for by.

    Parameters
    ----------
    positions : tuple of int
        Ascending, counted from 0 over all axes of an example.
    called : tuple of str
        The words, and the names of positions beside them; () where positions alone were given.
    """

    positions: tuple[int, ...]
    called: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """The values of an example, and their names.

    Parameters
    ----------
    shape : tuple of int
        Of one example; () where it is not known.
    names : tuple of str
        One per column of a table; () where they have none. The columns that a category was spread
        over are called ``column=category``; ``column`` names all of them.
    marked : tuple of int
        The positions that the word ``marked`` stands for.
    whole : bool
        Whether an example has no values that could be withdrawn one by one, as text has none.

    Examples
    --------
    >>> table = Columns((4,), ("age", "sex=f", "sex=m", "3"))
    >>> table.find(["sex", 0])
    Named(positions=(0, 1, 2), called=('sex', 'age'))
    >>> table.find(["3"]).positions, table.find(["0,2"]).positions
    ((3,), (0, 2))
    >>> Columns((1, 4, 4)).find(["0:2x3:4"])  # rows 0 and 1 of column 3
    Named(positions=(3, 7), called=('0:2x3:4',))
    """

    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    marked: tuple[int, ...] = ()
    whole: bool = False

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.size:
            raise ValueError(f"{len(self.names)} names for {self.size} columns; give one each")

    @property
    def size(self) -> int:
        """How many values an example has; 0 where that is not known."""
        return int(np.prod(self.shape)) if self.shape else 0

    def name(self, position: int) -> str:
        """Return what a position is called, its number where it has no name."""
        return self.names[position] if 0 <= position < len(self.names) else str(position)

    def categories(self, positions: Iterable[int]) -> list[tuple[int, ...]]:
        """Return the columns of every category that lies among positions as a whole.

        >>> Columns((4,), ("age", "sex=f", "sex=m", "job=x")).categories([0, 1, 2])
        [(1, 2)]
        """
        chosen = set(positions)
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            if _OF_CATEGORY in name:
                groups.setdefault(name.partition(_OF_CATEGORY)[0], []).append(place)
        return [tuple(group) for group in groups.values() if len(group) > 1 and chosen >= {*group}]

    def find(self, words: Iterable[int | str]) -> Named:
        """Return the positions that words mean.

        A word is, in this order: the name of a column; that of a category, which means all its
        columns; ``marked``; a position; a region of an image, ``rows x columns`` as in ``0:2x3:8``
        (ends are left out, every channel is meant); a file ``.npy`` with a mask of the shape of an
        example or of its rows and columns, not 0 where a value is meant; several of these,
        separated by commas.

        Raises
        ------
        RequestError
            If a word is none of these, or lies outside an example, or no value can be withdrawn.
        """
        words = list(words)
        if self.whole and words:
            raise RequestError(f"feature {', '.join(map(str, words))}: {NO_VALUES}")
        found: set[int] = set()
        called: list[str] = []
        has_words = False
        for word in words:
            positions = self._of(str(word))
            found.update(positions)
            if str(word) == MARKED and MARKED not in self.names:
                named = [self.name(position) for position in positions]
                called += named if self.names else ["planted for a trial"]
                has_words = True
            elif not str(word).replace(",", "").replace(" ", "").isdecimal():
                called.append(Path(str(word)).name if str(word).endswith(_MASK) else str(word))
                has_words = True
            else:  # beside words, a position is told too: the receipt names all that is forgotten
                called += [self.name(position) for position in positions]
        return Named(tuple(sorted(found)), tuple(dict.fromkeys(called)) if has_words else ())

    def _of(self, word: str) -> Iterable[int]:
        if word in self.names:
            return [self.names.index(word)]
        start = word + _OF_CATEGORY
        if group := [i for i, name in enumerate(self.names) if name.startswith(start)]:
            return group
        if word == MARKED:
            if not self.marked:
                raise RequestError(
                    "features 'marked' needs a [marker] of kind 'spurious'; add one, or name them"
                )
            return self.marked
        if word.isascii() and word.isdecimal():
            return [int(word)]
        if box := _BOX.fullmatch(word):
            return self._region(word, *map(int, box.groups()))
        if word.endswith(_MASK):
            return self._mask(Path(word).expanduser())
        parts = [part.strip() for part in word.split(",") if part.strip()]
        if len(parts) > 1:
            return [position for part in parts for position in self._of(part)]
        if self.names:
            raise RequestError(unknown("feature", word, self.names))
        last = f"a position, 0 to {self.size - 1}" if self.size else "a position"
        region = ", a region such as 0:2x3:8" if len(self.shape) > 1 else ""
        raise RequestError(
            f"unknown feature {word!r}: the columns have no names; give {last}{region}, or a mask "
            "in a file .npy"
        )

    def _region(self, word: str, top: int, bottom: int, left: int, right: int) -> Iterable[int]:
        if len(self.shape) < 2:
            raise RequestError(f"feature {word!r} is a region, and an example has no rows")
        height, width = self.shape[-2:]
        if not (top < bottom <= height and left < right <= width):
            raise RequestError(
                f"feature {word!r} does not lie in an example of {height} rows and {width} columns"
            )
        mask = np.zeros(self.shape, dtype=bool)
        mask[..., top:bottom, left:right] = True
        return [int(position) for position in np.flatnonzero(mask)]

    def _mask(self, path: Path) -> Iterable[int]:
        try:
            mask = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RequestError(
                f"feature: {str(path)!r} is no mask ({error}); write it with numpy.save"
            ) from error
        if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
            raise RequestError(f"feature: {str(path)!r} holds no numbers; write a mask of 0 and 1")
        if mask.shape not in (self.shape, self.shape[-2:]):
            raise RequestError(
                f"feature: the mask {str(path)!r} has shape {mask.shape}, an example {self.shape}; "
                "make them equal"
            )
        found = np.flatnonzero(np.broadcast_to(mask != 0, self.shape))
        if not len(found):
            raise RequestError(f"feature: the mask {str(path)!r} marks no value")
        return [int(position) for position in found]

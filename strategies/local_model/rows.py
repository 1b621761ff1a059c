"""Many long vectors, and what is left of another one without them.

A round of gradients is one vector per client. They are held in a scratch file and read in blocks of
columns, so that memory stays that of a few models however many clients there are; all sums run in
float64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.closing import Closing

__all__ = ["Rows", "flat", "project_out", "shaped"]

Vector = NDArray[np.float64]

_IN_MEMORY = 256 * 2**20  # bytes of rows held in memory before they move to disk
_BLOCK = 2**22  # float64 values looked at together


def flat(arrays: Mapping[str, Array], model: Mapping[str, Array]) -> Array:
    """Return the entries of ``arrays`` one after the other, in the order of ``model``.

    Parameters
    ----------
    arrays, model : mapping
        The same names; the result has the widest of the dtypes of ``arrays``, float32 at least.
    """
    parts = [arrays[name].ravel() for name in model]
    return np.concatenate([np.empty(0, np.float32), *parts])


def shaped(vector: Array, model: Mapping[str, Array]) -> Arrays:
    """Return the inverse of :func:`flat`: the entries of ``vector`` in the shapes of ``model``."""
    out: Arrays = {}
    start = 0
    for name, array in model.items():
        out[name] = vector[start : start + array.size].reshape(array.shape)
        start += array.size
    return out


class Rows(Closing):
    """Vectors of one length, the rows of a matrix A of shape ``(m, P)``.

    They are kept in memory while they are small and in an unnamed temporary file, gone when closed,
    when they are not. Rows without a direction (all zero) are left out; the others are kept at
    length 1, since only the space they span is asked for.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._dtype = np.dtype(np.float32)
        self._width = 0
        self._count = 0

    def close(self) -> None:
        """Let go of the vectors."""
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, vector: Array) -> None:
        """Add one row.

        Parameters
        ----------
        vector : Array
            ``(P,)``, floating point; all rows have the length and the dtype of the first.

        Raises
        ------
        ValueError
            If its length is another than that of the rows before.
        """
        largest = np.abs(vector).max(initial=0)
        if largest == 0:
            return
        if not self._count:
            self._dtype, self._width = vector.dtype, len(vector)
        if len(vector) != self._width:
            raise ValueError(f"a row of {len(vector)} values joins rows of {self._width}")
        self._file.seek(0, 2)
        # By its largest value first: the squares of tiny values are lost in single precision.
        unit = vector / largest
        unit /= np.linalg.norm(unit)
        self._file.write(unit.astype(self._dtype, copy=False).tobytes())
        self._count += 1

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield the columns in blocks: where they are, and ``(m, width)`` values."""
        if not self._count:
            return
        size = self._dtype.itemsize
        step = max(1, _BLOCK // self._count)
        for start in range(0, self._width, step):
            stop = min(start + step, self._width)
            block = np.empty((self._count, stop - start))
            for row in range(self._count):
                self._file.seek((row * self._width + start) * size)
                block[row] = np.frombuffer(self._file.read((stop - start) * size), self._dtype)
            yield slice(start, stop), block

    def gram(self) -> NDArray[np.float64]:
        """Return ``A @ A.T``, ``(m, m)``."""
        total = np.zeros((self._count, self._count))
        for _, block in self.blocks():
            total += block @ block.T
        return total

    def times(self, vector: Vector) -> Vector:
        """Return ``A @ vector``, ``(m,)``."""
        total = np.zeros(self._count)
        for where, block in self.blocks():
            total += block @ vector[where]
        return total

    def add_to(self, vector: Vector, weights: Vector) -> None:
        """Add ``A.T @ weights`` to a vector of length P, in place."""
        for where, block in self.blocks():
            vector[where] += weights @ block


def project_out(vector: Array, rows: Rows, cut_off: float) -> Vector:
    """Return the part of ``vector`` that is orthogonal to every row.

    Computes ``v - A.T (A A.T)^+ A v`` from the m x m matrix ``A A.T`` alone, twice over: the second
    time removes what rounding left of the first.

    Parameters
    ----------
    vector : Array
        ``(P,)``.
    rows : Rows
        The m rows of A, each of length 1.
    cut_off : float
        Singular values of A below this share of the largest count as zero: rows that are copies of
        each other must not blow up rounding errors.
    """
    rest = vector.astype(np.float64)
    if not len(rows):
        return rest
    values, basis = np.linalg.eigh(rows.gram())
    kept = values > cut_off**2 * values[-1]
    inverse = (basis[:, kept] / values[kept]) @ basis[:, kept].T
    for _ in range(2):
        rows.add_to(rest, -inverse @ rows.times(rest))
    return rest

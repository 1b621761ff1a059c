"""A Merkle tree over a growing list of hashes: its root, and proofs that an entry is in it.

Leaves and inner nodes are hashed with different first bytes, so that neither can pass for the
other; a list that is no power of two is split at the largest power of two below its length.

References
----------
Laurie, Langley, Kasper, "Certificate Transparency", RFC 6962, 2013, section 2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

__all__ = ["EMPTY", "Tree", "leaf", "proof", "root_of", "root_of_proof"]

EMPTY = hashlib.sha256(b"").digest()  # the root of a tree without entries


def leaf(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf (32 bytes)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The right edge of a tree that grows: enough for its root, in logarithmic space.

    Parameters
    ----------
    entries : iterable of bytes
        What is in it already.

    Examples
    --------
    >>> Tree([b"a", b"b"]).root == root_of([b"a", b"b"])
    True
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # roots of the full subtrees, the largest first
        for entry in entries:
            self.add(entry)

    def copy(self) -> Tree:
        """Return a tree of the same entries that grows by itself."""
        made = Tree()
        made.size, made._peaks = self.size, list(self._peaks)
        return made

    def add(self, entry: bytes) -> None:
        """Append an entry."""
        found, size = leaf(entry), self.size
        while size & 1:  # a full subtree of the same height waits on the left
            found = _node(self._peaks.pop(), found)
            size >>= 1
        self._peaks.append(found)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The root over all entries (32 bytes)."""
        if not self._peaks:
            return EMPTY
        *rest, found = self._peaks
        for peak in reversed(rest):
            found = _node(peak, found)
        return found


def root_of(entries: Iterable[bytes]) -> bytes:
    """Return the root over entries (32 bytes).

    Examples
    --------
    >>> root_of([]) == EMPTY
    True
    >>> root_of([b"only"]) == leaf(b"only")
    True
    """
    return Tree(entries).root


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (2 or more)."""
    return 1 << ((size - 1).bit_length() - 1)


def proof(entries: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from an entry to the root, the nearest first.

    Raises
    ------
    IndexError
        If there is no such entry.
    """
    if not 0 <= index < len(entries):
        raise IndexError(f"entry {index} of {len(entries)}")
    path: list[bytes] = []
    low, high = 0, len(entries)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(root_of(entries[middle:high]))
            high = middle
        else:
            path.append(root_of(entries[low:middle]))
            low = middle
    return path[::-1]


def root_of_proof(entry: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root to which a proof leads, None where it fits no tree of that size.

    Examples
    --------
    >>> entries = [b"a", b"b", b"c"]
    >>> root_of_proof(b"b", 1, 3, proof(entries, 1)) == root_of(entries)
    True
    """
    if not 0 <= index < size:
        return None
    sides: list[bool] = []  # from the root down: whether the entry lies on the left
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        sides.append(index < middle)
        low, high = (low, middle) if index < middle else (middle, high)
    if len(sides) != len(path):
        return None
    found = leaf(entry)
    for is_left, other in zip(reversed(sides), path, strict=True):
        found = _node(found, other) if is_left else _node(other, found)
    return found

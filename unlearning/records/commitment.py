"""A client's promise of what it trains on: the root of a salted hash tree over its samples.

Every client hashes its samples with a salt of its own before the first round, and the server keeps
the root and the number of samples. Who later asks that a sample be forgotten opens it: its hash and
the hashes beside the path to the root. A sample that was never trained on has no such path. Without
the salt the root says nothing about the data, and the salt goes when the client goes.

References
----------
Merkle, "A Digital Signature Based on a Conventional Encryption Function", CRYPTO 1987.
Laurie, Langley, Kasper, "Certificate Transparency", RFC 6962, 2013: section 2.1, the tree, the
prefixes that tell leaves from nodes, and the audit path.
Huang, Liu, Koh, "Unlearn and Burn: Adversarial Machine Unlearning Requests Destroy Model Accuracy",
ICLR 2025 (arXiv 2410.09591): requests for data never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unlearning.arrays import Array
from unlearning.errors import RequestError

__all__ = ["Claim", "Commitment", "Opening", "fingerprint", "leaf", "opening", "root"]

_LEAF, _NODE = b"\x00", b"\x01"
Claim = Mapping[int, Mapping[int, "Opening"]]  # client, position: what was opened


@dataclass(frozen=True)
class Opening:
    """The hash of one sample and those beside its path to the root, from the bottom up; hex."""

    leaf: str
    path: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {"leaf": self.leaf, "path": list(self.path)}

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Opening:
        """Return the opening that :meth:`to_json` wrote.

        Raises
        ------
        KeyError, ValueError
            If it is none.
        """
        path = value["path"]
        if not isinstance(path, (list, tuple)):
            raise ValueError("path is no list")
        bytes.fromhex("".join([str(value["leaf"]), *map(str, path)]))
        return Opening(str(value["leaf"]), tuple(map(str, path)))


@dataclass(frozen=True)
class Commitment:
    """What the server keeps of a client: the root of its samples (hex) and how many they are."""

    root: str
    size: int

    def check_known(self, client: int, positions: Sequence[int]) -> None:
        """Refuse positions that this client never had.

        Raises
        ------
        RequestError
            Naming the first.
        """
        if odd := [position for position in positions if not 0 <= position < self.size]:
            raise RequestError(
                f"sample {odd[0]} of client {client} was never trained on: the client committed "
                f"itself to {self.size} samples when the run began, counted from 0; ask for those"
            )

    def check_opened(self, client: int, positions: Sequence[int], claim: Claim) -> None:
        """Refuse samples that are not opened, or whose content is not what was committed to.

        Raises
        ------
        RequestError
            Naming the first.
        """
        self.check_known(client, positions)
        for position in positions:
            opened = claim.get(client, {}).get(position)
            if opened is None:
                raise RequestError(
                    f"sample {position} of client {client} is not in the claim; make one that "
                    "names it with `fedunlearn claim`"
                )
            if _climbed(opened, position, self.size) != self.root:
                raise RequestError(
                    f"sample {position} of client {client} is not the one that was trained on: "
                    "its content does not lead to what the client committed itself to; claim the "
                    "sample as it was when the run began"
                )


def leaf(salt: bytes, client: int, position: int, x: Array, label: int) -> bytes:
    """Return the salted SHA-256 of one sample: whose it is, where it stands, what it holds.

    Parameters
    ----------
    salt : bytes
        The client's secret, 32 bytes.
    client, position : int
        Owner and place in its training set.
    x : array
        The example as it is trained on; dtype and shape count.
    label : int or array of int
        The label, or one per task.
    """
    head = f"{client}|{position}|".encode()
    return hashlib.sha256(_LEAF + salt + head + _content(x, label)).digest()


def fingerprint(salt: bytes, x: Array, label: int) -> bytes:
    """Return the salted SHA-256 of what a sample holds, wherever it stands.

    Equal samples of two clients with the same salt have the same fingerprint; a changed bit, and
    they have not.
    """
    return hashlib.sha256(salt + _content(x, label)).digest()


def _content(x: Array, label: int) -> bytes:
    values, labels = np.ascontiguousarray(x), np.asarray(label, np.int64)
    return f"{values.dtype.str}|{values.shape}|{labels.tolist()}|".encode() + values.tobytes()


def root(leaves: Sequence[bytes]) -> str:
    """Return the root of a tree over hashes, hex; that of none is the hash of nothing."""
    if not leaves:
        return hashlib.sha256().hexdigest()
    return _levels(leaves)[-1][0].hex()


def opening(leaves: Sequence[bytes], position: int) -> Opening:
    """Return the opening of one sample of a tree.

    Raises
    ------
    IndexError
        If there is no such sample.
    """
    if not 0 <= position < len(leaves):
        raise IndexError(f"position {position} of {len(leaves)}")
    path, place = [], position
    for level in _levels(leaves)[:-1]:
        beside = place ^ 1
        if beside < len(level):
            path.append(level[beside].hex())
        place //= 2
    return Opening(leaves[position].hex(), tuple(path))


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return the tree from the bottom up; the last of an odd number moves up as it is."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = [below[i : i + 2] for i in range(0, len(below), 2)]
        levels.append([_node(*pair) if len(pair) == 2 else pair[0] for pair in pairs])
    return levels


def _climbed(opened: Opening, position: int, size: int) -> str:
    """Return the root that an opening leads to, empty if its path is too short or too long."""
    found, rest = bytes.fromhex(opened.leaf), list(opened.path)
    place, width = position, size
    while width > 1:
        if place ^ 1 < width:
            if not rest:
                return ""
            other = bytes.fromhex(rest.pop(0))
            found = _node(other, found) if place % 2 else _node(found, other)
        place, width = place // 2, (width + 1) // 2
    return "" if rest else found.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()

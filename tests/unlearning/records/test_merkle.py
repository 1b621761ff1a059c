"""The tree's root and proofs, against a recursive definition and known values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearning.records.merkle import EMPTY, Tree, leaf, proof, root_of, root_of_proof

ENTRIES = st.lists(st.binary(max_size=3), max_size=20)


def by_definition(entries: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1, as it is written there."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    left, right = by_definition(entries[:k]), by_definition(entries[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(ENTRIES)
def test_the_growing_root_is_that_of_the_definition(entries: list[bytes]) -> None:
    tree = Tree()
    for count, entry in enumerate(entries):
        assert tree.root == by_definition(entries[:count])
        tree.add(entry)
    assert tree.root == root_of(entries) == by_definition(entries)
    assert tree.size == len(entries)


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf(b"") == hashlib.sha256(b"\x00").digest()


@given(st.integers(1, 33).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_a_proof_leads_to_the_root_and_to_no_other(case: tuple[int, int]) -> None:
    size, index = case
    entries = [str(number).encode() for number in range(size)]
    path, root = proof(entries, index), root_of(entries)
    assert root_of_proof(entries[index], index, size, path) == root
    assert root_of_proof(b"another", index, size, path) != root
    if size > 1:
        assert root_of_proof(entries[index], (index + 1) % size, size, path) != root
        assert root_of_proof(entries[index], index, size, path[:-1]) != root
    assert root_of_proof(entries[index], index, size, [*path, root]) is None
    assert root_of_proof(entries[index], size, size, path) is None


def test_an_entry_that_is_not_there_has_no_proof() -> None:
    with pytest.raises(IndexError, match="entry 2 of 2"):
        proof([b"a", b"b"], 2)

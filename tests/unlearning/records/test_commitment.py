import hashlib

import numpy as np
import pytest

from unlearning.errors import RequestError
from unlearning.records.commitment import (
    Commitment,
    Opening,
    fingerprint,
    leaf,
    opening,
    root,
)

SALT = bytes(range(32))


def leaves(count):
    return [leaf(SALT, 3, place, np.full(4, place, np.float32), place) for place in range(count)]


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def test_the_root_of_three_samples_is_what_the_rfc_says():
    """Two below one node, the third moves up: H(1, H(1, a, b), c)."""
    a, b, c = leaves(3)
    assert root([a, b, c]) == sha(b"\x01", sha(b"\x01", a, b), c).hex()
    assert opening([a, b, c], 1) == Opening(b.hex(), (a.hex(), c.hex()))
    assert opening([a, b, c], 2) == Opening(c.hex(), (sha(b"\x01", a, b).hex(),))


def test_a_leaf_is_the_salted_hash_of_whose_where_and_what():
    x = np.array([1.0, 2.0], np.float32)
    content = b"<f4|(2,)|7|" + x.tobytes()
    assert leaf(SALT, 3, 5, x, 7) == sha(b"\x00", SALT, b"3|5|", content)
    assert fingerprint(SALT, x, 7) == sha(SALT, content)


@pytest.mark.parametrize("count", range(1, 12))
def test_every_sample_opens_and_nothing_else_does(count):
    found = leaves(count)
    known = Commitment(root(found), count)
    for place in range(count):
        opened = opening(found, place)
        known.check_opened(3, [place], {3: {place: opened}})
        other = leaf(SALT, 3, place, np.full(4, place + 1e-3, np.float32), place)
        forged = Opening(other.hex(), opened.path)
        with pytest.raises(RequestError, match="not the one that was trained on"):
            known.check_opened(3, [place], {3: {place: forged}})
        for path in ((*opened.path, "00" * 32), opened.path[:-1]):
            if path != opened.path:
                with pytest.raises(RequestError, match="not the one"):
                    known.check_opened(3, [place], {3: {place: Opening(opened.leaf, path)}})


def test_an_opening_of_another_place_does_not_count():
    found = leaves(4)
    known = Commitment(root(found), 4)
    with pytest.raises(RequestError, match="not the one"):
        known.check_opened(3, [2], {3: {2: opening(found, 1)}})


@pytest.mark.parametrize("position", [-1, 4, 99])
def test_a_sample_that_was_never_there_is_refused(position):
    with pytest.raises(RequestError, match=f"sample {position} of client 3 was never trained on"):
        Commitment(root(leaves(4)), 4).check_known(3, [0, position])


def test_a_sample_that_is_not_opened_is_refused():
    with pytest.raises(RequestError, match="sample 1 of client 3 is not in the claim"):
        Commitment(root(leaves(4)), 4).check_opened(3, [1], {4: {1: opening(leaves(4), 1)}})


def test_whose_where_what_and_salt_all_count():
    x = np.zeros(2, np.float32)
    found = {
        leaf(SALT, 3, 5, x, 7),
        leaf(SALT[::-1], 3, 5, x, 7),
        leaf(SALT, 4, 5, x, 7),
        leaf(SALT, 3, 6, x, 7),
        leaf(SALT, 3, 5, x, 8),
        leaf(SALT, 3, 5, x.astype(np.float64), 7),
        leaf(SALT, 3, 5, x.reshape(1, 2), 7),
        leaf(SALT, 3, 5, x + 1e-7, 7),
    }
    assert len(found) == 8


def test_equal_content_has_one_fingerprint_per_salt():
    x = np.arange(3, dtype=np.float32)
    assert fingerprint(SALT, x, 1) == fingerprint(SALT, x.copy(), np.int64(1))
    assert fingerprint(SALT, x, 1) != fingerprint(SALT[::-1], x, 1)
    assert fingerprint(SALT, x, 1) != fingerprint(SALT, x, 2)


def test_openings_survive_their_file_form():
    opened = opening(leaves(5), 4)
    assert Opening.from_json(opened.to_json()) == opened
    for wrong in ({"leaf": "xy", "path": []}, {"leaf": "00", "path": "00"}):
        with pytest.raises(ValueError, match=r"path|hexadecimal"):
            Opening.from_json(wrong)


def test_nothing_has_a_root_and_no_opening():
    assert root([]) == hashlib.sha256().hexdigest()
    with pytest.raises(IndexError):
        opening([], 0)

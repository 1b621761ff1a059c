"""Signed heads: whatever is done to a ledger without its key shows, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.tampered import change
from unlearning.errors import LedgerError, StorageError
from unlearning.records import heads
from unlearning.records.book import hash_of
from unlearning.records.head import Head
from unlearning.records.ledger import Ledger
from unlearning.records.merkle import root_of_proof
from unlearning.records.seal import Seal, canonical, is_signed_by, read_public
from unlearning.request import Request, Scope


def asked(name: str, client: int = 1) -> Request:
    return Request(Scope.CLIENT, clients=(client,), id=name)


def write(path: Path, anchor: Path | None = None) -> None:
    with Ledger(path, anchor=anchor) as ledger:
        for number, name in enumerate("abc"):
            ledger.receive(asked(name, number))
        ledger.add("a", "started", strategy="retrain")
        ledger.add("a", "fulfilled")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


def verify(path: Path, anchor: Path | None = None) -> None:
    with Ledger(path, readonly=True, anchor=anchor) as ledger:
        ledger.verify()


def append_forged(path: Path) -> None:
    """Add an event whose chain is right, as somebody without the key can."""
    db = sqlite3.connect(path, isolation_level=None)
    seq, previous = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    fields = (seq + 1, "2030-01-01T00:00:00.000+00:00", "b", "", "started", "{}", previous)
    db.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?,?)", (*fields, hash_of(fields)))
    db.close()


def rechain(path: Path) -> None:
    """Edit an event and hash it and all that follow anew."""
    change(path, "UPDATE events SET facts = '{}' WHERE seq = 4")
    db = sqlite3.connect(path, isolation_level=None)
    previous = "0" * 64
    for row in db.execute("SELECT * FROM events ORDER BY seq").fetchall():
        fields = (*row[:6], previous)
        previous = hash_of(fields)
        db.execute("UPDATE events SET previous = ?, hash = ? WHERE seq = ?",
                   (fields[6], previous, row[0]))  # fmt: skip
    db.close()


def test_what_was_not_touched_is_sound_and_kept_in_two_places(path: Path) -> None:
    verify(path)
    head = Head.from_json(json.loads(path.with_suffix(".head").read_text()))
    assert head.size == 5
    assert head.is_signed
    assert head.key == read_public(path.with_suffix(".pub"))
    assert stat.S_IMODE(path.with_suffix(".key").stat().st_mode) == 0o600
    with Ledger(path, readonly=True) as ledger:
        assert ledger.signed_head == head
        entry = ledger.events()[3].hash.encode()
        assert root_of_proof(entry, 3, 5, ledger.inclusion(4)) == bytes.fromhex(head.root)


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM events WHERE seq = 5"],
        ["DELETE FROM events WHERE seq > 1"],
        ["DELETE FROM events"],
        ["DELETE FROM events WHERE seq = 5", "DELETE FROM head"],
        ["DELETE FROM head"],
        ["UPDATE head SET facts = replace(facts, '\"size\": 5', '\"size\": 4')"],
        ["UPDATE identity SET name = 'other'"],
    ],
)
def test_a_cut_or_emptied_ledger_is_found(path: Path, statements: list[str]) -> None:
    change(path, *statements)
    with pytest.raises(LedgerError):
        verify(path)


def test_forgeries_with_a_right_chain_are_found(path: Path) -> None:
    copy = shutil.copytree(path.parent, path.parent.with_name("copy")) / path.name
    append_forged(path)
    with pytest.raises(LedgerError, match="added by somebody without the key"):
        verify(path)
    rechain(copy)
    with pytest.raises(LedgerError, match="are not those that its signed head vouches for"):
        verify(copy)


def test_nothing_is_built_on_a_forgery(path: Path) -> None:
    append_forged(path)
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="does not hold what its signed head says"):
            ledger.receive(asked("d", 7))
        assert len(ledger.events()) == 6


def test_the_head_beside_it_is_needed_and_held_against(path: Path) -> None:
    beside = path.with_suffix(".head")
    text = beside.read_text()
    for damaged in ("", "{}", text.replace('"size": 5', '"size": 6'), text[:-9]):
        beside.write_text(damaged)
        with pytest.raises(LedgerError, match=r"missing or damaged|not signed"):
            verify(path)
    beside.unlink()
    with pytest.raises(LedgerError, match="missing or damaged"):
        verify(path)


def test_a_ledger_put_back_to_an_earlier_day_is_found(path: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.sqlite"
    shutil.copy(path, earlier)
    with Ledger(path) as ledger:
        ledger.add("b", "started")
    shutil.copy(earlier, path)
    with pytest.raises(LedgerError, match="its end was cut off"):
        verify(path)


def test_an_anchor_elsewhere_finds_what_was_put_back_whole(tmp_path: Path) -> None:
    path, anchor = tmp_path / "run" / "ledger.sqlite", tmp_path / "anchor.jsonl"
    path.parent.mkdir()
    write(path, anchor)
    before = shutil.copytree(path.parent, tmp_path / "before")
    with Ledger(path, anchor=anchor) as ledger:
        ledger.add("b", "started")
    verify(path, anchor)
    assert len(anchor.read_text().splitlines()) == 8  # the empty ledger, where it is noted, six
    shutil.rmtree(path.parent)
    shutil.move(before, path.parent)
    verify(path)  # nothing beside it can tell
    with pytest.raises(LedgerError, match=r"the anchor .*its end was cut off"):
        verify(path, anchor)


def test_a_ledger_that_is_gone_is_not_begun_anew(path: Path) -> None:
    path.unlink()
    with pytest.raises(LedgerError, match=r"is missing, but ledger\.head beside it vouches"):
        Ledger(path)
    assert not path.exists()


def test_reading_changes_nothing(path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    ledger = Ledger(path, readonly=True)
    with pytest.raises(LedgerError, match="opened to be read only"):
        ledger.receive(asked("x", 8))
    ledger.close()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    with pytest.raises(LedgerError, match="cannot open"):
        Ledger(path.with_name("none.sqlite"), readonly=True)


def test_a_lost_key_is_replaced_for_a_reason(path: Path) -> None:
    path.with_suffix(".key").unlink()
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="fedunlearn rekey"):
            ledger.add("b", "started")
        with pytest.raises(LedgerError, match="for a reason"):
            ledger.rekey(" ")
        before, after = ledger.rekey("the disk of the key broke")
        assert before != after
        ledger.add("b", "started")
        ledger.verify()
    assert read_public(path.with_suffix(".pub")) == after
    assert len(list(path.parent.glob("*.pub"))) == 2


def test_an_anchor_outlives_the_key_and_an_old_key_counts_for_what_came_before(
    tmp_path: Path,
) -> None:
    path, anchor = tmp_path / "ledger.sqlite", tmp_path / "anchor"
    write(path, anchor)
    old = Seal.read(path.with_suffix(".key"))
    with Ledger(path, anchor=anchor) as ledger:
        ledger.rekey("known to others")
        ledger.add("b", "started")
        ledger.rekey("once more")
        ledger.add("b", "fulfilled")
        ledger.verify()
        assert ledger.signed_head is not None
        bare = {**ledger.signed_head.facts(), "key": old.public}
    forged = {**bare, "signature": old.sign(bare)}
    with anchor.open("a") as file:
        file.write(json.dumps(forged) + "\n")
    with pytest.raises(LedgerError, match="not signed by the key"):
        verify(path, anchor)


def test_an_old_ledger_is_read_as_it_is_and_brought_up_when_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write(path)
    for name in ("key", "pub", "head"):
        path.with_suffix(f".{name}").unlink()
    change(path, "DROP TABLE head", "DROP TABLE identity", "PRAGMA user_version=1")
    with Ledger(path, readonly=True) as ledger:
        ledger.verify()
        assert ledger.signed_head is None
    with Ledger(path) as ledger:
        ledger.receive(asked("d", 7))
        ledger.verify()
        assert ledger.signed_head is not None


def test_a_thousand_random_edits_are_found(path: Path) -> None:
    """Any character of any column of the events and of the heads, each alone."""
    generator = np.random.default_rng(0)
    beside = path.with_suffix(".head")
    text = beside.read_text()
    db = sqlite3.connect(path, isolation_level=None)
    for trigger in ("never_changed", "never_deleted"):
        db.execute(f"DROP TRIGGER {trigger}")
    columns = ("utc", "request_id", "branch", "event", "facts", "previous", "hash")
    with Ledger(path, readonly=True) as ledger:
        for number in range(1000):
            if number % 10 == 0:  # the head's file
                place = int(generator.integers(len(text)))
                changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
                beside.write_text(changed)
                with pytest.raises(LedgerError):
                    ledger.verify()
                beside.write_text(text)
                continue
            table, where, column = "events", f"seq = {1 + number % 5}", columns[number % 7]
            if number % 10 == 1:
                table, where, column = "head", "place = 1", "facts"
            (old,) = db.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
            place = int(generator.integers(len(old) + 1))
            new = old[:place] + chr(33 + int(generator.integers(90))) + old[place + 1 :]
            if new == old:
                continue
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new,))
            with pytest.raises(LedgerError):
                ledger.verify()
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (old,))
        ledger.verify()
    db.close()


def test_signatures_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    seal = Seal.make(tmp_path / "a.key")
    signature = seal.sign({"b": 1, "a": [1.0, "é"]})
    assert is_signed_by(seal.public, signature, {"a": [1.0, "é"], "b": 1})
    assert not is_signed_by(seal.public, signature, {"a": [1.0, "é"], "b": 2})
    assert not is_signed_by("00", signature, {})
    assert not is_signed_by(seal.public, "no hex", {})
    assert not is_signed_by(seal.public, signature.upper(), {"b": 1, "a": [1.0, "é"]})
    assert Seal.make(tmp_path / "a.key").public == seal.public  # never two keys in one place
    with pytest.raises(LedgerError, match="cannot be signed"):
        canonical({"a": float("nan")})
    with pytest.raises(LedgerError, match="is no public key"):
        read_public(tmp_path / "a.key")


def test_a_head_that_cannot_be_written_is_the_ledgers_fault_and_made_up_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is to blame: whoever serves it ends the run, and does not put it off."""

    def broken(*_: object, **__: object) -> None:
        raise StorageError(OSError(5, "Input/output error"), "ledger.head", 9, 99)

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with Ledger(path) as ledger:
        ledger.receive(asked("later"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", failing)
            patched.setattr(heads, "write_atomically", broken)
            with pytest.raises(LedgerError, match=r"Input/output error .9 bytes were needed"):
                ledger.add("later", "started")
        assert ledger.state("later") == "serving"
        ledger.note("seen")
    verify(path)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows with every file which takes the name of a head."""
    made: list[Path] = []
    write = heads.write_atomically

    def noted(path: Path, data: bytes) -> None:
        made.append(path)
        write(path, data)

    monkeypatch.setattr(heads, "write_atomically", noted)
    return made


def test_a_head_is_overwritten_where_it_lies(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file for each event would cost five times as much; both are there after a kill."""
    beside, made = path.with_suffix(".head"), counted(monkeypatch)
    with Ledger(path) as ledger:
        ledger.add("b", "started")  # who wrote the file before, it cannot know
        first = beside.stat()
        for event in ("unlearned", "deletion-pending", "fulfilled"):
            ledger.add("b", event)
            verify(path)
    assert len(made) == 1
    assert (beside.stat().st_ino, beside.stat().st_size) == (first.st_ino, 512)


def test_a_head_of_an_older_version_is_read_and_replaced(path: Path) -> None:
    beside = path.with_suffix(".head")
    beside.write_bytes(beside.read_bytes().rstrip())
    verify(path)
    with Ledger(path) as ledger:
        ledger.add("b", "started")
    assert beside.stat().st_size == 512
    verify(path)


def test_no_other_spelling_of_a_head_is_taken_for_it(path: Path) -> None:
    beside = path.with_suffix(".head")
    text = beside.read_text()
    for other in (text.replace(", ", ","), text[:-2] + "\n", text[:-2] + "\t\n", text + " "):
        beside.write_text(other)
        with pytest.raises(LedgerError, match="missing or damaged"):
            verify(path)


def test_nothing_is_built_on_a_ledger_that_was_put_back(path: Path, tmp_path: Path) -> None:
    """As many events as are gone would hide it: the head's file would be brought up to them."""
    beside, earlier = path.with_suffix(".head"), tmp_path / "earlier.sqlite"
    with Ledger(path) as one, Ledger(path) as other:
        one.add("b", "started")
        shutil.copy(path, earlier)
        other.add("b", "unlearned")
        other.add("b", "fulfilled")
        newest = beside.read_bytes()
    shutil.copy(earlier, path)
    for event in ("started", "unlearned", "fulfilled"):
        with Ledger(path) as late, pytest.raises(LedgerError, match="its end was cut off"):
            late.add("c", event)
    assert beside.read_bytes() == newest
    with pytest.raises(LedgerError, match="its end was cut off"):
        verify(path)


@pytest.mark.parametrize("written", [0, 100])
def test_a_head_that_was_half_overwritten_is_written_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """As by a disk that fails within a sector; none at all is a disk that is full."""
    made, whole = counted(monkeypatch), os.pwrite

    def short(descriptor: int, data: bytes, at: int) -> int:
        if not written:
            raise OSError(28, "No space left on device")
        return whole(descriptor, data[:written], at)

    with Ledger(path) as ledger:
        ledger.add("b", "started")
        monkeypatch.setattr(os, "pwrite", short)
        ledger.add("b", "fulfilled")
        verify(path)
    assert len(made) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"b": "x", "a": 1, "Z": -7},
        {"a": 2**53 - 1, "b": ""},
        {"quoted": 'a "b" \\ / c'},
        {"é": "x"},
        {"a": "é\n\x7f"},
        {"a": True, "b": None},
        {"a": 1.5, "b": 2.0, "c": 1e21},
        {"a": {"b": ["x", 1]}},
        {},
    ],
)
def test_what_is_signed_is_canonical_however_it_is_written(value: dict[str, object]) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [2**53, -(2**53), float("inf")])
def test_numbers_that_libraries_write_differently_are_not_signed(value: float) -> None:
    with pytest.raises(LedgerError, match="cannot be signed"):
        canonical({"a": value})


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    other = X25519PrivateKey.generate()
    public, private = tmp_path / "other.pub", tmp_path / "other.key"
    public.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(LedgerError, match=r"other\.pub is a key of another kind; an Ed25519"):
        read_public(public)
    with pytest.raises(LedgerError, match=r"other\.key is of another kind; Ed25519 is needed"):
        Seal.read(private)

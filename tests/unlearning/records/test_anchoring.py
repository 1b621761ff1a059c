"""An anchor that was taken away, emptied, changed or moved is told, and goes on being told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from unlearning.errors import LedgerError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "anchor"


def ask(path: Path, anchor: Path | None, *names: str) -> None:
    with Ledger(path, anchor=anchor) as ledger:
        for number, name in enumerate(names):
            ledger.receive(Request(Scope.CLIENT, clients=(number,), id=name))


def said(path: Path, anchor: Path | None) -> tuple[str, str]:
    with Ledger(path, anchor=anchor, readonly=True) as ledger:
        ledger.verify()
        found = ledger.anchored()
        return found.line, found.fault


def begin(path: Path, anchor: Path) -> None:
    anchor.parent.mkdir()
    ask(path, anchor, "a", "b")
    words, fault = said(path, anchor)
    assert fault == ""
    assert words.endswith("vouches for 3 of 3 event(s)")  # where it lies is the first


def remove(anchor: Path) -> None:
    anchor.unlink()


def empty(anchor: Path) -> None:
    anchor.write_text("")


def of_another_run(anchor: Path) -> None:
    anchor.unlink()
    ask(anchor.with_name("other.sqlite"), anchor, "x")


def without_beginning(anchor: Path) -> None:
    lines = anchor.read_text().splitlines(keepends=True)
    anchor.write_text("".join(lines[2:]))


@pytest.mark.parametrize("harm", [remove, empty, of_another_run, without_beginning])
def test_a_lost_anchor_is_told_until_the_operator_says_why(
    path: Path, anchor: Path, harm: object, caplog: pytest.LogCaptureFixture
) -> None:
    begin(path, anchor)
    assert callable(harm)
    harm(anchor)
    with pytest.raises(LedgerError, match=r"the anchor .* is (missing|empty|without)"):
        said(path, anchor)
    with caplog.at_level(logging.WARNING, "fedunlearn"):
        ask(path, anchor, "c")
    assert "would not show" in caplog.text
    ask(path, anchor, "d")
    words, fault = said(path, anchor)
    assert "begun after event 3" in words
    assert "at event 4" in fault
    with Ledger(path, anchor=anchor) as ledger:
        with pytest.raises(LedgerError, match="for a reason"):
            ledger.reanchor(" ")
        ledger.reanchor("the other machine was set up anew")
    assert said(path, anchor)[1] == ""
    with (
        Ledger(path, anchor=anchor) as ledger,
        pytest.raises(LedgerError, match="nothing is wrong"),
    ):
        ledger.reanchor("once more")


def test_two_runs_may_share_an_anchor(path: Path, anchor: Path) -> None:
    begin(path, anchor)
    other = path.with_name("other.sqlite")
    ask(other, anchor, "x")
    ask(path, anchor, "c")
    assert said(path, anchor)[1] == said(other, anchor)[1] == ""


def test_an_anchor_that_the_config_names_no_more_or_elsewhere(path: Path, anchor: Path) -> None:
    begin(path, anchor)
    assert "names no anchor any more" in said(path, None)[1]
    ask(path, None, "c")
    assert "named no more at event 4" in said(path, None)[1]
    with Ledger(path) as ledger:
        ledger.reanchor("it is given up")
    assert said(path, None) == ("", "")
    moved = anchor.with_name("moved")
    ask(path, moved, "d")  # named first on a ledger that has events already
    words, fault = said(path, moved)
    assert (fault, "begun after event 6" in words) == ("", True)
    again = moved.rename(anchor.with_name("again"))
    ask(path, again, "e")  # moved together with its content
    assert said(path, again)[1] == ""


def test_one_that_cannot_be_written_is_noted_once_and_stops_nothing(
    path: Path, anchor: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(path, anchor, "a", "b", "c")  # its folder is not there
    assert "cannot be written" in caplog.text
    with Ledger(path, anchor=anchor) as ledger:
        assert [event.event for event in ledger.events("")] == ["anchored"]
    anchor.parent.mkdir()
    ask(path, anchor, "d")
    words, fault = said(path, anchor)
    assert (fault, "begun after event 4" in words) == ("", True)


def test_a_changed_line_is_found_and_stops_nothing(path: Path, anchor: Path) -> None:
    begin(path, anchor)
    text = anchor.read_text()
    anchor.write_text(text.replace('"size": 0', '"size": 1'))
    with pytest.raises(LedgerError, match=r"line 1 of the anchor .* was changed"):
        said(path, anchor)
    ask(path, anchor, "c")
    ask(path, anchor, "d")
    with Ledger(path, anchor=anchor, readonly=True) as ledger:
        assert [event.event for event in ledger.events("")] == ["anchored", "anchored"]
        assert len(ledger.requests()) == 4


def test_a_line_that_was_cut_off_is_passed_over(path: Path, anchor: Path) -> None:
    begin(path, anchor)
    anchor.write_text(anchor.read_text()[:-40])  # a full disk, or a kill
    words, fault = said(path, anchor)
    assert (fault, "vouches for 2 of 3" in words) == ("", True)
    ask(path, anchor, "c")
    words, fault = said(path, anchor)
    assert (fault, "vouches for 4 of 4" in words) == ("", True)


def test_a_lost_key_and_a_lost_anchor_are_both_put_right(path: Path, anchor: Path) -> None:
    begin(path, anchor)
    anchor.unlink()
    path.with_suffix(".key").unlink()
    with Ledger(path, anchor=anchor) as ledger:
        ledger.rekey("the disk broke")
        ledger.reanchor("the disk broke")
    assert said(path, anchor)[1] == ""

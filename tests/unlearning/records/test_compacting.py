"""An index that is built anew after a deletion: in little memory, and whenever it was missed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unlearning.errors import HistoryError
from unlearning.records import compacting, store
from unlearning.records.history import History
from unlearning.request import Request, Scope

ROOT = Path(__file__).parents[3]
COUNT = 0x7EADBEEF0BAD  # examples that one client alone has, as the index stores them

PURGE = """
import sys
from pathlib import Path
import numpy as np
from unlearning.records.history import History
from unlearning.request import Request, Scope

with History(Path(sys.argv[1])) as history:
    history.start({"w": np.zeros(1)})
    for t in range(1, 21):
        with history.record(t, {"w": np.zeros(1)}) as entry:
            for client in range(4000):
                entry.note(client, 10)
    history.store.db.execute("PRAGMA cache_size=-200")  # kB
    history.store.db.execute("PRAGMA hard_heap_limit=900000")  # bytes, of all that SQLite holds
    history.purge(Request(Scope.CLIENT, clients=(3,), id="r"))
    assert history.verify() == []
    assert history.last_round == 20
    print((Path(sys.argv[1]) / "index.sqlite").stat().st_size)
"""


def test_a_deletion_needs_no_memory_for_the_whole_index(tmp_path: Path) -> None:
    """SQLite itself refuses to take more; a limit counts for a whole process, hence a child."""
    found = subprocess.run(
        [sys.executable, "-c", PURGE, tmp_path / "history"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 1.8e6  # twice the limit


def recorded(root: Path) -> History:
    history = History(root)
    history.start({"w": np.zeros(1)})
    for t in (1, 2):
        with history.record(t, {"w": np.zeros(1)}) as entry:
            entry.note(0, 10)
            entry.note(1, COUNT)
    return history


@pytest.mark.parametrize("again", ["opened", "asked"])
def test_what_a_full_disk_kept_from_being_rewritten_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    root = tmp_path / "history"
    request = Request(Scope.CLIENT, clients=(1,), id="r")

    def full(*_: object) -> None:
        raise HistoryError("no room")

    with recorded(root) as history:
        with monkeypatch.context() as patched:
            patched.setattr(store, "compact", full)
            with pytest.raises(HistoryError, match="no room"):
                history.purge(request)
        assert compacting.STALE in history.store.settings()
        if again == "asked":
            history.purge(request)
            assert compacting.STALE not in history.store.settings()
    with History.open(root) as history:
        assert compacting.STALE not in history.store.settings()
        assert history.verify() == []
        assert history.participants(2) == {0: 10}
        assert history.served == ("r",)
    assert COUNT.to_bytes(6, "big") not in (root / "index.sqlite").read_bytes()
    assert not (root / "index.fresh").exists()


def test_a_copy_left_by_a_kill_does_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "history"
    recorded(root).close()
    (root / "index.fresh").write_bytes(b"half written")
    with History.open(root) as history:
        assert history.verify() == []
        history.purge(Request(Scope.CLIENT, clients=(1,), id="r"))
        assert history.participants(1) == {0: 10}
    assert not (root / "index.fresh").exists()

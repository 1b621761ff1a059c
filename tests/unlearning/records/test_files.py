from __future__ import annotations

import os
from pathlib import Path

import pytest

from unlearning.records.files import write_atomically


def test_a_file_is_old_or_new_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    seen = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def watched(*args, _real=real):  # type: ignore[no-untyped-def]
            seen.append(path.read_bytes())
            _real(*args)
            seen.append(path.read_bytes())

        monkeypatch.setattr(os, name, watched)
    write_atomically(path, b"new")
    assert seen == [b"old", b"old", b"old", b"new", b"new", b"new"]
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]

"""Runs whose page is not drawn: pictures and page take nine tenths of a run of a few rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.federation import books
from unlearning.records.files import write_atomically

__all__ = ["undrawn"]


def undrawn(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Have the files of a report written with nothing in them.

    ``patch`` sets an attribute: pytest's, for the time of a test, or for the rest of a process.
    """
    patch(books, "render", _render)
    patch(books, "timeline", lambda points: "<svg/>")


def _render(run_dir: Path, figures: Path | None = None) -> Path:
    for name in ("report.html", "report.json", "table.tex"):
        write_atomically(run_dir / name, b"not drawn\n" * 1000)
    return run_dir / "report.html"

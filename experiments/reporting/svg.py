"""How every picture of a report is drawn: as SVG whose text is text and whose colours a page sets.

Lines differ in dash and marker as well as in colour (Okabe and Ito's colour-blind safe set), and
the same picture serves a file of its own, a page in light or dark, and grey print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = [
    "BACKDOOR",
    "FORGET",
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "RECOVER",
    "RETAIN",
    "TEST",
    "UNLEARN",
    "WIDTH_IN",
    "as_pdf",
    "collecting",
    "document",
    "inline",
    "style",
]

PAPER, INK, MUTED, GRID = "#ffffff", "#1c2127", "#5a6370", "#dde1e6"
UNLEARN, RECOVER = "#e3e7ec", "#f2f4f6"
TEST, RETAIN, FORGET, BACKDOOR = "#0072b2", "#009e73", "#d55e00", "#a3528f"
_VARIABLES = {  # the page may set these; its own colours are the fallback
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    UNLEARN: "shade-2",
    RECOVER: "shade-1",
    TEST: "c-test",
    RETAIN: "c-retain",
    FORGET: "c-forget",
    BACKDOOR: "c-backdoor",
}
WIDTH_IN = 8.6
_FONT = "var(--font, sans-serif)"
_DIGITS = re.compile(r"-?\d+\.\d{3,}")


_PDFS: ContextVar[dict[str, bytes] | None] = ContextVar("pdfs", default=None)


@contextmanager
def as_pdf() -> Iterator[dict[str, bytes]]:
    """Collect every picture drawn in the block as PDF, too, by the name of its style.

    Text stays text (TrueType), and the same figure gives the same bytes.
    """
    found: dict[str, bytes] = {}
    token = _PDFS.set(found)
    try:
        yield found
    finally:
        _PDFS.reset(token)


def collecting() -> bool:
    """Return whether pictures are collected as PDF: then each has to be drawn."""
    return _PDFS.get() is not None


@contextmanager
def style(salt: str) -> Iterator[None]:
    """Set what Matplotlib reads from its global settings, for one figure only."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "pdf.fonttype": 42,  # type 3 is refused by many a publisher
        "text.parse_math": False,  # a dollar is a dollar, and nobody looks for two of them
        "axes.titley": 1.0,  # where it would be found to lie, tick by tick
        "font.size": 9.0,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.facecolor": "none",
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
    }
    with mpl.rc_context(settings):
        yield


def document(figure: Figure) -> str:
    """Return a figure as a whole SVG document; the same figure gives the same bytes."""
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(text, format="svg", metadata=metadata)
    pdfs = _PDFS.get()
    if pdfs is not None:
        page = io.BytesIO()
        figure.savefig(page, format="pdf", metadata={"CreationDate": None, "Creator": None})
        name = str(mpl.rcParams["svg.hashsalt"])
        again = sum(other.partition(".")[0] == name for other in pdfs)
        pdfs[f"{name}.{again + 1}" if again else name] = page.getvalue()
    # A hundredth of a point cannot be seen, and the digits beyond it are half of the file.
    paths = re.sub(r' d="[^"]*"', lambda path: _DIGITS.sub(_short, path[0]), text.getvalue())
    return re.sub(r"[ \t]+\n", "\n", paths)


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def inline(svg: str, prefix: str, title: str) -> str:
    """Return an SVG document as an element for a page: its colours may be set by the page.

    Parameters
    ----------
    svg : str
        As :func:`document` returns it.
    prefix : str
        Put before every id, so that several pictures can stand on one page.
    title : str
        Alternative text, escaped already.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # would style the page
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="pic-{prefix}-', body)
    body = re.sub(r'href="#', f'href="#pic-{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#pic-{prefix}-", body)
    body = re.sub(r"font-family: [^;\"]*", f"font-family: {_FONT}", body)
    body = re.sub(r"(font: [^;\"']*?[\d.]+px) [^;\"]*", rf"\1 {_FONT}", body)
    for color, name in _VARIABLES.items():
        body = body.replace(color, f"var(--{name}, {color})")
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    return body.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
